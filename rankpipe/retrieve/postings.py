"""An inverted index built in bounded memory: postings pass through the disk, never through RAM as a whole.

Documents are spilled one after the other, then dealt out to their terms block by block: a counting sort by term that
keeps the order of documents. What lies in memory is one block, 16 bytes for each document and 24 for each term.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK = 1 << 20  # postings dealt out at once
Weigh = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Inverted:
    """For each term its documents, rising, and their weights, on disk: ``docs[starts[t]:starts[t + 1]]``."""

    starts: NDArray[np.int64]  # (terms + 1,)
    docs: NDArray[np.int32]  # (postings,)
    weights: NDArray[np.float32]  # (postings,)


@dataclass
class Spill:
    """Counted terms of one document after the other, kept in the file ``path``."""

    path: Path
    block: int = BLOCK
    lengths: array[int] = field(default_factory=lambda: array("q"))  # terms of each document, repeated ones counted
    distinct: array[int] = field(default_factory=lambda: array("q"))  # different terms of each document

    def fill(self, documents: Iterable[Mapping[int, int]]) -> None:
        """Take in documents, each as term -> count; writes (term, count) pairs."""
        with open(self.path, "wb") as f:
            for counts in documents:
                f.write(np.array(list(counts.items()), np.int32).tobytes())
                self.lengths.append(sum(counts.values()))
                self.distinct.append(len(counts))

    def frequencies(self, terms: int) -> NDArray[np.int64]:
        """In how many documents each term is: (terms,)."""
        total = np.zeros(terms, np.int64)
        pairs = self._pairs()
        for start in range(0, len(pairs), self.block):
            total += np.bincount(pairs[start : start + self.block, 0], minlength=terms)
        return total

    def invert(self, frequencies: NDArray[np.int64], weigh: Weigh, folder: Path) -> Inverted:
        """Deal the postings out to their terms.

        :param weigh: weights of postings, from their terms, documents and counts, each (n,).
        :param folder: where ``docs.npy`` and ``weights.npy`` are written.
        """
        starts = np.concatenate([[0], np.cumsum(frequencies)])  # (terms + 1,)
        ends = np.cumsum(np.frombuffer(self.distinct, np.int64))  # (documents,) in the spill
        free = starts[:-1].copy()  # the next free place of each term
        pairs = self._pairs()
        docs = _reserved(folder / "docs.npy", len(pairs), np.int32)
        weights = _reserved(folder / "weights.npy", len(pairs), np.float32)
        for start in range(0, len(pairs), self.block):
            block = pairs[start : start + self.block]
            by_term = np.argsort(block[:, 0], kind="stable")
            terms = block[by_term, 0].astype(np.int64)
            doc = np.searchsorted(ends, start + by_term, side="right")
            first = np.flatnonzero(np.diff(terms, prepend=-1))
            count = np.diff(first, append=len(terms))
            places = free[terms] + np.arange(len(terms)) - np.repeat(first, count)
            docs[places] = doc
            weights[places] = weigh(terms, doc, block[by_term, 1])
            free[terms[first]] += count
        return Inverted(starts, docs, weights)

    def _pairs(self) -> NDArray[np.int32]:
        if not sum(self.distinct):
            return np.empty((0, 2), np.int32)  # a file of no bytes cannot be mapped
        return np.memmap(self.path, np.int32, "r").reshape(-1, 2)


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
