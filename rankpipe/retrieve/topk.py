"""The best documents for a few weighted terms, exactly, without scoring all that have one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLACK = 1 - 1e-6  # sums round; what might tie for a place after rounding to single precision is kept
SPARSE = 16  # looking documents up in a longer list is cheaper than reading it


@dataclass(frozen=True, slots=True)
class Weighted:
    """A term of a query: the documents that have it, and what it adds to their scores."""

    docs: NDArray[np.int32]  # (n,), rising
    score: Callable[[slice | NDArray[np.intp]], NDArray[np.float32]]  # of some of them, by where they are in ``docs``
    bound: float  # no score is above it


class Sums:
    """Zeros in which searches add up scores, (documents,); each search has its own, in whatever thread it runs."""

    def __init__(self, documents: int) -> None:
        self.documents = documents
        self._spare: list[NDArray[np.float64]] = []

    @contextmanager
    def lent(self) -> Iterator[NDArray[np.float64]]:
        """Some, which come back as zeros; not after an error, which leaves them as they are."""
        try:
            sums = self._spare.pop()
        except IndexError:
            sums = np.zeros(self.documents)
        yield sums
        self._spare.append(sums)


def candidates(
    terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None, sums: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Documents among which the ``k`` best are, and all that tie with the last of them, with their scores.

    MaxScore (Turtle & Flood 1995), a term at a time: once the terms that are left cannot bring a document among the
    best by themselves, they are only looked up for those that were found before. Each document's score is summed in the
    order of ``terms``, whatever is left out, so that it does not depend on what else is in the index.

    :param terms: the most telling ones first.
    :param alive: whether a document may be found, (documents,); all may, if None.
    :param sums: zeros, (documents,); zeros again afterwards.
    """
    rest = np.cumsum([0.0, *(t.bound for t in reversed(terms))])[::-1]  # rest[i]: what terms i.. can add
    left = np.cumsum([0, *(len(t.docs) for t in reversed(terms))])[::-1]
    found = np.empty(0, np.int32)
    fresh: list[NDArray[np.int32]] = [found]
    enough, i = 0.0, 0  # the k-th best sum so far
    while i < len(terms) and (not enough or rest[i] >= enough * SLACK):
        docs, score = terms[i].docs, terms[i].score(slice(None))
        if alive is not None:
            docs, score = docs[alive[docs]], score[alive[docs]]
        fresh.append(docs[sums[docs] == 0])
        sums[docs] += score
        i += 1
        if left[i] > sum(map(len, fresh)) >= k:
            fresh = [np.concatenate(fresh)]
            enough = _kth(sums[fresh[0]], k)
    touched = found = np.concatenate(fresh)
    for later in range(i, len(terms)):
        found = found[sums[found] + rest[later] >= enough * SLACK]
        _look_up(terms[later], found, sums)
        enough = _kth(sums[found], k)
    scores = sums[found].astype(np.float32)
    sums[touched] = 0
    return found, scores


def _look_up(term: Weighted, found: NDArray[np.int32], sums: NDArray[np.float64]) -> None:
    """Add the term's scores to the documents found that have it."""
    if len(found) * SPARSE < len(term.docs):
        places = np.searchsorted(term.docs, found)
        places[places == len(term.docs)] = 0
        there = term.docs[places] == found
        sums[found[there]] += term.score(places[there])
    else:
        places = np.flatnonzero(sums[term.docs] > 0)
        sums[term.docs[places]] += term.score(places)


def _kth(sums: NDArray[np.float64], k: int) -> float:
    """The k-th largest; 0 if there are fewer."""
    return float(np.partition(sums, len(sums) - k)[len(sums) - k]) if len(sums) >= k else 0.0
