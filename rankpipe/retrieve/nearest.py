"""Nearest neighbours by inner product: exact over a memory map, or whatever FAISS builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.disk import write
from rankpipe.errors import RecipeError
from rankpipe.progress import working
from rankpipe.retrieve.docs import best

Vectors = NDArray[np.float32]  # (n, dimension)
Found = tuple[NDArray[np.intp], NDArray[np.float32]]  # positions and scores of a query's neighbours, best first
SCORES = 1 << 22


class Nearest(ABC):
    """The documents whose vectors have the largest inner products with a query's."""

    @abstractmethod
    def search(self, queries: Vectors, k: int, precedence: NDArray[np.int32]) -> list[Found]:
        """The ``k`` nearest of each query; equal scores by ``precedence`` (see :func:`rankpipe.retrieve.docs.best`)."""


class Exact(Nearest):
    """Every vector against every query, block by block from ``vectors.npy``: any size in little memory.

    :param scores: how many scores, 4 bytes each, are in memory at once; a block has 256 documents at least.
    """

    def __init__(self, folder: Path, scores: int = SCORES) -> None:
        self._scores = scores
        self._vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r")

    def search(self, queries: Vectors, k: int, precedence: NDArray[np.int32]) -> list[Found]:
        """Exact but for the rounding of single precision."""
        found: list[Found] = [(np.empty(0, np.intp), np.empty(0, np.float32))] * len(queries)
        rows = max(self._scores // max(len(queries), 1), 256)
        for start in range(0, len(self._vectors), rows):
            block = self._vectors[start : start + rows]
            scores = queries @ block.T  # (Q, rows) float32
            positions = np.arange(start, start + len(block))
            found = [_merged(old, (positions, new), k, precedence) for old, new in zip(found, scores, strict=True)]
        return found


class Faiss(Nearest):
    """A FAISS index from ``faiss.index``, memory-mapped where its kind allows; exact if it was built as ``Flat``."""

    def __init__(self, folder: Path) -> None:
        import faiss

        self._index: Any = faiss.read_index(str(folder / "faiss.index"), faiss.IO_FLAG_MMAP_IFC)

    @staticmethod
    def build(folder: Path, factory: str) -> None:
        """Index ``vectors.npy`` into ``faiss.index``, all or nothing. Holds the whole index in memory.

        :raises RecipeError: If FAISS cannot make, train or fill such an index.
        """
        import faiss

        vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        with working(f"FAISS index {factory} of {len(vectors)} documents"):
            try:
                index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
                if not index.is_trained:
                    index.train(vectors)
                for start in range(0, len(vectors), 1 << 16):
                    index.add(vectors[start : start + (1 << 16)])
            except RuntimeError as error:  # all that FAISS ever raises
                raise RecipeError(
                    [f"factory: FAISS cannot make {factory!r} of {len(vectors)} documents: {error}"]
                ) from None
            with write(folder / "faiss.index", "wb") as f:
                faiss.write_index(index, faiss.PyCallbackIOWriter(f.write))  # type: ignore[attr-defined]  # made by SWIG

    def search(self, queries: Vectors, k: int, precedence: NDArray[np.int32]) -> list[Found]:
        """As FAISS finds them, fetching more where the cut at ``k`` would go through equal scores."""
        total = len(precedence)
        k = min(k, total)
        fetch = min(k + 1, total)
        scores, positions = self._index.search(queries, fetch)  # (Q, fetch) each; position -1: fewer were found
        while fetch < total and ((scores[:, k - 1] == scores[:, -1]) & (positions[:, -1] >= 0)).any():
            fetch = min(2 * fetch, total)
            scores, positions = self._index.search(queries, fetch)
        none = (np.empty(0, np.intp), np.empty(0, np.float32))
        return [_merged(none, (p[p >= 0], s[p >= 0]), k, precedence) for p, s in zip(positions, scores, strict=True)]


def _merged(old: Found, new: Found, k: int, precedence: NDArray[np.int32]) -> Found:
    positions, scores = np.concatenate([old[0], new[0]]), np.concatenate([old[1], new[1]])
    top = best(scores, precedence[positions], k)
    return positions[top], scores[top]
