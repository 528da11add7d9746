"""Documents under serial numbers that are never given twice, for an index whose vectors lie elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Hit
from rankpipe.disk import write
from rankpipe.errors import ArtefactError
from rankpipe.retrieve.collection import SERIAL, Collection, Found, own, server
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.parts import folders
from rankpipe.retrieve.segment import Segment
from rankpipe.retrieve.strings import mapped
from rankpipe.store import read_manifest
from rankpipe.where import Filter

FILE = "milvus.db"  # of Milvus Lite, where no server has the vectors


@dataclass(frozen=True)
class State:
    """What is known of the collection (``milvus.json``)."""

    collection: str
    next: int = 0  # serial number of the next document
    doomed: list[int] = field(default_factory=list)  # those of the documents that died in the last batch

    @classmethod
    def of(cls, folder: Path) -> State:
        """As it was kept; a new one, if nothing was."""
        path = folder / "milvus.json"
        if not path.exists():
            return cls(f"rankpipe_{uuid4().hex[:16]}")
        return cls(**json.loads(path.read_text("utf-8")))

    def keep(self, folder: Path) -> None:
        """Write it down."""
        with write(folder / "milvus.json") as f:
            json.dump(asdict(self), f)


def replaced(folder: Path | str, kind: str, uri: str | None) -> str | None:
    """The collection on this server of the index that a build takes the place of, if that has one there."""
    with suppress(ArtefactError):
        manifest = read_manifest(folder)
        if uri and manifest.kind == kind and manifest.recipe["uri"] == uri:
            return State.of(manifest.path).collection
    return None


def sent(segment: Path) -> int:
    """How many documents a build has sent before those of a segment."""
    before = [folder for folder in folders(segment.parent) if folder.name < segment.name]
    return sum(len(mapped(folder / "serials.npy")) for folder in before)


class Numbered(Segment):
    """Documents and their serial numbers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.serials: NDArray[np.int64] = mapped(folder / "serials.npy")
        self.cut: NDArray[np.bool_] = mapped(folder / "cut.npy")  # (documents,) whether its text was too long

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Places by rising serial number; they rise by themselves but for what was merged."""
        return np.argsort(self.serials, kind="stable")

    def hits(self, found: Found) -> Sequence[Hit]:
        """Those that are documents of this segment, and alive."""
        serials, scores = found
        at = np.searchsorted(self.serials, serials, sorter=self.order)
        places = self.order[np.minimum(at, len(self.order) - 1)]
        here = self.serials[places] == serials
        if self.alive is not None:
            here &= self.alive[places]
        return hits(self.docs, places[here], scores[here])


def among(segments: Sequence[Numbered], where: Filter | None) -> tuple[str, float]:
    """Milvus' expression for the documents that meet a condition, and their share in all.

    Milvus has no fields, so it is told numbers: theirs or, if they are fewer, those of all others.
    """
    if where is None:
        return "", 1.0
    those, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for s in segments:
        may = s.allowed(where)
        assert may is not None  # for there is a condition
        those.append(s.serials[may])
        others.append(s.serials[~may])
    sign, told = min(("in", np.concatenate(those)), ("not in", np.concatenate(others)), key=lambda one: len(one[1]))
    share = sum(map(len, those)) / max(sum(map(len, segments)), 1)
    return f"{SERIAL} {sign} {told.tolist()}" if share < 1 else "", share


@contextmanager
def writing(folder: Path, recipe: dict[str, Any]) -> Iterator[Collection]:
    """The collection of an index that is being written in a folder."""
    name = State.of(folder).collection
    if recipe["uri"]:
        collection = server(recipe, name)
    else:
        own(folder / FILE)
        collection = Collection(folder / FILE, name)
    try:
        yield collection
    finally:
        collection.close()
    if left := [*(folder / FILE).rglob("*.arrow")]:  # Milvus Lite tells nobody that closing has failed
        raise ArtefactError(f"{left[0]}: Milvus Lite could not write its vectors; is the disk full?")
