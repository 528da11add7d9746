"""Nearest neighbours by inner product: roughly all of them first, then exactly those that may be among the best.

What matrix products and FAISS say of a score depends in its last bits on what else they were asked. A hit's score does
not: it is summed in an order of its own, so that it is the same in whatever block or segment the document lies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.docs import best
from rankpipe.retrieve.vectors import Single, Vectors

Found = tuple[NDArray[np.intp], NDArray[np.float32]]  # places and scores of a query's neighbours, best first
SCORES = 1 << 22  # rough scores in memory at once, 4 bytes each
ROWS = 256, 1 << 14  # documents that are looked at together, at least and at most
CHUNK = 1 << 12  # exact scores made at once


@dataclass(frozen=True)
class Field:
    """What is searched.

    :param longest: length of the longest vector, at least.
    :param precedence: (N,); of two equal scores the smaller goes first.
    :param alive: (N,); None if all are.
    """

    kept: Single
    longest: float
    precedence: NDArray[np.int32]
    alive: NDArray[np.bool_] | None = None

    def scores(self, query: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
        """Inner products of some documents with a query.

        Products of single precision are exact in double; each row is then summed by itself, pairwise over dimensions.
        """
        made = np.empty(len(places), np.float32)
        for start in range(0, len(places), CHUNK):
            some = slice(start, start + CHUNK)
            made[some] = np.multiply(self.kept.rows(places[some]), query, dtype=np.float64).sum(axis=1)
        return made

    def best(self, query: NDArray[np.float32], places: NDArray[np.intp], k: int) -> Found:
        """The best of some documents; equal scores by precedence."""
        scores = self.scores(query, places)
        top = best(scores, self.precedence[places], k)
        return places[top], scores[top]


class Nearest(ABC):
    """Finds the documents of a field whose vectors have the largest inner products with a query's."""

    def __init__(self, field: Field) -> None:
        self.field = field

    def among(self, alive: NDArray[np.bool_] | None, k: int) -> Nearest:  # noqa: ARG002  FAISS's way depends on it
        """A search for the ``k`` nearest among other documents of the field."""
        return Exact(replace(self.field, alive=alive))

    @abstractmethod
    def search(self, queries: Vectors, k: int) -> list[Found]:
        """The ``k`` nearest of each query that are alive."""


class Exact(Nearest):
    """Every vector against every query, block by block from a memory map: any size in little memory.

    Exact in that no document has a higher score than one that is found, to the last bit; but vectors that are kept as
    bits are passed over by their signs.
    """

    def search(self, queries: Vectors, k: int) -> list[Found]:
        """The ``k`` nearest of each query."""
        kept, alive = self.field.kept, self.field.alive
        near = [Near(kept.wide(k), slack) for slack in kept.slack(queries, self.field.longest).tolist()]
        rows = min(max(SCORES // max(len(queries), 1), ROWS[0]), ROWS[1])
        few = None if alive is None or 2 * np.count_nonzero(alive) > len(kept) else np.flatnonzero(alive)
        for start in range(0, len(kept if few is None else few), rows):
            part = slice(start, start + rows) if few is None else few[start : start + rows]
            rough = kept.rough(queries, part)  # (Q, rows)
            if alive is not None:
                rough[:, ~alive[part]] = -np.inf
            among = rough >= np.array([n.edge for n in near], np.float32)[:, None]
            for i in np.flatnonzero(among.any(axis=1)):
                places = np.flatnonzero(among[i])
                near[i].add(places + start if few is None else few[start + places], rough[i, places])
        return [self.field.best(query, n.places, k) for query, n in zip(queries, near, strict=True)]


class Near:
    """Those that may be among the ``k`` best of a query, as far as its documents have been seen."""

    def __init__(self, k: int, slack: float) -> None:
        self.k, self.slack = k, slack
        self.edge = float(np.finfo(np.float32).min)  # below it none is; the dead are, at minus infinity
        self.places, self.rough = np.empty(0, np.intp), np.empty(0, np.float32)

    def add(self, places: NDArray[np.intp], rough: NDArray[np.float32]) -> None:
        """See some more of them."""
        self.places, self.rough = np.concatenate([self.places, places]), np.concatenate([self.rough, rough])
        if (above := len(self.rough) - self.k) > 0:
            self.edge = float(np.partition(self.rough, above)[above]) - self.slack
            among = self.rough >= self.edge
            self.places, self.rough = self.places[among], self.rough[among]
