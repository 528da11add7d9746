"""A segment of an index: files that never change, and beside them which of its documents are dead."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankpipe.builds import same
from rankpipe.data import Doc
from rankpipe.disk import damage, room_for
from rankpipe.errors import ArtefactError, several
from rankpipe.manifest import Manifest
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.fields import Fields, Mask
from rankpipe.retrieve.memory import ANY, ID, ROW
from rankpipe.retrieve.parts import folders
from rankpipe.retrieve.passages import Passages, heads
from rankpipe.store import cure
from rankpipe.where import Filter

FILES = 20  # that an opened one holds, at most
DEAD = "dead.npy"  # of a segment: which of its documents are dead, (dead,) places
REUSED = "reused_vectors"  # a count of segments that have it
MASKS = 32  # filters of a segment that are remembered, a byte a document each


class Segment:
    """One of an index: its documents and which of them are dead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docs = Docs(folder)
        dead = folder / DEAD
        self.dead: NDArray[np.int32] = np.load(dead) if dead.exists() else np.empty(0, np.int32)  # places, rising
        self.alive: NDArray[np.bool_] | None = None
        if len(self.dead):
            self.alive = np.ones(len(self.docs), bool)
            self.alive[self.dead] = False
        self._masks: dict[Filter, Mask] = {}

    def __len__(self) -> int:
        return len(self.docs) - len(self.dead)

    @property
    def living(self) -> NDArray[np.intp]:
        """Places of the documents that are alive, rising."""
        return np.arange(len(self.docs)) if self.alive is None else np.flatnonzero(self.alive)

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it."""
        return dict(json.loads((self.folder / "facts.json").read_text("utf-8")))

    def documents(self) -> Iterator[Doc]:
        """Those that are alive, in their order; none is kept ready."""
        return self.docs.each(self.living.tolist())

    @cached_property
    def fields(self) -> Fields:
        """Of its documents."""
        return Fields(self.folder, len(self.docs))

    def allowed(self, where: Filter | None) -> Mask | None:
        """Which documents may be found, (documents,): they are alive and meet the condition; None if all may."""
        if where is None:
            return self.alive
        if (mask := self._masks.get(where)) is None:
            mask = self.fields.mask(where)
            mask = mask if self.alive is None else mask & self.alive
            if len(self._masks) >= MASKS:
                self._masks = {}  # other threads may read the old ones
            self._masks[where] = mask
        return mask

    def open(self) -> None:
        """Open all files that are not yet: what is open can be read though it be removed."""
        _ = self.fields

    @property
    def held(self) -> int:
        """Bytes that merging it holds, about."""
        return round(len(self) * (ROW + ID * self.docs.ids.size_bytes / len(self.docs))) + self.fields.held

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Where the documents of these ids are, if they are alive."""
        found = self.docs.find(ids)
        return found if self.alive is None else {i: place for i, place in found.items() if self.alive[place]}


def refuse_damaged(segments: Iterable[Segment], manifest: Manifest) -> None:
    """Read all files of segments that are to be merged, which would be whole from then on, as far as anybody could see;
    but for those that this change has written.

    :raises ArtefactError: If one is not as it was written; says the cure.
    """
    folders = {s.folder.name: s.folder.parent for s in segments}
    for name, known in manifest.files.items():
        written, draft = manifest.path / name, folders.get(name.partition("/")[0])
        if draft and same(written, draft / name) and (fault := damage(written, *known, True)):
            raise ArtefactError(f"{manifest.folder}: {fault}; {cure(manifest.folder, manifest)}")


def room(segments: int, folder: Path) -> None:
    """Let this process have the files of so many segments open, of the index in a folder.

    :raises DiskError: If the system does not.
    """
    room_for(FILES * segments, f"{folder}, {several(segments, 'segment')}")


def of_a_size(segments: Iterable[Segment], least: int, factor: int) -> Iterable[list[Segment]]:
    """Segments within a factor of each other's documents that are alive, which merging writes, together; below
    ``least``, all sizes are one.
    """
    sizes = defaultdict(list)
    for s in segments:
        sizes[int(np.log(max(len(s), least)) / np.log(factor))].append(s)
    return sizes.values()


def runs(segments: Iterable[Segment], memory: int) -> Iterator[list[Segment]]:
    """Segments that can be merged in so many bytes, as many as can, in their order."""
    run: list[Segment] = []
    for s in segments:
        if run and sum(one.held for one in (*run, s)) > memory // 2:
            yield run
            run = []
        run.append(s)
    if run:
        yield run


def facts(folder: Path, counts: Iterable[str], cut: Passages | None, memory: int) -> dict[str, Any]:
    """What is worth knowing of an index: ``counts`` and vectors taken over summed over the segments, recall as the mean
    of its documents, all else as the last one says.
    """
    whole = (Segment(made) for made in folders(folder) if (made / "facts.json").exists())
    looked = [_looked(s, cut) for s in whole]  # one after the other, so that an index of many needs few open files
    told = [one.facts for one in looked]
    summed = [*counts, *({REUSED} & {k for one in told for k in one})]
    found = {k: v for one in told for k, v in one.items()} | {k: sum(one.get(k, 0) for one in told) for k in summed}
    found |= _mean_recall(looked)
    found |= {"dead": sum(one.dead for one in looked), "segments": len(told)}
    found |= {"memory_bytes": memory} if memory < ANY else {}
    if not cut:
        return {**found, "documents": found["documents"] - found["dead"]}
    alive = sum(one.heads for one in looked)
    return {**found, "documents": alive, "passages": found["documents"] - found["dead"]}


def mean_recall(segments: Iterable[Segment]) -> dict[str, float]:
    """What is found of the nearest, by the facts of those segments that say it, each for as many as are alive in it."""
    return _mean_recall([_looked(s) for s in segments])


class _Looked(NamedTuple):
    """What the facts of an index take of a segment.

    :param heads: of passages that are alive, those that begin a document.
    """

    facts: dict[str, Any]
    alive: int
    dead: int
    heads: int


def _looked(s: Segment, cut: Passages | None = None) -> _Looked:
    return _Looked(s.facts, len(s), len(s.dead), int(heads(s.docs)[s.living].sum()) if cut else 0)


def _mean_recall(looked: Sequence[_Looked]) -> dict[str, float]:
    told, made = [(one.facts, max(one.alive, 1)) for one in looked], dict[str, float]()
    for name in {name for one, _ in told for name in one if name.startswith("recall_at_")}:
        said = [(one[name], weight) for one, weight in told if name in one]
        made[name] = round(sum(share * weight for share, weight in said) / sum(weight for _, weight in said), 4)
    return dict(sorted(made.items()))
