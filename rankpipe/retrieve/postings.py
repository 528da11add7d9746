"""An inverted index built in bounded memory: postings pass through the disk, never through RAM as a whole.

Documents are spilled one after the other, then dealt out to their terms block by block: a counting sort by term that
keeps the order of documents. What lies in memory is one block, 16 bytes for each document and 24 for each term.

``terms`` has the terms in their order, ``starts.npy`` (terms + 1,) where the postings of each begin in ``docs.npy``
(postings,), rising within a term, and in ``values.npy`` (postings,), ``tops.npy`` (terms,) the largest value of each.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rankpipe.disk import write
from rankpipe.progress import notice
from rankpipe.retrieve.strings import Strings, forget, mapped, write_strings

BLOCK = 1 << 20  # postings dealt out at once
FILES = ("terms.bin", "terms.npy", "starts.npy", "docs.npy", "values.npy", "tops.npy")
DEALT = 1 << 15  # postings whose places may each be in another page of memory
PAIR = 8  # bytes of a term and its value in a spill
Block = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]  # terms, rising; documents; values: (n,) each


class Postings:
    """For each term its documents, rising, and a value for each of them, from the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.terms = Strings(folder / "terms")
        self.starts: NDArray[np.int64] = mapped(folder / "starts.npy")
        self.docs: NDArray[np.int32] = mapped(folder / "docs.npy")
        self.values: NDArray[Any] = mapped(folder / "values.npy")
        self.tops: NDArray[Any] = mapped(folder / "tops.npy")

    def of(self, term: int) -> slice:
        """Where the postings of a term are."""
        return slice(int(self.starts[term]), int(self.starts[term + 1]))

    def among(self, wanted: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Which postings are of wanted documents, rising.

        :param wanted: (documents,).
        """
        found = [np.empty(0, np.intp)]
        for start in range(0, len(self.docs), BLOCK):
            found.append(start + np.flatnonzero(wanted[self.docs[start : start + BLOCK]]))
            forget(self.docs)
        return np.concatenate(found)

    def blocks(self, size: int = BLOCK) -> Iterator[Block]:
        """All postings, by term."""
        for start in range(0, len(self.docs), size):
            end = min(start + size, len(self.docs))
            terms = np.searchsorted(self.starts, np.arange(start, end), side="right") - 1
            yield terms, self.docs[start:end].astype(np.int64), self.values[start:end]
            forget(self.docs, self.values)


@dataclass
class Spill:
    """Terms of one document after the other with their values, kept in the file ``path``.

    :param kind: of the values, 4 bytes wide: int32 counts (which become as narrow as they can), float32 weights.
    """

    path: Path
    kind: DTypeLike = np.int32
    block: int = BLOCK
    distinct: array[int] = field(default_factory=lambda: array("q"))  # different terms of each document
    totals: array[float] = field(default_factory=lambda: array("d"))  # sum of the values of each document
    vocabulary: dict[str, int] = field(default_factory=dict)  # terms by when they were first seen
    most: float = 0  # the largest value
    checksum: int = 0  # of the file

    def take_up(self) -> None:
        """Hold what was saved when an interrupted :meth:`fill` had last done so; nothing, if it was harmed since."""
        if not self._saved.exists():
            return
        try:
            with open(self._saved, "rb") as f, np.load(f) as told:
                self.distinct.frombytes(told["distinct"].tobytes())
                self.totals.frombytes(told["totals"].tobytes())
                terms = told["terms"].tobytes().decode()
                self.vocabulary = {term: i for i, term in enumerate(terms.split("\n") if terms else ())}
                self.most, self.checksum = told["most"].item(), told["checksum"].item()
            if _checksum(self.path, PAIR * sum(self.distinct)) != self.checksum:
                raise ValueError
        except (ValueError, KeyError, OSError, EOFError, RuntimeError, BadZipFile):
            notice(f"{self.path} was harmed since it was written; segment {self.path.parent.name} is made again")
            self._saved.unlink()
            self.distinct, self.totals, self.vocabulary = array("q"), array("d"), {}
            self.most = self.checksum = 0

    def fill(self, documents: Iterable[Mapping[str, float]], every: int | None = None) -> None:
        """Take in documents, each as term -> value.

        :param every: documents between two savings.
        """
        with open(self.path, "ab") as f:
            f.truncate(PAIR * sum(self.distinct))  # what comes after was not saved
            for values in documents:
                self.add(values, f)
                if every and len(self.distinct) % every == 0:
                    self._save(f)

    def add(self, values: Mapping[str, float], file: BinaryIO) -> None:
        """Take in a document; ``file`` is ``path``, opened."""
        self.distinct.append(len(values))
        self.totals.append(sum(values.values()))
        if not values:
            return
        known = self.vocabulary
        terms = np.array([known.setdefault(term, len(known)) for term in values], np.int32)
        told = np.fromiter(values.values(), self.kind, len(terms)).view(np.int32)
        pairs = np.stack([terms, told], axis=1).tobytes()
        self.checksum = crc32(pairs, self.checksum)
        file.write(pairs)
        self.most = max(self.most, max(values.values()))

    def invert(self, folder: Path) -> None:
        """Deal the postings out to their terms, and write what :class:`Postings` reads; the spill's file goes."""
        told = sorted(self.vocabulary)
        place = np.empty(len(told), np.int64)  # of each term in their order
        place[[self.vocabulary[term] for term in told]] = np.arange(len(told))
        frequencies = np.zeros(len(told), np.int64)
        for pairs in self._pairs():
            frequencies += np.bincount(place[pairs[:, 0]], minlength=len(told))
        kind = np.min_scalar_type(int(self.most)) if np.dtype(self.kind).kind == "i" else self.kind
        deal(self._blocks(place), told, frequencies, folder, kind)
        self._saved.unlink(missing_ok=True)
        self.path.unlink()

    @property
    def _saved(self) -> Path:
        return self.path.with_suffix(".npz")

    def _save(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        terms = np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8)
        with write(self._saved, "wb") as f:
            np.savez(f, distinct=self.distinct, totals=self.totals, terms=terms, most=self.most, checksum=self.checksum)

    def _blocks(self, place: NDArray[np.int64]) -> Iterator[Block]:
        ends, start = np.cumsum(np.frombuffer(self.distinct, np.int64)), 0  # (documents,) in the spill
        for pairs in self._pairs():
            terms = place[pairs[:, 0]]
            by_term = np.argsort(terms, kind="stable")
            docs = np.searchsorted(ends, start + by_term, side="right")
            yield terms[by_term], docs, pairs[by_term, 1].view(self.kind)
            start += len(pairs)

    def _pairs(self) -> Iterator[NDArray[np.int32]]:
        with open(self.path, "rb") as f:
            left = sum(self.distinct)
            while len(pairs := np.fromfile(f, np.int32, 2 * min(left, self.block))):
                yield pairs.reshape(-1, 2)
                left -= len(pairs) // 2


def _checksum(path: Path, size: int) -> int:
    """Of the first bytes of a file; of fewer, if it has not so many."""
    found = 0
    with open(path, "rb") as f:
        while size and (part := f.read(min(size, BLOCK))):
            found, size = crc32(part, found), size - len(part)
    return found if not size else -1


def deal(
    blocks: Iterable[Block], terms: Sequence[str], frequencies: NDArray[np.int64], folder: Path, kind: DTypeLike
) -> None:
    """Write postings that come in blocks, each by term, documents of a term never falling from block to block.

    :param terms: in their order; none of those that are numbers only.
    :param frequencies: postings of each term, (terms,).
    """
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequencies)])  # (terms + 1,)
    free = starts[:-1].copy()  # the next free place of each term
    docs = _reserved(folder / "docs.npy", int(starts[-1]), np.int32)
    values = _reserved(folder / "values.npy", int(starts[-1]), kind)
    tops = np.zeros(len(frequencies), kind)
    for told, doc, value in blocks:
        first = np.flatnonzero(np.diff(told, prepend=-1))
        count = np.diff(first, append=len(told))
        places = free[told] + np.arange(len(told)) - np.repeat(first, count)
        for start in range(0, len(places), DEALT):
            some = slice(start, start + DEALT)
            docs[places[some]], values[places[some]] = doc[some], value[some]
            forget(docs, values)
        free[told[first]] += count
        if len(first):
            tops[told[first]] = np.maximum(tops[told[first]], np.maximum.reduceat(value, first))
    write_strings(folder / "terms", terms)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "tops.npy", tops)


def merge(parts: Sequence[tuple[Postings, NDArray[np.int64]]], folder: Path, block: int = BLOCK) -> None:
    """Postings of several into one.

    :param parts: each with the new place of each of its documents, (documents,); -1 where it is left out. Places rise
        within a part and from part to part.
    :param block: postings that are dealt out at once.
    """
    lacking = {term: None for postings, _ in parts for term in postings.terms}
    terms = sorted(lacking)
    numbers = {term: i for i, term in enumerate(terms)}
    into = [np.fromiter((numbers[t] for t in p.terms), np.int64, len(p.terms)) for p, _ in parts]
    frequencies = np.zeros(len(terms), np.int64)

    def kept() -> Iterator[Block]:
        for (postings, place), number in zip(parts, into, strict=True):
            for told, docs, values in postings.blocks(block):
                new = place[docs]
                alive = new >= 0
                yield number[told[alive]], new[alive], values[alive]

    for told, _, _ in kept():
        frequencies += np.bincount(told, minlength=len(terms))
    used = np.flatnonzero(frequencies)
    renumbered = np.cumsum(frequencies > 0) - 1
    blocks = ((renumbered[told], docs, values) for told, docs, values in kept())
    kind = np.result_type(*(postings.values for postings, _ in parts))
    deal(blocks, [terms[i] for i in used], frequencies[used], folder, kind)


def turned(postings: Postings, documents: NDArray[np.intp], every: int, folder: Path, block: int = BLOCK) -> Postings:
    """Postings of some documents with the documents, by number, for terms, and numbers of terms for documents.

    :param documents: rising; the first one is number 0.
    :param every: how many there are in all.
    """
    number = np.full(every, -1, np.int64)
    number[documents] = np.arange(len(documents))
    frequencies = np.zeros(len(documents), np.int64)

    def kept() -> Iterator[Block]:
        for terms, docs, values in postings.blocks(block):
            some = np.flatnonzero(number[docs] >= 0)
            some = some[np.argsort(number[docs[some]], kind="stable")]
            yield number[docs[some]], terms[some], values[some]

    for told, _, _ in kept():
        frequencies += np.bincount(told, minlength=len(documents))
    deal(kept(), (), frequencies, folder, postings.values.dtype)
    return Postings(folder)


def _reserved(path: Path, length: int, kind: DTypeLike) -> NDArray[Any]:
    """A memory-mapped array whose bytes are on the disk already: a full one is an OSError here, not a SIGBUS later."""
    zeros = np.zeros(1 << 18, kind)
    with open(path, "wb") as f:
        np.lib.format.write_array_header_1_0(f, np.lib.format.header_data_from_array_1_0(zeros) | {"shape": (length,)})
        for start in range(0, length, len(zeros)):
            f.write(zeros[: length - start].tobytes())
    if not length:
        return np.load(path)  # type: ignore[no-any-return]
    return np.load(path, mmap_mode="r+")  # type: ignore[no-any-return]
