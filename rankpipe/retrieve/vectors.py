"""How vectors are kept on the disk: as numbers, as bytes, or as bytes and bits; always a row a document.

``vectors.npy`` (N, dimension) is what scores are made of, and whatever else there is only says which documents are
worth one. Rows are copied from segment to segment as they are, so that a vector is rounded once in its life.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.strings import mapped

Vectors = NDArray[np.float32]  # (n, dimension)
Columns = dict[str, NDArray[Any]]  # name of a file: (n, ...)
Store = Literal["float32", "float16", "int8", "binary"]
ROUNDING = 2.0**-24  # of single precision, relative


class Single:
    """Numbers in single precision, 4 bytes each: as the encoder made them."""

    files: ClassVar[tuple[str, ...]] = ("vectors",)

    def __init__(self, folder: Path) -> None:
        self.vectors: NDArray[Any] = mapped(folder / "vectors.npy")

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def pack(cls, vectors: Vectors) -> Columns:
        """What is kept of vectors, by file."""
        return {"vectors": vectors}

    def rows(self, places: slice | NDArray[np.intp]) -> Vectors:
        """The vectors of these documents."""
        rows: Vectors = self.vectors[places].astype(np.float32, copy=False)
        return rows

    def rough(self, queries: Vectors, part: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """Scores of a part of the documents, (Q, n), as fast as they can be had; they are summed in any order."""
        scores: NDArray[np.float32] = queries @ self.rows(part).T
        return scores

    def wide(self, k: int) -> int:
        """How many of the roughly best are scored exactly, for ``k`` to be found."""
        return k

    def slack(self, queries: Vectors, longest: float) -> NDArray[np.float32]:
        """How far two rough scores may be off together, (Q,): an inner product of n numbers in single precision is off
        by n roundings of its factors' lengths, in whatever order it is summed (Higham 2002, section 3.1).

        :param longest: length of the longest vector.
        """
        lengths = np.linalg.norm(queries, axis=1)
        roundings = self.vectors.shape[1] + 8  # the sum's, and those of a scale, of the score and of this
        return np.asarray(2 * roundings * ROUNDING * longest * lengths, np.float32)


class Half(Single):
    """Numbers in half precision, 2 bytes each: off by 2^-11, relative."""

    @classmethod
    def pack(cls, vectors: Vectors) -> Columns:
        """Rounded; numbers over 65,504 become infinite."""
        return {"vectors": vectors.astype(np.float16)}


class Bytes(Single):
    """Whole numbers from -127 to 127, a byte each, times a scale for each vector (``scales.npy``)."""

    files: ClassVar[tuple[str, ...]] = ("vectors", "scales")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.scales: NDArray[Any] = mapped(folder / "scales.npy")  # (N,)

    @classmethod
    def pack(cls, vectors: Vectors) -> Columns:
        """Rounded to 127ths of the largest number in each."""
        scales = np.abs(vectors).max(axis=1) / np.float32(127)
        whole = np.rint(vectors / np.where(scales == 0, 1, scales)[:, None])
        return {"vectors": whole.astype(np.int8), "scales": scales}

    def rows(self, places: slice | NDArray[np.intp]) -> Vectors:
        """The vectors of these documents."""
        rows: Vectors = np.multiply(self.vectors[places], self.scales[places][:, None], dtype=np.float32)
        return rows


class Bits(Bytes):
    """Signs (``bits.npy``), which say who is near, and bytes, which say how near (Yamada et al. 2021).

    A search reads the bits of all documents, and the bytes of a few.
    """

    files = (*Bytes.files, "bits")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bits: NDArray[Any] = mapped(folder / "bits.npy")  # (N, words) uint64

    @classmethod
    def pack(cls, vectors: Vectors) -> Columns:
        """Bytes, and the signs of what was rounded."""
        return {**super().pack(vectors), "bits": _signs(vectors)}

    def rough(self, queries: Vectors, part: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """In how many signs a document's vector differs from the query's, less than 0, (Q, n)."""
        asked, bits = _signs(queries), self.bits[part]
        differ = np.zeros((len(asked), len(bits)), np.int32)
        for word in range(bits.shape[1]):
            differ += np.bitwise_count(asked[:, word, None] ^ bits[:, word])
        return -differ.astype(np.float32)

    def wide(self, k: int) -> int:
        """Four for each one sought, and some more where these are few."""
        return 4 * k + 200

    def slack(self, queries: Vectors, longest: float) -> NDArray[np.float32]:  # noqa: ARG002
        """None: they are counted."""
        return np.zeros(len(queries), np.float32)


STORES: dict[str, type[Single]] = {"float32": Single, "float16": Half, "int8": Bytes, "binary": Bits}


def append(folder: Path, row: int, columns: Columns) -> None:
    """Write rows from ``row`` on into each column's file, dropping what an interrupted write left there.

    They are on the disk for sure when this returns, and each file is whole.
    """
    for name, rows in columns.items():
        with open(folder / f"{name}.npy", "r+b" if row else "wb") as f:
            shape = (row + len(rows), *rows.shape[1:])
            header = {"descr": rows.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(f, header)  # leaves room for any number of rows
            f.seek(f.tell() + row * rows.dtype.itemsize * prod(rows.shape[1:]))
            f.truncate()
            f.write(np.ascontiguousarray(rows).data)
            f.flush()
            os.fsync(f.fileno())


def spans(starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """The rows from each of some starts on, so many for each, one after the other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _signs(vectors: Vectors) -> NDArray[np.uint64]:
    """A bit for each number that is above 0, (n, words)."""
    packed = np.packbits(vectors > 0, axis=1)  # (n, bytes)
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
