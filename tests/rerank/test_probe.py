"""The probe finds the bias that a reranker was made with, and none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from statistics import fmean

import pytest
from scipy.stats import kendalltau, linregress

from rankpipe.data import Hit, Ranking
from rankpipe.errors import DataError, RecipeError
from rankpipe.lm import Chat, Completion
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy, Oracle
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Single, Sliding
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.rerank.probe import batch_invariance, position_bias, slope, tau
from rankpipe.stage import Reranker, Top
from tests.rerank.test_listwise import ranking, worths

SOME = [ranking(20, str(q)) for q in range(6)]


class Perfect(Reranker):
    """Sorts by worth."""

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        return [r.reordered(sorted(range(len(r.hits)), key=lambda i: -worths(r)[i])) for r in batch]


class Lazy(Reranker):
    """Sorts by worth and by place, in the proportion given: 0 is perfect, 1 leaves everything as it is."""

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        def key(r: Ranking, i: int) -> float:
            return self.bias * i - (1 - self.bias) * worths(r)[i]

        return [r.reordered(sorted(range(len(r.hits)), key=lambda i: key(r, i))) for r in batch]


class Swayed(Perfect):
    """Turns the last two of every second query of a batch round."""

    batch = 4

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        return [r.reordered([*range(18), 19, 18]) if i % 2 else r for i, r in enumerate(super().run(batch))]


class Hasty(Oracle):
    """A perfect judge of one chat; of several it puts the best passage of all but the first chat last."""

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        first, *rest = super().complete(chats, max_tokens=max_tokens)
        return [first, *(Completion(_turned(c.text), c.tokens_in, c.tokens_out) for c in rest)]


def _turned(reply: str) -> str:
    best, *others = reply.split(" > ")
    return " > ".join([*others, best])


def test_a_perfect_reranker_owes_nothing_to_the_place() -> None:
    found = position_bias(Perfect(), SOME)
    assert (found.tau, found.tau_min, found.overlap, found.same_first) == (1, 1, 1, 1)
    assert [q.query for q in found.queries] == [r.query.id for r in SOME]
    assert abs(found.slope) < 0.25  # what shuffles leave to chance
    assert len(found.curve) == 20
    assert sum(found.curve) == pytest.approx(210)


def test_a_reranker_that_does_nothing_is_all_place() -> None:
    found = position_bias(Lazy(1), SOME)
    assert found.slope == 1
    assert found.curve == tuple(range(1, 21))
    assert abs(found.tau) < 0.15
    assert found.tau_min < found.tau
    assert found.same_first < 0.3


def test_more_bias_is_more_slope_and_less_agreement() -> None:
    found = [position_bias(Lazy(bias), SOME, shuffles=8) for bias in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert [f.slope for f in found] == sorted(f.slope for f in found)
    assert [f.tau for f in found] == sorted((f.tau for f in found), reverse=True)
    for f in found[1:]:
        assert f.curve[0] < f.curve[-1]


def test_shuffles_are_seeded_and_each_query_has_its_own() -> None:
    assert position_bias(Lazy(0.5), SOME, seed=3) == position_bias(Lazy(0.5), SOME, seed=3)
    assert position_bias(Lazy(0.5), SOME, seed=3) != position_bias(Lazy(0.5), SOME, seed=4)
    [alone] = position_bias(Lazy(0.5), SOME[2:3]).queries
    assert alone == position_bias(Lazy(0.5), SOME).queries[2]


def test_short_rankings() -> None:
    found = position_bias(Lazy(1), [ranking(n, str(n)) for n in (0, 1, 5, 20)])
    assert [q.query for q in found.queries] == ["5", "20"]
    assert found.queries[0].overlap is None
    assert found.overlap == found.queries[1].overlap
    assert found.curve == tuple(range(1, 21))
    assert position_bias(Perfect(), [ranking(5)]).overlap is None


def test_what_cannot_be_probed() -> None:
    with pytest.raises(DataError, match="none of 2 rankings has two hits"):
        position_bias(Perfect(), [ranking(0), ranking(1)])
    with pytest.raises(RecipeError, match=r"Top\(3\) drops hits \(query '0'\)"):
        position_bias(Top(3), SOME)
    with pytest.raises(RecipeError, match="shuffles=1: agreement takes 2"):
        position_bias(Perfect(), SOME, shuffles=1)


def test_tau_and_slope_are_scipys() -> None:
    for order in permutations("abcde"):
        ranks = [order.index(x) + 1 for x in "abcde"]
        assert tau("abcde", order) == pytest.approx(kendalltau([1, 2, 3, 4, 5], ranks).statistic)
        assert slope(ranks) == pytest.approx(linregress([1, 2, 3, 4, 5], ranks).slope)


@pytest.mark.parametrize(
    "reranker",
    [
        Perfect(),
        Listwise(Noisy(noise=1, malformed=0.3), Sliding(8, 4)),
        First(Noisy(noise=1), Single(20)),
        Pointwise(Noisy(noise=1)),
    ],
)
def test_no_batch_no_matter(reranker: Reranker) -> None:
    found = batch_invariance(reranker, [ranking(n, str(n)) for n in (20, 0, 1, 7)])
    assert (found.queries, found.unlike, found.unlike_windows, found.drift) == (4, (), (), 0)


def test_a_reranker_that_depends_on_its_batch() -> None:
    found = batch_invariance(Swayed(), SOME)
    assert (found.queries, found.windows) == (6, 0)
    assert [(u.query, u.rank) for u in found.unlike] == [("1", 19), ("3", 19), ("5", 19)]
    assert found.drift == pytest.approx(1 / 19 - 1 / 20)


def test_a_model_that_depends_on_its_batch() -> None:
    """Which windows: those that were asked both times, even if they came of other orders."""
    found = batch_invariance(Listwise(Hasty(float), Single(20)), SOME)
    assert [(u.query, u.rank) for u in found.unlike] == [(str(q), 1) for q in range(1, 6)]
    assert (found.windows, len(found.unlike_windows)) == (6, 5)
    assert found.unlike_windows[0] == ("1", *(h.doc.id for h in SOME[1].hits))
    sliding = batch_invariance(Listwise(Hasty(float), Sliding(10, 5)), SOME)
    assert 6 <= sliding.windows < 18  # of 3 a query; the later ones show other passages
    assert len(sliding.unlike_windows) >= 5


def test_the_chats_of_one_query_are_a_batch_too() -> None:
    class Moody(Noisy):
        def choose(self, chats, choices, *, begin=""):  # type: ignore[no-untyped-def]
            seeded = Noisy(noise=1, seed=len(chats))
            return seeded.choose(chats, choices, begin=begin)

    assert batch_invariance(Pointwise(Moody()), SOME[:1]).unlike


def test_a_cache_does_not_answer_for_the_model(tmp_path: Path) -> None:
    with_cache = Listwise(Cached(Hasty(float), tmp_path / "kept.sqlite"), Single(20))
    list(with_cache(SOME))
    assert len(batch_invariance(with_cache, SOME).unlike) == 5
    assert with_cache.lm.totals.asked == 6
    assert isinstance(with_cache.lm, Cached)


def test_the_curve_is_the_mean_rank_by_place() -> None:
    """Of a reranker that always puts what stands last first."""

    class Last(Reranker):
        def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
            return [r.reordered([len(r.hits) - 1, *range(len(r.hits) - 1)]) for r in batch]

    found = position_bias(Last(), [ranking(4)])
    assert found.curve == (2, 3, 4, 1)
    assert found.slope == pytest.approx(linregress([1, 2, 3, 4], [2, 3, 4, 1]).slope)


def test_means_are_of_queries() -> None:
    found = position_bias(Lazy(0.4), SOME)
    assert found.tau == pytest.approx(fmean(q.tau for q in found.queries))
    assert found.tau_min == min(q.tau_min for q in found.queries)


def test_scores_that_move_without_the_order() -> None:
    class Loud(Perfect):
        def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
            return [
                Ranking(r.query, tuple(Hit(h.doc, h.score + len(batch)) for h in r.hits)) for r in super().run(batch)
            ]

    found = batch_invariance(Loud(), SOME)
    assert (found.unlike, found.drift) == ((), 5)
