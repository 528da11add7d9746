"""Segments being written: each in a folder of its own in a draft of the index, numbered as they come.

One that a build has finished has its checksums beside it (``.sums.json``): a build that was interrupted may lie there
for long before it goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.builds import SUMS
from rankpipe.data import Doc
from rankpipe.disk import damage, fsync, sha256, write
from rankpipe.errors import ArtefactError
from rankpipe.progress import notice, working
from rankpipe.retrieve.docs import write_docs
from rankpipe.retrieve.memory import ANY, ID, POSTING, ROW
from rankpipe.retrieve.postings import BLOCK
from rankpipe.store import Draft, Sums, damages, read_manifest

if TYPE_CHECKING:
    from rankpipe.retrieve.segment import Segment


@dataclass
class Part(Draft):
    """A segment being written.

    :param home: the folder of the index.
    :param first: whether a build makes it; otherwise it comes to others, or takes their place.
    :param memory: bytes that the making of it may hold.
    :param known: what :meth:`older` gives, if that is known.
    """

    home: Path = Path()
    first: bool = False
    memory: int = ANY
    known: Sequence[Path] | None = None
    row: int = ROW  # bytes held for each document; a kind that holds more says so before it takes the first
    rows: int = 0  # bytes held by now for documents
    values: int = 0  # and for the different values of their fields
    held: int = 0  # and for all else that grows with them
    without: str = ""  # what is done to large ones only
    foretold: Callable[[int], float | None] = lambda _: 0.0  # and how long it takes with so many documents
    share: int = 2  # one part in so many of the memory may grow with the documents

    @property
    def number(self) -> int:
        """Among the segments of its index, as they come."""
        return int(self.folder.name)

    @property
    def most(self) -> int:
        """Bytes that may grow with the documents: half, for the end of the work takes as much again; of what FAISS
        indexes a quarter (:data:`rankpipe.retrieve.approximate.SHARE`).
        """
        return self.memory // self.share

    @property
    def block(self) -> int:
        """Postings that are dealt out at once."""
        return min(BLOCK, self.memory // 4 // POSTING)

    def counted(self, docs: Iterable[Doc]) -> Iterator[Doc]:
        """The documents, while what is held for each of them is counted."""
        for doc in docs:
            size = self.row + ID * len(str(doc.id))
            self.rows += size
            self.held += size
            yield doc

    def count_values(self, size: int) -> None:
        """Count the bytes that are held for values of fields that no document had before."""
        self.values += size
        self.held += size

    def before(self) -> dict[str, Any]:
        """Facts of the segment before it in the draft; none of the first."""
        earlier = [f / "facts.json" for f in folders(self.folder.parent) if f.name < self.folder.name]
        return dict(json.loads(earlier[-1].read_text("utf-8"))) if earlier else {}

    def older(self) -> Sequence[Path]:
        """Folders of segments whose work may serve again: the others of the index; for a first one, those of the index
        that the build will replace, unless a byte of it is wrong.
        """
        if self.known is not None:
            return self.known
        if not self.first:
            return [f for f in folders(self.folder.parent) if f != self.folder]
        try:
            replaced = read_manifest(self.home)
        except ArtefactError:
            return []
        return [] if damages(replaced) else folders(replaced.path)

    def replaced(self, recipe: dict[str, Any], ways: Iterable[str]) -> dict[str, Any]:
        """Facts of the index that a build will replace, if there is one whose recipe is the same in these ways."""
        with suppress(ArtefactError):
            there = read_manifest(self.home)
            if self.first and all(there.recipe.get(way) == recipe.get(way) for way in ways):
                return there.facts
        return {}


Portion = tuple[Part, Iterator[Doc]]  # a segment, and the documents that are for it


@contextmanager
def new_part(draft: Draft, home: Path, *, first: bool = False, memory: int = ANY, number: int = 0) -> Iterator[Part]:
    """A new segment in a draft, or the one that an interrupted build was making; its facts, kept in it, complete it.

    :param number: of the segment, if there is none before it.
    """
    there = folders(draft.folder)
    if not there or (there[-1] / "facts.json").exists():
        number = int(there[-1].name) + 1 if there else number
        there.append(draft.folder / f"{number:06}")
        there[-1].mkdir()
    made = Part(there[-1], home=home, first=first, memory=memory)
    yield made
    told = json.dumps(made.facts)
    if first:
        with working(f"checksums of {home}"):
            made.sums = _sums(made.folder)
        made.sums["facts.json"] = (len(told), hashlib.sha256(told.encode()).hexdigest())
        draft.sums |= _inside(made.folder, made.sums)
        with write(made.folder / SUMS) as f:
            json.dump(made.sums, f)
    with write(made.folder / "facts.json") as f:
        f.write(told)


def seal(draft: Part, *names: str) -> None:
    """These files are whole: a build that goes on trusts them, if they are still what they are now."""
    if draft.first:
        sums = {name: (draft.folder.joinpath(name).stat().st_size, sha256(draft.folder / name)) for name in names}
        with write(draft.folder / SUMS) as f:
            json.dump(sums, f)


def _sums(folder: Path) -> dict[str, tuple[int, str]]:
    """Checksums of the files of a segment, which are on the disk for sure."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
    for path in files:
        fsync(path)
    return {str(path.relative_to(folder)): (path.stat().st_size, sha256(path)) for path in files}


def _inside(folder: Path, sums: Sums) -> Sums:
    """The same, by their names in the folder that the segment lies in."""
    return {f"{folder.name}/{name}": known for name, known in sums.items()}


def go_on(draft: Draft, *, alone: bool) -> None:
    """Take what an interrupted build has finished. A segment of which a file was harmed is removed, and this is said.

    :param alone: whether a segment can be made again without those after it.
    """
    there = folders(draft.folder)
    for number, made in enumerate(there):
        with working(f"checksums of {draft.folder}"):
            if not alone and made is there[-1]:
                _unfinished(made)
            sums, harmed = _whole(made)
        if harmed:
            again = f"segment {made.name} is" if alone else f"segment {made.name} and those after it are"
            notice(f"{harmed} was harmed since it was written; {again} built again")
            for gone in [made] if alone else there[number:]:
                shutil.rmtree(gone)
            if not alone:
                return
        else:
            draft.sums |= _inside(made, sums)


def _unfinished(made: Path) -> None:
    """Let a segment that lacks its facts only, be it for a kill just before them, be gone on with, not made again."""
    with suppress(OSError, ValueError):
        told = json.loads((made / SUMS).read_text("utf-8"))
        if not (made / "facts.json").exists() and told.pop("facts.json", None):
            with write(made / SUMS) as f:
                json.dump(told, f)


def _whole(made: Path) -> tuple[Sums, Path | None]:
    """The checksums of a segment, if it is finished, and what of it was harmed."""
    noted, sums = made / SUMS, dict[str, tuple[int, str]]()
    if not noted.exists() and (made / "facts.json").exists():
        return {}, noted
    try:
        sums |= json.loads(noted.read_text("utf-8")) if noted.exists() else {}
    except ValueError:
        return {}, noted
    return sums, next((made / name for name, known in sums.items() if damage(made / name, *known, True)), None)


def portions(docs: Iterable[Doc], part: Callable[[], AbstractContextManager[Part]], most: int) -> Iterator[Portion]:
    """Deal documents out to segments, each of which takes what it may hold, and not more than ``most``."""
    stream = iter(docs)
    for head in stream:
        with part() as made:
            yield made, _portion(chain([head], stream), made, most)


def _portion(docs: Iterable[Doc], part: Part, most: int) -> Iterator[Doc]:
    for number, doc in enumerate(docs, 1):
        yield doc
        if part.held > part.most or number == most:
            return


def folders(index: Path) -> list[Path]:
    """Of the segments of an index, or of a draft of it, in the order in which they came."""
    return sorted(f for f in index.iterdir() if f.name.isdecimal())


def moved(segments: Sequence[Segment], draft: Part) -> list[NDArray[np.int64]]:
    """Keep the documents that are alive in several; of each segment's documents the new places, -1 where it is dead."""
    deque(write_docs(chain.from_iterable(s.documents() for s in segments), draft), maxlen=0)
    places, start = [], 0
    for s in segments:
        place = np.full(len(s.docs), -1, np.int64)
        place[s.living] = np.arange(start, start + len(s))
        places.append(place)
        start += len(s)
    return places
