"""What part of the nearest documents a search finds: of those that comparing all of them would find, by their vectors
as a model made them.

The queries are documents of the index, which are not to find themselves. Questions are further from documents than
these are from each other, so that their recall is lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.retrieve.embed import Embedding
from rankpipe.retrieve.grown import Places
from rankpipe.retrieve.nearest import Exact, Field, Found, Near
from rankpipe.retrieve.tokens import Tokens, maxsim
from rankpipe.retrieve.vectors import Vectors

AT = 10, 100  # nearest
QUERIES = 256  # documents that recall is measured with
FEW = 32  # the same for token vectors, and of each so many of these
WORTH = 1000  # documents; of fewer nothing is said of how they are kept
ROUNDING = 1e-6  # of scores, relative


class Truth:
    """Which documents are nearest, found while the vectors of all pass by on their way to where they are kept in less.

    :param own: for each query the place that does not count, its own.
    """

    def __init__(self, own: NDArray[np.intp]) -> None:
        self.own, self.documents = own, 0
        self._near = [Near(max(AT) + 1, 0.0) for _ in own]

    def see(self, places: NDArray[np.intp], scores: NDArray[np.float32]) -> None:
        """Some more documents.

        :param scores: exact ones, (queries, documents).
        """
        for near, told in zip(self._near, scores, strict=True):
            some = np.flatnonzero(told >= near.edge)
            near.add(places[some], told[some])
        self.documents += len(places)

    def measured(self, search: Callable[[int], Sequence[Found]], documents: int) -> dict[str, float]:
        """The recall of a search, as an index says it; nothing, if these are few or not all were seen.

        :param search: finds so many for each query, with scores of its own.
        """
        if not WORTH <= self.documents == documents:
            return {}
        truth = []
        for near in self._near:
            order = np.lexsort((near.places, -near.rough))
            truth.append((near.places[order], near.rough[order]))
        return measured(lambda k: map(_rescored, search(k), truth), truth, self.own)


class Watched(Embedding):
    """Makes rows of vectors, and looks at these before they are rounded."""

    _truth: Truth | None = None

    def made(self, places: Places, docs: Sequence[Doc]) -> Vectors:
        """The vectors of documents, which are looked at."""
        made = super().made(places, docs)
        if self._truth is None:
            own = drawn(len(made))
            self._truth, self._queries = Truth(places[own]), made[own]
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused afterwards
            self._truth.see(places, self._queries @ made.T)
        return made

    def recall(self, field: Field) -> dict[str, float]:
        """How many of the nearest are found among the rows."""
        if self._truth is None:
            return {}
        return self._truth.measured(partial(Exact(field).search, self._queries), len(field.kept))


class WatchedTokens:
    """Looks at token vectors before they are compressed.

    :param own: places of some documents.
    :param queries: the first vectors of each.
    """

    def __init__(self, own: NDArray[np.intp], queries: Sequence[Vectors]) -> None:
        self._queries, self._truth = queries, Truth(own)
        self._asked, self._begins = np.concatenate(queries).T, np.cumsum([0, *map(len, queries[:-1])])

    def see(self, places: Places, vectors: Sequence[Vectors]) -> None:
        """Some more documents, as the vectors of each."""
        lengths = np.array([*map(len, vectors)])
        scores = np.full((len(vectors), len(self._queries)), -np.inf, np.float32)
        if lengths.any():
            ends = np.cumsum([0, *lengths[lengths > 0]])
            scores[lengths > 0] = maxsim(np.concatenate(vectors) @ self._asked, ends, self._begins)
        self._truth.see(places, scores.T)

    def recall(self, segment: Tokens) -> dict[str, float]:
        """How many of the nearest are found in a segment, if all are compared."""
        return self._truth.measured(lambda k: segment.search(self._queries, k, None, 1, None), len(segment.docs))


def drawn(documents: int, queries: int = QUERIES) -> NDArray[np.intp]:
    """Places of some documents, rising, for queries."""
    return np.sort(np.random.default_rng(1).choice(documents, min(queries, documents), replace=False))


def measured(
    search: Callable[[int], Iterable[Found]], truth: Sequence[Found], own: NDArray[np.intp]
) -> dict[str, float]:
    """The recall of a search at 10 and at 100.

    :param search: finds so many for each query, with the scores of ``truth``.
    :param truth: what is nearest, best first; one more than counts, for the query itself.
    :param own: for each query a place that does not count.
    """
    return {f"recall_at_{k}": round(recall(search(k + 1), truth, own, k), 4) for k in AT}


def recall(found: Iterable[Found], truth: Sequence[Found], own: NDArray[np.intp], k: int) -> float:
    """The share of the ``k`` nearest that was found; one as near as the last of them, but for rounding, is as good."""
    hits = sought = 0
    for (places, scores), (nearest, exact), self_ in zip(found, truth, own.tolist(), strict=True):
        wanted = exact[nearest != self_][:k]
        last = wanted[-1:] - ROUNDING * np.abs(wanted[-1:])
        hits += int((scores[places != self_][:k] >= last).sum())
        sought += len(wanted)
    return hits / max(sought, 1)


def _rescored(found: Found, truth: Found) -> Found:
    """What was found, with the scores of the truth; of what is not among that, with the least there is."""
    places, known = found[0], dict(zip(*(column.tolist() for column in truth), strict=True))
    return places, np.array([known.get(place, -np.inf) for place in places.tolist()], np.float32)
