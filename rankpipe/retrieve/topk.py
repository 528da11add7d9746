"""The best documents for a few weighted terms, exactly, without scoring all that have one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pickle import PickleError
from time import perf_counter, thread_time
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankpipe.errors import ArtefactError
from rankpipe.onnx import cores
from rankpipe.progress import notice
from rankpipe.threads import side_by_side

SLACK = 1 - 1e-6  # sums round; what might tie for a place after rounding to single precision is kept
SPARSE = 16  # looking documents up in a longer list is cheaper than reading it
WORTH = 1.0  # seconds of a process's searches by NumPy, before Numba is worth the time that it takes to load
# what Numba fails with: it is not there, or not for this Python or NumPy; its cache is full, harmed or nowhere
BROKEN = (ImportError, AttributeError, OSError, EOFError, RuntimeError, ValueError, TypeError, MemoryError, PickleError)
LISTS = 1 << 14  # that are remembered
SOME = 8  # queries that a thread answers one after the other
LAST = 32  # times so many by which it is judged whether queries take long
LONG = 2.5e-4  # seconds of processor time a query; shorter ones wait for each other at Python
_spent, _given_up = 0.0, False
Q = TypeVar("Q")
F = TypeVar("F")
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
    _whole: set[tuple[int, int]] = field(default_factory=set, init=False)  # lists that were looked at

    def candidates(self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None) -> Found:
        """Documents among which the ``k`` best are, and all that tie with the last of them, with their scores.

        MaxScore (Turtle & Flood 1995): once the terms that are left cannot bring a document among the best by
        themselves, they are only looked up for those that were found before. Each document's score is summed in the
        order of ``terms``, whatever is left out, so that it does not depend on what else is in the index. A process
        that searches often does so by machine code where Numba is installed (extra ``fast``), with equal results.

        :param terms: the most telling ones first.
        :param alive: whether a document may be found, (documents,); all may, if None.
        """
        global _spent, _given_up
        if _compiled():
            try:
                return self.compiled(terms, k, alive)
            except BROKEN as error:
                _given_up = True
                if find_spec("numba"):
                    notice(f"searching without Numba, which does not work here: {type(error).__name__}: {error}")
        begun = perf_counter()
        found = self.by_numpy(terms, k, alive)
        _spent += perf_counter() - begun
        return found

    def compiled(self, terms: Sequence[Weighted], k: int, alive: NDArray[np.bool_] | None) -> Found:
        """:meth:`candidates` by Numba; the first call of all compiles it, for some seconds."""
        from rankpipe.retrieve.compiled import best

        for term in terms:
            self._refuse_damaged(term.lies)
        lies = np.array([(t.lies.start, t.lies.stop) for t in terms], np.int64).reshape(-1, 2)
        weights, bounds = np.array([t.weight for t in terms], np.float32), np.array([t.bound for t in terms], float)
        norms = np.empty(0, np.float32) if self.norms is None else self.norms
        may = np.empty(0, bool) if alive is None else alive
        most = min(k, self.documents)
        found: Found = best(self.docs, self.values, norms, lies, weights, bounds, may, most, SLACK)
        return found

    def _refuse_damaged(self, lies: slice) -> None:
        """Machine code would read and write wherever a document's number leads; once for each term.

        :raises ArtefactError: If its documents do not rise, or are not there.
        """
        if (lies.start, lies.stop) in self._whole:
            return
        docs, values = self.docs[lies], self.values[lies]
        there = 0 <= lies.start < lies.stop and lies.stop - lies.start == len(docs) == len(values)
        if not (there and docs[0] >= 0 and docs[-1] < self.documents and (docs[1:] > docs[:-1]).all()):
            raise ArtefactError("an inverted list is damaged; rankpipe index verify says in which file, and the cure")
        if len(self._whole) >= LISTS:
            self._whole.clear()
        self._whole.add((lies.start, lies.stop))

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
            fresh.append(docs[(sums[docs] == 0) & (score > 0)])
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


class Each:
    """Answers queries on all cores, as soon as machine code, which lets Python go on meanwhile, is most of the work."""

    def __init__(self) -> None:
        self._parts, self._mean = 0, 0.0  # by machine code, and the seconds of processor time a query in the last ones

    def __call__(self, find: Callable[[Q], Iterable[F]], queries: Sequence[Q]) -> Iterator[Sequence[F]]:
        """What is found for each query, in their order."""
        answer, parts = partial(self._answer, find), [queries[i : i + SOME] for i in range(0, len(queries), SOME)]
        while parts and not (self._mean > LONG and len(parts) > 1):
            yield from answer(parts.pop(0))
        if parts:
            yield from chain.from_iterable(side_by_side(answer, parts, cores()))

    def _answer(self, find: Callable[[Q], Iterable[F]], some: Sequence[Q]) -> list[Sequence[F]]:
        already, begun = _compiled(), thread_time()
        found: list[Sequence[F]] = [[*find(query)] for query in some]
        if already:
            self._parts += 1
            seconds = min((thread_time() - begun) / len(some), 4 * LONG)  # the first ones load Numba
            self._mean += (seconds - self._mean) / min(self._parts, LAST)
        return found


def _compiled() -> bool:
    """Whether searches are done by machine code now."""
    return _spent >= WORTH and not _given_up


def _kth(sums: NDArray[np.float64], k: int) -> float:
    """The k-th largest; 0 if there are fewer."""
    return float(np.partition(sums, len(sums) - k)[len(sums) - k]) if len(sums) >= k else 0.0
