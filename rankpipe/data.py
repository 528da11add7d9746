"""The records that flow: Query -> Ranking -> Answer. Frozen, so no stage can change what another one holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from operator import attrgetter, lt
from typing import Any

_ID, _SCORE = attrgetter("doc.id"), attrgetter("score")


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Doc:
    """What can be found.

    ``fields`` are what else is known of it, by name, as JSON has it: filters read them (:mod:`rankpipe.where`); no
    index or reranker does.
    """

    id: str
    text: str
    title: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def contents(self) -> str:
        """Title and text joined by one space, as BEIR does: what indexes and rerankers read."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found, and the score its finder gave it. Its rank is its place in the ranking: never stored."""

    doc: Doc
    score: float


class Ordered(Sequence[Hit]):
    """Hits that are as a :class:`Ranking` must have them, by how they were found; equal to the tuple of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage cost for one query. Seconds of a batch are shared out evenly among its queries."""

    stage: str
    seconds: float = 0.0
    calls: int = 0  # model calls: windows for a listwise model, pairs for a cross-encoder
    tokens_in: int = 0
    tokens_out: int = 0
    repaired: int = 0  # replies that were not a full permutation and were completed
    cut: int = 0  # passages that did not fit and were shortened
    skipped: int = 0  # model calls that a budget did not allow


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query and its hits, best first: scores never rise, no document twice. Use :meth:`scored` to make one.

    :raises ValueError: If a document is doubled, a score is not finite, or the order contradicts the scores.
    """

    query: Query
    hits: Sequence[Hit] = ()
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.hits, Ordered):
            return
        object.__setattr__(self, "hits", tuple(self.hits))
        if len({h.doc.id for h in self.hits}) < len(self.hits):
            twice = Counter(h.doc.id for h in self.hits).most_common(1)[0][0]
            raise ValueError(f"query {self.query.id!r}: document {twice!r} is in the ranking twice")
        scores = [h.score for h in self.hits]
        if not all(map(isfinite, scores)):
            bad = next(h for h in self.hits if not isfinite(h.score))
            raise ValueError(f"query {self.query.id!r}: document {bad.doc.id!r} has the score {bad.score}")
        if any(map(lt, scores, scores[1:])):
            raise ValueError(f"query {self.query.id!r}: hits are not in the order of their scores")

    @classmethod
    def scored(cls, query: Query, hits: Iterable[Hit], k: int | None = None, steps: tuple[Step, ...] = ()) -> Ranking:
        """Sort by score; equal scores by document id, falling, as trec_eval does. Keep the first ``k``."""
        by_id = sorted(hits, key=_ID, reverse=True)
        return cls(query, tuple(sorted(by_id, key=_SCORE, reverse=True)[:k]), steps)

    def reordered(self, order: Sequence[int]) -> Ranking:
        """The same hits in another order; scores become 1/rank, so that they fall with it.

        :param order: every position of ``hits`` once, best first.
        :raises ValueError: If ``order`` drops or repeats a position: a reranker may not lose a document.
        """
        if sorted(order) != list(range(len(self.hits))):
            raise ValueError(f"not an order of {len(self.hits)} hits: {list(order)[:10]}...")
        return replace(self, hits=tuple(Hit(self.hits[i].doc, 1 / (r + 1)) for r, i in enumerate(order)))

    def noting(self, step: Step) -> Ranking:
        """The same ranking, with what a stage cost."""
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True, slots=True)
class Answer:
    """A text, and the ranking it was written from."""

    ranking: Ranking
    text: str
    citations: tuple[str, ...] = ()  # document ids
    steps: tuple[Step, ...] = ()
