"""Indexes that documents are added to, replaced in and deleted from, while others search them.

An index is one or more segments, each a folder of files that never change: its documents, what its kind makes of them,
and beside them the places of those that are dead (``dead.npy``). A change adds a segment and buries documents in older
ones; then segments of a size are merged when they are many (the log-structured merge tree, O'Neil et al. 1996), so that
a document is rewritten O(log N) times. The manifest names all files; replacing it makes a batch of changes happen.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.errors import Busy, DataError
from rankpipe.progress import track
from rankpipe.retrieve.common import Said, refuse_place
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.hits import ranking
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.memory import ANY, size_bytes
from rankpipe.retrieve.parts import Part, folders, go_on, new_part, portions
from rankpipe.retrieve.passages import Passages, documents, heads, joined, places
from rankpipe.retrieve.segment import DEAD, Segment, facts, of_a_size, refuse_damaged, room, runs
from rankpipe.retrieve.trial import Try, by_parts
from rankpipe.store import Draft, amend, publish

FAN = 8  # segments of a size that are merged into one
SMALL = 1000  # documents; below, all sizes are one
LARGE = 1 << 18  # documents, dead or alive; segments of as many are merged by compact() only
ROTTEN = 0.5  # a segment of which more is dead is rewritten


class Living(Index):
    """An index of segments, which its kinds fill and search."""

    format = 2
    portion: ClassVar[int] = ANY  # documents of a segment that a build makes, at most, before it merges them
    counts: ClassVar[tuple[str, ...]] = ("documents", "empty_texts", "ids_with_white_space")  # facts that add up
    apart: ClassVar[bool] = True  # whether each segment can be made and searched without the others
    reuses: ClassVar[bool] = False  # whether a segment takes what it can from older ones (parts.Part.older)

    def having(self, field: str, kind: str | None = None) -> int:
        """How many documents that are alive have a field, if asked for of this kind."""
        masks = (s.fields.having(field, kind) & (heads(s.docs) if self.passages else True) for s in self.segments)
        return sum(int(mask[s.living].sum()) for s, mask in zip(self.segments, masks, strict=True))

    def field_names(self) -> Iterator[str]:
        """The names of all fields."""
        return (name for s in self.segments for name in s.fields.names)

    @classmethod
    def make(
        cls,
        data: Dataset,
        folder: Path | str,
        recipe: dict[str, Any],
        *,
        passages: Said = None,
        memory: str | int | None = None,
    ) -> Self:
        """Build an index, of one segment if memory allows. A build that was interrupted goes on after its last whole
        segment, within which a kind may have shards of its own.

        :param recipe: how, with every argument; all that the segments to come will know of it.
        :param passages: how documents are cut; :class:`Common`, also ``memory``.
        """
        folder, cut, most = refuse_place(data, folder, cls.kind), Passages.of(passages), size_bytes(memory)
        recipe = {**recipe, "passages": cut and cut.told}
        with publish(folder, kind=cls.kind, format=cls.format, recipe=recipe, data=data.data, resume=most) as draft:
            go_on(draft, alone=False)
            docs = iter(track(data.docs(), f"{cls.kind} index of {data.name}", data.count))
            deque(islice(docs, facts(draft.folder, cls.counts, cut, most)["documents"]), maxlen=0)  # are there already
            part = partial(new_part, draft, folder, first=True, memory=most)
            for made, some in portions(docs, part, cls.portion):
                cls.fill(made.counted(cut.split(some) if cut else some), made, recipe)
            draft.facts = facts(draft.folder, cls.counts, cut, most)
        return cls(folder)._settled()

    @classmethod
    @abstractmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        """Make a segment: keep ``docs`` (:func:`~rankpipe.retrieve.docs.write_docs`), and what the kind makes of it."""

    def more(self, docs: Iterable[Doc], draft: Part) -> None:
        """Make a segment of documents that come to the index; a kind that holds a model already need not load it."""
        self.fill(docs, draft, self.manifest.recipe)

    @classmethod
    def ready(cls, recipe: dict[str, Any]) -> Callable[[Iterable[Doc], Part], None]:
        """What makes segments, with all loaded that it takes."""
        return partial(cls.fill, recipe=recipe)

    @classmethod
    def trial(cls, recipe: dict[str, Any], memory: int) -> Try:
        """What indexes a few documents, to foretell what more of them take.

        :param memory: bytes that it may hold.
        """
        return by_parts(cls.ready(recipe), partial(cls.size, recipe=recipe), recipe, memory)

    @classmethod
    def size(cls, folder: Path, recipe: dict[str, Any]) -> int:  # noqa: ARG003
        """Bytes of a small segment, as they would count in a large one."""
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    @classmethod
    @abstractmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Segment:
        """A segment, to be searched."""

    @abstractmethod
    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """For each query the best ``k`` hits of each ``searched`` segment, best first, that meet ``self.where``."""

    @classmethod
    def merge(cls, segments: Sequence[Any], draft: Part, recipe: dict[str, Any]) -> None:
        """Make one segment of what is alive in several; a kind that can do it without the texts does."""
        cls.fill(chain.from_iterable(s.documents() for s in segments), draft, recipe)

    @classmethod
    def bury(cls, segment: Any, dead: NDArray[np.int32], folder: Path) -> None:
        """Note of what dies in a segment what its kind must know beside its places.

        :param dead: places of all that are dead now, rising.
        :param folder: of the segment, in the draft.
        """

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search the segments that are open now, and merge what they have by score; equal scores as trec_eval breaks
        them.
        """
        opened = copy(self)  # which another thread may refresh
        if opened.passages:
            return opened.passages.found(opened.find, batch, opened.k)
        pairs = zip(batch, opened.find(batch, opened.k), strict=True)
        return [ranking(query, found, opened.k) for query, found in pairs]

    def _open(self) -> None:
        self.segments = self._opened(self.manifest.path)
        self.searched = [s for s in self.segments if self.part is None or s.folder.name in self.part]
        for s in self.searched:
            s.open()

    @property
    def passages(self) -> Passages | None:
        """How documents are cut; None if they are whole."""
        return Passages.of(self.manifest.recipe.get("passages"))

    @property
    def memory(self) -> int:
        """Bytes that changes may hold: what the index was built in."""
        return int(self.manifest.facts.get("memory_bytes", ANY))

    def __len__(self) -> int:
        return int(self.manifest.facts["documents"])

    def documents(self) -> Iterator[Doc]:
        """All that are alive, in the order in which they came, but where small segments were merged over large ones."""
        kept = chain.from_iterable(s.documents() for s in self.segments)
        return joined(kept) if self.passages else kept

    def _of(self, ids: Sequence[str]) -> Iterator[Doc]:
        """Those documents of these ids that are there and alive."""
        for s in self.segments:
            kept = s.docs.each(chain.from_iterable(self._found(s, ids).values()))
            yield from joined(kept) if self.passages else kept

    def _put(self, docs: Iterable[Doc], *, replace: bool) -> Change:
        return self._change(docs, (), replace=replace)

    def there_are(self, ids: Sequence[str]) -> bool:
        """Whether any is there and alive."""
        return any(self._found(s, ids) for s in self.segments)

    def _delete(self, ids: Sequence[str]) -> Change:
        return self._change(None, ids, replace=False)

    def _is_compact(self) -> bool:
        return not self._loose(self.segments)

    def _compact(self) -> None:
        with self._amending(batches=0) as draft:
            self._merge_all(draft)
        self.refresh()

    def _settled(self) -> Self:
        """After the last thing that a build does: as few segments as memory allows, if nobody changes it just now."""
        if len(list(runs(self.segments, self.memory))) < len(self.segments):
            with suppress(Busy), amend(self.folder, kind=self.kind, format=self.format) as (built, draft):
                if built.build != self.manifest.build:
                    self.refresh()
                draft.spent_s = built.seconds
                self._merge_all(draft)
                changed = {k: built.facts[k] for k in ("batches",) if k in built.facts}
                draft.facts = facts(draft.folder, self.counts, self.passages, self.memory) | changed
            self.refresh()
        return self

    def _merge_all(self, draft: Draft) -> None:
        for run in self._loose(self._opened(draft.folder)):
            self._merge(run, draft)

    def _loose(self, segments: Iterable[Segment]) -> list[list[Segment]]:
        """Segments that can be merged into one, or be without what is dead."""
        return [run for run in runs(segments, self.memory) if len(run) > 1 or len(run[0].dead)]

    def _change(self, docs: Iterable[Doc] | None, ids: Iterable[str], *, replace: bool) -> Change:
        with self._amending() as draft:
            segments, doomed = self._opened(draft.folder), list(ids)
            dead, there, fresh = [list[int]() for _ in segments], list[str](), 0
            for some in [doomed] if docs is None else self._written(docs, draft):
                fresh += len(some)
                for segment, gone in zip(segments, dead, strict=True):
                    found = self._found(segment, some)
                    there += found
                    gone += chain.from_iterable(found.values())
            if docs is not None and there and not replace:
                raise self._there(there, fresh)
            for segment, gone in zip(segments, dead, strict=True):
                if gone:
                    self._bury(segment, gone)
            self._tidy(draft)
        self.refresh()
        if docs is None:
            deleted = {*there}
            return Change(deleted=len(there), absent=tuple(i for i in doomed if i not in deleted))
        return Change(added=fresh - len(there), replaced=len(there))

    @classmethod
    def _bury(cls, segment: Segment, places: Iterable[int]) -> None:
        if dead := sorted({*segment.dead.tolist(), *places}):
            with write(segment.folder / DEAD, "wb") as f:
                np.save(f, np.array(dead, np.int32))
            cls.bury(segment, np.array(dead, np.int32), segment.folder)

    def _tidy(self, draft: Draft) -> None:
        """Merge segments of a size where they are many; rewrite those of which much is dead."""
        while True:
            segments = self._opened(draft.folder)
            sizes = of_a_size((s for s in segments if len(s.docs) < LARGE), SMALL, FAN)
            many = [run for group in sizes for run in runs(group, self.memory) if len(run) >= FAN]
            rotten = [[s] for s in segments if len(s.dead) > ROTTEN * len(s.docs)]
            if not (due := [*many, *rotten]):
                return
            self._merge(due[0], draft)

    def _merge(self, segments: Sequence[Segment], draft: Draft) -> None:
        refuse_damaged(segments, self.manifest)
        if any(map(len, segments)):
            with new_part(draft, self.folder, memory=self.memory) as made:
                self.merge(segments, made, self.manifest.recipe)
        for s in segments:
            shutil.rmtree(s.folder)

    def _written(self, docs: Iterable[Doc], draft: Draft) -> Iterator[Sequence[str]]:
        """Make new segments, as many as memory wants; the ids of each one's documents.

        :raises DataError: If an id comes twice.
        """
        cut, before = self.passages, len(folders(draft.folder))
        for made, some in portions(docs, partial(new_part, draft, self.folder, memory=self.memory), ANY):
            self.more(made.counted(cut.split(some) if cut else some), made)
            written = Docs(made.folder)
            ids = documents(written) if cut else [*written.ids]
            for earlier in folders(draft.folder)[before:-1]:
                for twice in self._found(Segment(earlier), ids):
                    raise DataError(f"the id {twice!r} is there twice; ids must be unique")
            yield ids

    def _found(self, segment: Segment, ids: Iterable[str]) -> dict[str, Sequence[int]]:
        """Where documents are in a segment, if they are alive."""
        if self.passages:
            return dict(places(segment, ids))
        return {i: (place,) for i, place in segment.find(ids).items()}

    def _opened(self, folder: Path) -> list[Any]:
        there = folders(folder)
        room(len(there), self.folder)
        return [self.segment(f, self.manifest.recipe) for f in there]

    @contextmanager
    def _amending(self, batches: int = 1) -> Iterator[Draft]:
        with super()._amending(batches) as draft:
            yield draft
            draft.facts = facts(draft.folder, self.counts, self.passages, self.memory)
