"""The best documents for a few weighted terms, exactly, without scoring all that have one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.progress import notice

SLACK = 1 - 1e-6  # sums round; what might tie for a place after rounding to single precision is kept
SPARSE = 16  # looking documents up in a longer list is cheaper than reading it
FREQUENT = 64  # searches of a process that make it worth the second that Numba takes to load
Found = tuple[NDArray[np.int32], NDArray[np.float32]]  # documents, and their scores


@dataclass(frozen=True, slots=True)
class Weighted:
    """A term of a query: where its postings lie, what they are multiplied by, and what no score of them is above."""

    lies: slice
    weight: np.float32
    bound: float


@dataclass(frozen=True)
class Scorer:
    """Adds up what terms bring to documents: ``weight * value``, or with norms ``weight * value / (value + norm)``.

    :param docs: of all postings, rising within a term, (postings,).
    :param values: of all postings, (postings,).
    :param documents: how many there are.
    :param norms: of the documents, (documents,).
    """

    docs: NDArray[np.int32]
    values: NDArray[Any]
    documents: int
    norms: NDArray[np.float32] | None = None
    _spare: list[NDArray[np.float64]] = field(default_factory=list, init=False)

    def candidates(self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None) -> Found:
        """Documents among which the ``k`` best are, and all that tie with the last of them, with their scores.

        MaxScore (Turtle & Flood 1995): once the terms that are left cannot bring a document among the best by
        themselves, they are only looked up for those that were found before. Each document's score is summed in the
        order of ``terms``, whatever is left out, so that it does not depend on what else is in the index. A process
        that searches often does so by machine code where Numba is installed (extra ``fast``), with equal results.

        :param terms: the most telling ones first.
        :param alive: whether a document may be found, (documents,); all may, if None.
        """
        search = self.compiled if next(_searches) > FREQUENT and _machine_code() else self.by_numpy
        return search(terms, min(k, self.documents), alive)

    def compiled(self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None) -> Found:
        """:meth:`candidates` by Numba."""
        lies = np.array([(t.lies.start, t.lies.stop) for t in terms], np.int64).reshape(-1, 2)
        weights, bounds = np.array([t.weight for t in terms], np.float32), np.array([t.bound for t in terms], float)
        norms = np.empty(0, np.float32) if self.norms is None else self.norms
        may = np.empty(0, bool) if alive is None else alive
        search = _machine_code()
        assert search  # for Numba is installed
        return search(self.docs, self.values, norms, lies, weights, bounds, may, k, SLACK)

    def by_numpy(self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None) -> Found:
        """:meth:`candidates` by NumPy, a term at a time."""
        with self._sums() as sums:
            return self._summed(terms, k, alive, sums)

    def _summed(
        self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None, sums: NDArray[np.float64]
    ) -> Found:
        rest = np.cumsum([0.0, *(t.bound for t in reversed(terms))])[::-1]  # rest[i]: what terms i.. can add
        left = np.cumsum([0, *(t.lies.stop - t.lies.start for t in reversed(terms))])[::-1]
        found = np.empty(0, np.int32)
        fresh: list[NDArray[np.int32]] = [found]
        enough, i = 0.0, 0  # the k-th best sum so far
        while i < len(terms) and (not enough or rest[i] >= enough * SLACK):
            docs, score = self.docs[terms[i].lies], self._scores(terms[i], slice(None))
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
            self._look_up(terms[later], found, sums)
            enough = _kth(sums[found], k)
        scores = sums[found].astype(np.float32)
        sums[touched] = 0
        return found, scores

    def _look_up(self, term: Weighted, found: NDArray[np.int32], sums: NDArray[np.float64]) -> None:
        """Add the term's scores to the documents found that have it."""
        docs = self.docs[term.lies]
        if len(found) * SPARSE < len(docs):
            places = np.searchsorted(docs, found)
            places[places == len(docs)] = 0
            there = docs[places] == found
            sums[found[there]] += self._scores(term, places[there])
        else:
            places = np.flatnonzero(sums[docs] > 0)
            sums[docs[places]] += self._scores(term, places)

    def _scores(self, term: Weighted, some: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """What some of the term's postings add."""
        values = self.values[term.lies][some].astype(np.float32)
        if self.norms is None:
            return term.weight * values
        return term.weight * values / (values + self.norms[self.docs[term.lies][some]])

    @contextmanager
    def _sums(self) -> Iterator[NDArray[np.float64]]:
        """Zeros, (documents,), for one search, in whatever thread it runs; after an error they do not come back."""
        try:
            sums = self._spare.pop()
        except IndexError:
            sums = np.zeros(self.documents)
        yield sums
        self._spare.append(sums)


_searches = count(1)


@cache
def _machine_code() -> Callable[..., Found] | None:
    """The search by Numba, if that is installed; the first call of all compiles it, which takes some seconds."""
    try:
        from rankpipe.retrieve.compiled import best
    except ImportError:
        return None
    except RuntimeError as error:  # Numba's, where neither the package's folder nor a cache can be written
        notice(f"searching without Numba, which has nowhere to keep what it compiles ({error}); set NUMBA_CACHE_DIR")
        return None
    found: Callable[..., Found] = best
    return found


def _kth(sums: NDArray[np.float64], k: int) -> float:
    """The k-th largest; 0 if there are fewer."""
    return float(np.partition(sums, len(sums) - k)[len(sums) - k]) if len(sums) >= k else 0.0
