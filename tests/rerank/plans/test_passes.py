"""Passes against the plan run by hand over its own result."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.rerank.plans import Ballot, MultiPass, Planner, SetwiseBubble, ShuffledPasses, Single, Sliding, TopDown
from tests.rerank.plans.judges import SIZES, Judge, as_shown, fickle, perfect, play, worths


def by_hand(plan: Planner, order: list[int], judge: Judge) -> list[int]:
    """The plan over a list in this order: its positions are places."""

    def places(window: list[int]) -> list[int]:
        replied = judge([order[i] for i in window])
        return [order.index(p) for p in replied]

    return [order[i] for i in play(plan(len(order)), places).order]


@settings(deadline=None)
@given(n=st.integers(0, 40), passes=st.integers(1, 4), seed=st.integers())
@pytest.mark.parametrize("plan", [Sliding(6, 3), TopDown(3, 7), SetwiseBubble(4, 3)], ids=str)
def test_passes_are_the_plan_again(plan: Planner, n: int, passes: int, seed: int) -> None:
    order = list(range(n))
    for _ in range(passes):
        order = by_hand(plan, order, fickle(seed))
    assert play(MultiPass(plan, passes)(n), fickle(seed)).order == order


@pytest.mark.parametrize("passes", [1, 2, 3, 5])
@pytest.mark.parametrize("n", SIZES)
def test_every_pass_of_windows_brings_more_into_place(n: int, passes: int) -> None:
    ranks = worths(n)
    order = play(MultiPass(Sliding(6, 3), passes)(n), perfect(ranks)).order
    assert [ranks[p] for p in order[: 3 * passes]] == list(range(min(n, 3 * passes)))


@pytest.mark.parametrize("make", [MultiPass, ShuffledPasses])
def test_one_pass_is_the_plan(make: type[MultiPass] | type[ShuffledPasses]) -> None:
    one, plan = (play(p(50), fickle(1)) for p in (make(Sliding(), 1), Sliding()))
    assert (one.order, one.rounds, one.so_far) == (plan.order, plan.rounds, plan.so_far)


def test_every_pass_is_shuffled_anew() -> None:
    """The judge changes nothing, so that each pass shows the order it began with."""
    shown = [list[int]() for _ in range(4)]
    game = play(ShuffledPasses(Single(30), 4, seed=1)(30), as_shown)
    shown = game.windows
    assert shown[0] == list(range(30))
    assert len({tuple(order) for order in shown}) == 4
    assert all(sorted(order) == list(range(30)) for order in shown)
    assert play(ShuffledPasses(Single(30), 4, seed=1)(30), as_shown).windows == shown
    assert play(ShuffledPasses(Single(30), 4, seed=2)(30), as_shown).windows[1] != shown[1]


def test_ended_within_a_shuffled_pass_the_last_whole_one_counts() -> None:
    judge = perfect(worths(50))
    first = play(Sliding()(50), judge)
    game = play(ShuffledPasses(Sliding(), 3)(50), judge)
    assert game.so_far[:4] == first.so_far
    assert game.so_far[4:8] == [first.order] * 4
    assert game.so_far[8] != first.order  # the second pass; beyond the first ten it found something else
    assert game.so_far[8][:10] == first.order[:10]


def test_what_no_reply_names_stays_where_it_was() -> None:
    """Not where a shuffle left it: the judge knows one passage only."""

    def knows(window: list[int]) -> Ballot:
        known = [p for p in (17,) if p in window]
        return Ballot([*known, *(p for p in window if p not in known)], len(known))

    others = [p for p in range(50) if p != 17]
    for plan in (Single(50), Sliding(), TopDown(3, 7)):
        assert play(ShuffledPasses(plan)(50), knows).order == [17, *others]


@settings(deadline=None)
@given(n=st.integers(0, 40), seed=st.integers(), shuffles=st.integers())
def test_shuffled_passes_are_the_plan_over_shuffles(n: int, seed: int, shuffles: int) -> None:
    judge = fickle(seed)
    game = play(ShuffledPasses(Single(50), 3, shuffles)(n), judge)
    assert game.order == (judge(game.windows[-1]) if n > 1 else list(range(n)))
