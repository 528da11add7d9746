"""Indexes that documents are added to, replaced in and deleted from, while others search them.

An index is one or more segments, each a folder of files that never change: its documents, what its kind makes of them,
and beside them the places of those that are dead (``dead.npy``). A change adds a segment and buries documents in older
ones; then segments of a size are merged when they are many (the log-structured merge tree, O'Neil et al. 1996), so that
a document is rewritten O(log N) times. The manifest names all files; replacing it makes a batch of changes happen.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.progress import track
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.parts import Part, folders, new_part
from rankpipe.store import Draft, publish

FAN = 8  # segments of a size that are merged into one
SMALL = 1000  # documents; below, all sizes are one
LARGE = 1 << 18  # documents; segments of as many are merged by compact() only
ROTTEN = 0.5  # a segment of which more is dead is rewritten


class Segment:
    """One of an index: its documents and which of them are dead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docs = Docs(folder)
        dead = folder / "dead.npy"
        self.dead: NDArray[np.int32] = np.load(dead) if dead.exists() else np.empty(0, np.int32)  # places, rising
        self.alive: NDArray[np.bool_] | None = None
        if len(self.dead):
            self.alive = np.ones(len(self.docs), bool)
            self.alive[self.dead] = False

    def __len__(self) -> int:
        return len(self.docs) - len(self.dead)

    @property
    def living(self) -> NDArray[np.intp]:
        """Places of the documents that are alive, rising."""
        return np.arange(len(self.docs)) if self.alive is None else np.flatnonzero(self.alive)

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Where the documents of these ids are, if they are alive."""
        found = self.docs.find(ids)
        return found if self.alive is None else {i: place for i, place in found.items() if self.alive[place]}


class Living(Index):
    """An index of segments, which its kinds fill and search."""

    format = 2
    counts: ClassVar[tuple[str, ...]] = ("documents", "empty_texts", "ids_with_white_space")  # facts that add up
    reuses: ClassVar[bool] = False  # whether a segment takes what it can from older ones (parts.Part.older)

    @classmethod
    def make(cls, data: Dataset, folder: Path, recipe: dict[str, Any], *, resume: bool = False) -> Self:
        """Build an index of one segment.

        :param recipe: how, with every argument; all that the segments to come will know of it.
        :param resume: go on from what an interrupted build has left.
        """
        with publish(folder, kind=cls.kind, format=cls.format, recipe=recipe, data=data.data, resume=resume) as draft:
            with new_part(draft, folder, first=True, resume=resume) as made:
                cls.fill(track(data.docs(), f"{cls.kind} index of {data.name}", data.count), made, recipe)
            draft.facts = cls._facts(draft.folder)
        return cls(folder)

    @classmethod
    @abstractmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        """Make a segment: keep ``docs`` (:func:`~rankpipe.retrieve.docs.write_docs`), and what the kind makes of it."""

    def more(self, docs: Iterable[Doc], draft: Part) -> None:
        """Make a segment of documents that come to the index; a kind that holds a model already need not load it."""
        self.fill(docs, draft, self.manifest.recipe)

    @classmethod
    @abstractmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Segment:
        """A segment, to be searched."""

    @abstractmethod
    def find(self, queries: Sequence[Query]) -> Iterable[Iterable[Sequence[Hit]]]:
        """For each query the best ``k`` hits of each segment that is ``searched``."""

    @classmethod
    def merge(cls, segments: Sequence[Any], draft: Part, recipe: dict[str, Any]) -> None:
        """Make one segment of what is alive in several; a kind that can do it without the texts does."""
        cls.fill((s.docs[place] for s in segments for place in s.living.tolist()), draft, recipe)

    @classmethod
    def bury(cls, segment: Any, dead: NDArray[np.int32], folder: Path) -> None:
        """Note of what dies in a segment what its kind must know beside its places.

        :param dead: places of all that are dead now, rising.
        :param folder: of the segment, in the draft.
        """

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search the segments, and merge what they have by score; equal scores as trec_eval breaks them."""
        return [
            Ranking.scored(query, chain.from_iterable(found), self.k)
            for query, found in zip(batch, self.find(batch), strict=True)
        ]

    def _open(self) -> None:
        self.segments = self.searched = self._opened(self.manifest.path)

    def only(self, numbers: Sequence[int]) -> Self:
        """Search these segments only, by what is known of all, until what is there now is opened again."""
        self.searched = [self.segments[i] for i in numbers]
        return self

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def documents(self) -> Iterator[Doc]:
        """All that are alive, in the order in which they came."""
        return (s.docs[place] for s in self.segments for place in s.living.tolist())

    def add(self, docs: Iterable[Doc]) -> Change:
        """Add documents.

        :raises DataError: If an id is there already, or comes twice; nothing is added.
        """
        return self._change(docs, (), replace=False)

    def update(self, docs: Iterable[Doc]) -> Change:
        """Add documents; those whose ids are there take the place of the old ones.

        :raises DataError: If an id comes twice; nothing is changed.
        """
        return self._change(docs, (), replace=True)

    def delete(self, ids: Iterable[str]) -> Change:
        """Delete documents by their ids; says which were not there."""
        return self._change(None, ids, replace=False)

    def compact(self) -> Change:
        """Make one segment of all, without what is dead."""
        with self._amending() as draft:
            segments = self._opened(draft.folder)
            if len(segments) > 1 or any(len(s.dead) for s in segments):
                self._merge(segments, draft)
        self.refresh()
        return Change()

    def _change(self, docs: Iterable[Doc] | None, ids: Iterable[str], *, replace: bool) -> Change:
        with self._amending() as draft:
            segments = self._opened(draft.folder)
            doomed, fresh = dict.fromkeys(ids), 0
            if docs is not None:
                made = self._written(docs, draft)
                doomed, fresh = dict.fromkeys(made.ids), len(made)
            dead = [s.find(doomed) for s in segments]
            there = [i for found in dead for i in found]
            if docs is not None and there and not replace:
                raise self._there(there, fresh)
            for segment, found in zip(segments, dead, strict=True):
                if found:
                    self._bury(segment, found.values())
            self._tidy(draft)
        self.refresh()
        if docs is None:
            return Change(deleted=len(there), absent=tuple(i for i in doomed if i not in set(there)))
        return Change(added=fresh - len(there), replaced=len(there))

    @classmethod
    def _bury(cls, segment: Segment, places: Iterable[int]) -> None:
        if dead := sorted({*segment.dead.tolist(), *places}):
            with write(segment.folder / "dead.npy", "wb") as f:
                np.save(f, np.array(dead, np.int32))
            cls.bury(segment, np.array(dead, np.int32), segment.folder)

    def _tidy(self, draft: Draft) -> None:
        """Merge segments of a size where they are many; rewrite those of which much is dead."""
        while True:
            segments = self._opened(draft.folder)
            sizes = defaultdict(list)
            for s in segments:
                if len(s) < LARGE:
                    sizes[_size(len(s))].append(s)
            many = [group for group in sizes.values() if len(group) >= FAN]
            rotten = [[s] for s in segments if len(s.dead) > ROTTEN * len(s.docs)]
            if not (due := [*many, *rotten]):
                return
            self._merge(due[0], draft)

    def _merge(self, segments: Sequence[Segment], draft: Draft) -> None:
        if any(map(len, segments)):
            with new_part(draft, self.folder) as made:
                self.merge(segments, made, self.manifest.recipe)
        for s in segments:
            shutil.rmtree(s.folder)

    def _written(self, docs: Iterable[Doc], draft: Draft) -> Docs:
        with new_part(draft, self.folder) as made:
            self.more(docs, made)
        return Docs(made.folder)

    def _opened(self, folder: Path) -> list[Any]:
        return [self.segment(f, self.manifest.recipe) for f in folders(folder)]

    @contextmanager
    def _amending(self) -> Iterator[Draft]:
        with super()._amending() as draft:
            yield draft
            draft.facts = self._facts(draft.folder)

    @classmethod
    def _facts(cls, folder: Path) -> dict[str, Any]:
        """What is worth knowing: counts summed over the segments, all else as the last one says."""
        told = [json.loads((made / "facts.json").read_text("utf-8")) for made in folders(folder)]
        dead = sum(len(Segment(made).dead) for made in folders(folder))
        facts = {k: v for one in told for k, v in one.items()} | {k: sum(one[k] for one in told) for k in cls.counts}
        return {**facts, "documents": facts["documents"] - dead, "dead": dead, "segments": len(told)}


def _size(documents: int) -> int:
    """Which segments are of a size: those within a factor of :data:`FAN`."""
    return int(np.log(max(documents, SMALL)) / np.log(FAN))
