"""Is a reranker steady? Whether its orders depend on what else is asked at once, or on how its input was ordered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import combinations
from random import Random
from statistics import fmean
from typing import Any

from rankpipe.data import Ranking
from rankpipe.errors import DataError, RecipeError
from rankpipe.lm import LM, Chat, Choice, Completion, Likelihood
from rankpipe.lm.cache import Cached
from rankpipe.rerank import ledger
from rankpipe.stage import Reranker

TOP = 10  # ranks that ``overlap`` looks at


@dataclass(frozen=True, slots=True)
class Unlike:
    """A query whose order depends on the batch, and the first rank (from 1) at which it does."""

    query: str
    rank: int


@dataclass(frozen=True, slots=True)
class BatchInvariance:
    """What was the same, asked together and alone."""

    queries: int
    unlike: tuple[Unlike, ...]  # in the order of the rankings
    windows: int  # that a language model judged both times: same query, same passages, same order
    unlike_windows: tuple[tuple[str, ...], ...]  # of those the ones put in another order: query, then document ids
    drift: float  # the largest change of a document's score


@dataclass(frozen=True, slots=True)
class QueryBias:
    """How one query's orders agree over shuffles of its input."""

    query: str
    tau: float  # Kendall's tau, the mean over pairs of shuffles: 1 where all orders are equal, about 0 by chance
    tau_min: float  # of the two shuffles that agree least
    overlap: float | None  # of the first ten, the share in common, a pair's mean; None where there are no more than ten
    same_first: float  # share of the pairs that have the same passage first
    slope: float  # of rank against place in the input, a shuffle's mean: 0 without bias, 1 if the input's order is kept


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How orders agree over shuffles of the input, and what rank a passage owes to where it stood."""

    shuffles: int
    queries: tuple[QueryBias, ...]
    curve: tuple[float, ...]  # by place in the input: the mean rank (from 1) that came of it; flat without bias

    @property
    def tau(self) -> float:
        """The queries' mean."""
        return fmean(q.tau for q in self.queries)

    @property
    def tau_min(self) -> float:
        """Of all queries."""
        return min(q.tau_min for q in self.queries)

    @property
    def overlap(self) -> float | None:
        """The mean of those queries that have more than ten hits; None if there are none."""
        known = [q.overlap for q in self.queries if q.overlap is not None]
        return fmean(known) if known else None

    @property
    def same_first(self) -> float:
        """The queries' mean."""
        return fmean(q.same_first for q in self.queries)

    @property
    def slope(self) -> float:
        """The queries' mean."""
        return fmean(q.slope for q in self.queries)


def batch_invariance(reranker: Reranker, rankings: Sequence[Ranking]) -> BatchInvariance:
    """Whether orders are the same at batch 1 and n: ``reranker.batch`` queries at once, as it always runs, and one.

    The hits of one query stay together. A language model of the reranker's own (``reranker.lm``) is asked one chat at
    a time the second time, and a cache around it is left out both times, for it would answer with what it was told the
    first time. How many chats such a model computes together is its own business: where the limit (hf:
    ``batch_tokens``) has room for one only, nothing was there to differ.
    """
    lm = getattr(reranker, "lm", None)
    while isinstance(lm, Cached):
        lm = lm.lm
    together, judged = _heard(_asking(reranker, lm), rankings, "together")
    single = copy(_asking(reranker, _Alone(lm) if lm else None))
    single.batch = 1
    alone, judged_alone = _heard(single, rankings, "alone")
    ids = [([h.doc.id for h in a.hits], [h.doc.id for h in b.hits]) for a, b in zip(together, alone, strict=True)]
    unlike = [Unlike(r.query.id, _parting(a, b)) for r, (a, b) in zip(rankings, ids, strict=True) if a != b]
    windows = judged.keys() & judged_alone.keys()
    return BatchInvariance(
        queries=len(rankings),
        unlike=tuple(unlike),
        windows=len(windows),
        unlike_windows=tuple(w for w in judged if w in windows and judged[w] != judged_alone[w]),
        drift=max((_drift(a, b) for a, b in zip(together, alone, strict=True)), default=0.0),
    )


def position_bias(reranker: Reranker, rankings: Sequence[Ranking], shuffles: int = 5, seed: int = 0) -> PositionBias:
    """Rerank shuffles of each ranking, and see how far the orders agree.

    A shuffle depends on the seed, the query and its number only. All hits are shuffled: cut rankings to what the
    reranker reads (its ``depth``) first, for what lies below keeps its place. Rankings of one hit or none are left out;
    the curve is of the longest rankings only, since a rank says something else among fewer.

    :raises RecipeError: If there are fewer than two shuffles, or the reranker cuts rankings.
    :raises DataError: If no ranking has two hits.
    """
    if shuffles < 2:
        raise RecipeError([f"shuffles={shuffles}: agreement takes 2 or more"])
    several = [r for r in rankings if len(r.hits) > 1]
    if not several:
        raise DataError(f"none of {len(rankings)} rankings has two hits whose order could change")
    shown = [_shuffled(r, Random(f"{seed} {r.query.id} {i}")) for r in several for i in range(shuffles)]
    made = reranker.through(shown, "shuffles")
    if cut := next((r for r, out in zip(shown, made, strict=True) if len(out.hits) != len(r.hits)), None):
        raise RecipeError([f"{reranker!r} drops hits (query {cut.query.id!r}); a probe is of the order of all of them"])
    ranks = [_ranks(*pair) for pair in zip(shown, made, strict=True)]
    longest = max(map(len, ranks))
    return PositionBias(
        shuffles=shuffles,
        queries=tuple(
            _query_bias(r.query.id, made[q : q + shuffles], ranks[q : q + shuffles])
            for r, q in zip(several, range(0, len(made), shuffles), strict=True)
        ),
        curve=tuple(map(fmean, zip(*(r for r in ranks if len(r) == longest), strict=True))),
    )


def tau(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's rank correlation of two orders of the same two or more things (Kendall 1938)."""
    place = {one: i for i, one in enumerate(b)}
    swapped = [place[x] > place[y] for x, y in combinations(a, 2)]
    return 1 - 2 * fmean(swapped)


def slope(ranks: Sequence[int]) -> float:
    """Of ``ranks`` (from 1) against their places: also Spearman's correlation, since both are 1 to n."""
    n = len(ranks)
    return 1 - 6 * sum((rank - place) ** 2 for place, rank in enumerate(ranks, 1)) / (n * (n * n - 1))


def _query_bias(query: str, made: Sequence[Ranking], ranks: Sequence[Sequence[int]]) -> QueryBias:
    pairs = list(combinations([[h.doc.id for h in r.hits] for r in made], 2))
    taus = [tau(a, b) for a, b in pairs]
    return QueryBias(
        query=query,
        tau=fmean(taus),
        tau_min=min(taus),
        overlap=fmean(len({*a[:TOP]} & {*b[:TOP]}) / TOP for a, b in pairs) if len(ranks[0]) > TOP else None,
        same_first=fmean(a[0] == b[0] for a, b in pairs),
        slope=fmean(map(slope, ranks)),
    )


def _shuffled(ranking: Ranking, random: Random) -> Ranking:
    order = list(range(len(ranking.hits)))
    random.shuffle(order)
    return ranking.reordered(order)


def _ranks(shown: Ranking, made: Ranking) -> list[int]:
    """The rank (from 1) that each hit got, in the order in which they were shown."""
    got = {h.doc.id: rank for rank, h in enumerate(made.hits, 1)}
    return [got[h.doc.id] for h in shown.hits]


def _heard(
    reranker: Reranker, rankings: Sequence[Ranking], what: str
) -> tuple[list[Ranking], dict[tuple[str, ...], list[tuple[str, ...]]]]:
    """The rankings, and what was said of each window meanwhile (a plan may ask about one more than once)."""
    said: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    with ledger.written(lambda e: said[(e.query, *e.docs)].append(e.order)):
        return reranker.through(rankings, what), said


def _parting(a: Sequence[str], b: Sequence[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False), 1) if x != y), min(len(a), len(b)) + 1)


def _drift(a: Ranking, b: Ranking) -> float:
    scores = {h.doc.id: h.score for h in b.hits}
    return max((abs(h.score - scores[h.doc.id]) for h in a.hits if h.doc.id in scores), default=0.0)


def _asking(reranker: Reranker, lm: Any) -> Reranker:
    """The same reranker with another language model, if it has one."""
    if lm is None:
        return reranker
    other = copy(reranker)
    other.lm = lm  # type: ignore[attr-defined]
    return other


class _Alone:
    """A language model that is asked one chat at a time."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> list[Completion]:
        return [one for chat in chats for one in self._lm.complete([chat], max_tokens=max_tokens)]

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> list[Choice]:
        return [one for chat in chats for one in self._lm.choose([chat], choices, begin=begin)]

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> list[Likelihood]:
        pairs = zip(chats, replies, strict=True)
        return [one for chat, reply in pairs for one in self._lm.likelihood([chat], [reply])]
