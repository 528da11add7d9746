"""What an index finds, as columns: the record of a hit is made when somebody looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Hit, Ordered, Query, Ranking
from rankpipe.retrieve.collecting import uncollected
from rankpipe.retrieve.docs import Docs, Stored


class Found(Ordered):
    """Hits in the order of a ranking. It equals the tuple of them, and added to one, or pickled, makes one.

    :param docs: of the segments.
    :param segments: which one each hit is of, (n,).
    :param places: of the documents in their segments, (n,).
    :param scores: falling, finite; equal ones in trec_eval's order, (n,).
    """

    def __init__(
        self, docs: Sequence[Docs], segments: NDArray[np.intp], places: NDArray[Any], scores: NDArray[np.float32]
    ) -> None:
        self.docs, self.segments, self.places, self.scores = docs, segments, places, scores

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        if isinstance(place, slice) and place.step in (None, 1):
            return Found(self.docs, self.segments[place], self.places[place], self.scores[place])
        return self._records[place]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        return self._records == tuple(other) if isinstance(other, (tuple, Found)) else NotImplemented

    def __add__(self, other: tuple[Hit, ...]) -> tuple[Hit, ...]:
        return (*self, *other) if isinstance(other, (tuple, Found)) else NotImplemented

    def __radd__(self, other: tuple[Hit, ...]) -> tuple[Hit, ...]:
        return (*other, *self) if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._records)

    def __repr__(self) -> str:
        return repr(self._records)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._records,)

    def ids(self, some: NDArray[Any]) -> list[str]:
        """Of the documents of some hits."""
        if len(self.docs) == 1:
            return self.docs[0].ids.at(self.places[some])
        told = zip(self.segments[some].tolist(), self.places[some].tolist(), strict=True)
        return [self.docs[segment].ids[place] for segment, place in told]

    @cached_property
    def _records(self) -> tuple[Hit, ...]:
        return _records(self)


@uncollected
def _records(found: Found) -> tuple[Hit, ...]:
    columns = found.segments.tolist(), found.places.tolist(), found.scores.tolist()
    told = zip(found.ids(np.arange(len(found))), *columns, strict=True)
    return tuple([Hit(Stored(i, found.docs[segment], place), score) for i, segment, place, score in told])


def hits(docs: Docs, places: NDArray[Any], scores: NDArray[np.float32]) -> Sequence[Hit]:
    """The documents at these places with their scores; the order is the caller's
    (see :func:`~rankpipe.retrieve.docs.best`).
    """
    if not len(places):
        return ()
    found = Found([docs], np.zeros(len(places), np.intp), places, scores)
    before, after, first = scores[:-1], scores[1:], docs.precedence[places]
    falling = (after < before) | ((after == before) & (first[1:] > first[:-1]))
    return found if falling.all() and np.isfinite(scores).all() else tuple(found)


def ranking(query: Query, several: Iterable[Sequence[Hit]], k: int) -> Ranking:
    """The best of what several segments have."""
    several = [some for some in several if some]
    if not several or not all(isinstance(some, Found) for some in several):
        return Ranking.scored(query, chain.from_iterable(several), k)
    return Ranking(query, merged(several, k))  # type: ignore[arg-type]  # all are Found


def merged(several: Sequence[Found], k: int) -> Sequence[Hit]:
    """The best hits of segments, each of its own, as one list; it holds no segment that it has nothing of."""
    if len(several) == 1:
        return several[0][:k]
    docs = [found.docs[0] for found in several]
    segments = np.repeat(np.arange(len(several)), [*map(len, several)])
    places, scores = np.concatenate([f.places for f in several]), np.concatenate([f.scores for f in several])
    _, which, often = np.unique(scores, return_inverse=True, return_counts=True)
    tied, ties = np.flatnonzero(often[which] > 1), np.zeros(len(scores), np.intp)
    ids = Found(docs, segments, places, scores).ids(tied)
    rank = {i: place for place, i in enumerate(sorted(ids, reverse=True))}
    ties[tied] = [rank[i] for i in ids]
    order = np.lexsort((ties, -scores))[:k]
    used, segments = np.unique(segments[order], return_inverse=True)
    return Found([docs[i] for i in used], segments, places[order], scores[order])
