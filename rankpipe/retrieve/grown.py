"""Columns of a segment that a model fills, shard after shard; and no text that was encoded before is encoded again.

Beside what its kind keeps, each document has a row in ``hashes.npy`` (N, 2), a digest of what was encoded, and in
``cut.npy`` (N,), whether the encoder had to shorten it. ``encoded.json`` says how far it got, and in which way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rankpipe.builds import SUMS
from rankpipe.data import Doc
from rankpipe.disk import write
from rankpipe.progress import notice
from rankpipe.provenance import digest
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.segment import Segment, room
from rankpipe.retrieve.strings import mapped
from rankpipe.retrieve.vectors import Columns, append, spans

S = TypeVar("S")
C = TypeVar("C", contravariant=True)
Rows = tuple[Columns, Columns]  # columns with a row for each document; and with ``lengths`` of them, all the same
Places = NDArray[np.intp]
NOTE = "encoded.json"
SEEN = "nearest-"  # files of what was seen of it on the way (rankpipe.retrieve.recall)
PIECE = 1 << 22  # bytes read at once


class Grown:
    """Columns of a segment that grow shard by shard, and how far they are on the disk for sure.

    What an interrupted build has left is read once, and trusted if it has the checksums that were noted; else the
    segment is made again, which is said.

    :param way: how they are made; a digest. What was made in another way is worth nothing.
    """

    def __init__(self, folder: Path, way: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._told = folder, _trusted(folder)
        if self._told.get("way") != way:
            self._told = {"way": way, "documents": 0, "rows": 0, "columns": {}}
            (folder / SUMS).unlink(missing_ok=True)  # nothing that was made of it is whole any more
            for seen in folder.glob(f"{SEEN}*"):
                seen.unlink()

    @property
    def documents(self) -> int:
        """How many are there."""
        return int(self._told["documents"])

    @property
    def recall(self) -> dict[str, float] | None:
        """What :meth:`note_recall` has noted; None if nothing."""
        return self._told.get("recall")

    def note_recall(self, measured: dict[str, float]) -> None:
        """Note what of the nearest is found here."""
        self._told["recall"] = measured
        self._keep()

    def append(self, documents: Columns, rows: Columns | None = None, **most: float) -> None:
        """Add some documents.

        :param documents: columns that have a row for each of them.
        :param rows: columns that have any number of rows for each, all of them the same.
        :param most: numbers of which the largest is to be known.
        """
        for kind, columns in (("documents", documents), ("rows", rows)):
            if columns:
                append(self.folder, self._told[kind], columns)
                for name, column in columns.items():
                    known = self._told["columns"].get(name, {"sum": 0})
                    known = {"sum": crc32(np.ascontiguousarray(column).data, known["sum"])}
                    known |= {"of": kind, "dtype": column.dtype.str, "row": [*column.shape[1:]]}
                    self._told["columns"][name] = known
                self._told[kind] += len(next(iter(columns.values())))
        self._told |= {name: max(number, self._told.get(name, number)) for name, number in most.items()}
        self._keep()

    def drop(self, *names: str) -> None:
        """Remove columns that are no longer needed."""
        for name in names:
            self._told["columns"].pop(name, None)
        self._keep()
        for name in names:
            (self.folder / f"{name}.npy").unlink(missing_ok=True)

    def __contains__(self, name: str) -> bool:
        return name in self._told["columns"]

    def _keep(self) -> None:
        with write(self.folder / NOTE) as f:
            json.dump({**self._told, "checksum": digest(self._told)}, f, sort_keys=True)


def _trusted(folder: Path) -> dict[str, Any]:
    """What was noted of a half-made segment, if all that it names is there as it was written; nothing, if not."""
    if not (path := folder / NOTE).exists():
        return {}
    try:
        told = dict(json.loads(path.read_text("utf-8")))
        if told.pop("checksum", None) != digest(told):
            raise ValueError
        for name, known in told["columns"].items():
            path = folder / f"{name}.npy"
            _look(path, told[known["of"]], known)
    except (ValueError, TypeError, KeyError, FileNotFoundError):
        notice(f"{path} was harmed since it was written; segment {folder.name} is made again")
        return {}
    return told


def _look(path: Path, rows: int, known: dict[str, Any]) -> None:
    """Refuse a column whose first rows are not what was written.

    :raises ValueError: If they are not.
    """
    with open(path, "rb") as f:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_1_0(f)
        left = rows * dtype.itemsize * prod(shape[1:])
        if (dtype.str, [*shape[1:]]) != (known["dtype"], known["row"]) or shape[0] < rows:
            raise ValueError
        found = 0
        while left and (part := f.read(min(left, PIECE))):
            found, left = crc32(part, found), left - len(part)
    if left or found != known["sum"]:
        raise ValueError


def noted(folder: Path) -> dict[str, Any]:
    """What was written down of a segment; nothing, if nothing was."""
    path = folder / NOTE
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


class Known(Generic[S]):
    """Texts that older segments have, encoded in the same way.

    :param way: in which.
    :param opened: opens a segment.
    """

    def __init__(self, folders: Iterable[Path], way: str, opened: Callable[[Path], S]) -> None:
        self._way, self._opened, self._segments = way, opened, list[tuple[S, NDArray[np.uint64], Places]]()
        for folder in folders:
            self.add(folder)

    def add(self, folder: Path) -> None:
        """One more segment, if it was made so."""
        if noted(folder).get("way") == self._way:
            room(1, folder)
            hashes = mapped(folder / "hashes.npy")
            self._segments.append((self._opened(folder), hashes, np.argsort(hashes[:, 0])))

    def of(self, hashes: NDArray[np.uint64]) -> Iterator[tuple[Places, S, Places]]:
        """Which of some texts there are, in which segment, and where there; each segment once."""
        sought = np.arange(len(hashes))
        for segment, known, order in self._segments:
            if not len(sought):
                return
            at = np.searchsorted(known[:, 0], hashes[sought, 0], sorter=order)
            places = order[np.minimum(at, len(order) - 1)]
            same = (known[places] == hashes[sought]).all(axis=1)
            if same.any():
                yield sought[same], segment, places[same]
            sought = sought[~same]

    def count(self, hashes: NDArray[np.uint64]) -> int:
        """How many of some texts there are."""
        return sum(len(there) for _, _, there in self.of(hashes))

    def only(self, wanted: Callable[[S], bool]) -> None:
        """Forget the other segments."""
        self._segments = [one for one in self._segments if wanted(one[0])]


class Maker(Protocol[C]):
    """Makes what a kind keeps of documents, ``cut`` among it."""

    def fresh(self, places: Places, docs: Sequence[Doc]) -> Rows:
        """By encoding them.

        :param places: of the documents in the segment.
        """
        ...

    def taken(self, places: Places, segment: C, there: Places) -> Rows:
        """From an older segment.

        :param there: places in that.
        """
        ...


@dataclass
class Work:
    """What was done."""

    encoded: int = 0
    reused: int = 0
    seconds: float = 0.0  # of encoding


def grow(
    shards: Iterable[tuple[int, Sequence[Doc]]],
    grown: Grown,
    known: Known[S],
    maker: Maker[S],
    most: Callable[[Columns], dict[str, float]] = lambda _: {},
    before: Callable[[int], None] = lambda _: None,
) -> Work:
    """Append shard after shard, passing over those that an interrupted build has saved.

    :param shards: documents, with the place of the first of them.
    :param most: numbers of which the largest is to be known, by columns that have a row for each document.
    :param before: is told how many documents there will be, before a shard is appended.
    """
    work = Work()
    for first, docs in shards:
        if first + len(docs) <= grown.documents:
            continue
        hashes, unknown = hashed(docs), np.ones(len(docs), bool)
        pieces = list[tuple[Places, Rows]]()
        for own, segment, there in known.of(hashes):
            pieces.append((own, maker.taken(first + own, segment, there)))
            unknown[own] = False
        if len(fresh := np.flatnonzero(unknown)):
            start = perf_counter()
            pieces.append((fresh, maker.fresh(first + fresh, [docs[i] for i in fresh.tolist()])))
            work.seconds += perf_counter() - start
        documents, rows = _joined(pieces)
        before(first + len(docs))
        grown.append({**documents, "hashes": hashes}, rows, **most(documents))
        work.encoded += len(fresh)
        work.reused += len(docs) - len(fresh)
    return work


def shards(docs: Docs, places: Iterable[int], first: int, size: int) -> Iterator[tuple[int, Sequence[Doc]]]:
    """Some of the documents that are kept, so many at a time, for :func:`grow`.

    :param first: how many of them are grown already; they are not among the places.
    """
    stream = iter(places)
    while some := list(islice(stream, size)):
        yield first, [*docs.each(some)]
        first += len(some)


def cut_texts(folder: Path) -> int:
    """How many texts of a segment the encoder had to shorten."""
    return int(mapped(folder / "cut.npy").sum())


def hashed(docs: Iterable[Doc]) -> NDArray[np.uint64]:
    """Digests of what is encoded, (n, 2)."""
    return np.frombuffer(b"".join(map(_digest, docs)), np.uint64).reshape(-1, 2)


def hashes_of(segment: Segment) -> NDArray[np.uint64]:
    """Those of a segment."""
    return mapped(segment.folder / "hashes.npy")


def _digest(doc: Doc) -> bytes:
    return blake2b(doc.contents.encode(errors="surrogatepass"), digest_size=16).digest()


def _joined(pieces: Sequence[tuple[Places, Rows]]) -> Rows:
    """The columns of a shard, its documents in their order."""
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    made = [_concatenated([rows[kind] for _, rows in pieces]) for kind in (0, 1)]
    documents = {name: column[order] for name, column in made[0].items()}
    if not made[1]:
        return documents, {}
    lengths = made[0]["lengths"]
    where = spans((np.cumsum(lengths, dtype=np.int64) - lengths)[order], lengths[order])
    return documents, {name: column[where] for name, column in made[1].items()}


def _concatenated(columns: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
