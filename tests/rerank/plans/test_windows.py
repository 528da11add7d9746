"""Plans against short brute-force loops and perfect judges."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from random import Random

import pytest

from rankpipe.errors import RecipeError
from rankpipe.rerank.plans import Planner, Single, Sliding, Tournament, Windows, drive

PLANS = [Single(), Single(7), Sliding(), Sliding(8, 3), Sliding(5, 5), Tournament(), Tournament(6, 5), Tournament(9, 1)]


def play(plan: Planner, n: int, key: Callable[[int], float]) -> tuple[list[int], Windows]:
    """The plan's order with a perfect judge, and the windows that were judged."""
    seen: Windows = []

    def judge(asked: list[tuple[int, list[int]]]) -> Windows:
        seen.extend(window for _, window in asked)
        return [sorted(window, key=key) for _, window in asked]

    [order] = drive([plan(n)], judge)
    return order, seen


def shuffled(n: int) -> list[int]:
    ranks = list(range(n))
    Random(n).shuffle(ranks)
    return ranks


def edges(n: int, size: int = 20, step: int = 10) -> list[tuple[int, int]]:
    """RankLLM's windows, its loop told in our words: both ends move up, the upper one stops at the first place."""
    low, high, found = max(n - size, 0), n, []
    while high > low:
        found.append((low, high))
        if low == 0:
            break
        low, high = max(low - step, 0), high - step
    return found


@pytest.mark.parametrize(
    ("n", "windows"),
    [
        (100, [(80, 100), (70, 90), (60, 80), (50, 70), (40, 60), (30, 50), (20, 40), (10, 30), (0, 20)]),
        (25, [(5, 25), (0, 15)]),
        (21, [(1, 21), (0, 11)]),
        (10, [(0, 10)]),  # RankLLM makes no call here
        (8, [(0, 8)]),
        (1, []),  # RankLLM makes a call for a single passage
        (0, []),
    ],
)
def test_known_windows(n: int, windows: list[tuple[int, int]]) -> None:
    _, seen = play(Sliding(), n, key=lambda i: i)  # a judge that agrees: positions are places
    assert [(w[0], w[-1] + 1) for w in seen] == windows


@pytest.mark.parametrize(("size", "step"), [(20, 10), (20, 5), (20, 20), (10, 3), (2, 1)])
def test_sliding_is_a_loop_over_slices(size: int, step: int) -> None:
    for n in range(121):
        key = shuffled(n).__getitem__
        order, spans = list(range(n)), edges(n, size, step)
        for low, high in spans:
            order[low:high] = sorted(order[low:high], key=key)
        got, seen = play(Sliding(size, step), n, key)
        assert got == order
        assert [len(w) for w in seen] == [high - low for low, high in spans if high - low > 1]


@pytest.mark.parametrize(("size", "step", "calls"), [(20, 20, 5), (20, 10, 9), (20, 5, 17)])
def test_calls_for_100(size: int, step: int, calls: int) -> None:
    assert len(play(Sliding(size, step), 100, lambda i: i)[1]) == calls == 1 + ceil((100 - size) / step)


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_keeps_everybody_and_its_window_size(plan: Planner) -> None:
    for n in range(121):
        order, seen = play(plan, n, shuffled(n).__getitem__)
        assert sorted(order) == list(range(n))
        assert all(2 <= len(w) <= plan.size for w in seen)  # type: ignore[attr-defined]


def test_single_leaves_the_rest() -> None:
    order, seen = play(Single(3), 5, key=lambda i: -i)
    assert order == [2, 1, 0, 3, 4]
    assert seen == [[0, 1, 2]]


@pytest.mark.parametrize("n", range(0, 121, 3))
def test_sliding_finds_the_best(n: int) -> None:
    ranks = shuffled(n)
    order, _ = play(Sliding(20, 10), n, ranks.__getitem__)
    assert [ranks[i] for i in order[:10]] == list(range(min(n, 10)))


@pytest.mark.parametrize(("size", "keep"), [(20, 10), (20, 1), (6, 5), (2, 1)])
def test_tournament_finds_the_best_in_as_many_calls_as_it_says(size: int, keep: int) -> None:
    for n in range(121):
        ranks, calls, left = shuffled(n), 0, n
        while left > size:
            calls += left // size
            left -= (left // size) * (size - keep)
        order, seen = play(Tournament(size, keep), n, ranks.__getitem__)
        assert [ranks[i] for i in order[:keep]] == list(range(min(n, keep)))
        assert len(seen) == calls + (left > 1)


def test_tournament_of_100_has_4_rounds() -> None:
    rounds: list[int] = []

    def judge(asked: list[tuple[int, list[int]]]) -> Windows:
        rounds.append(len(asked))
        return [window for _, window in asked]

    drive([Tournament()(100)], judge)
    assert rounds == [5, 2, 1, 1]
    assert Tournament() == Tournament(20, 10)


def test_tournament_deals_like_cards_and_the_first_wait() -> None:
    _, seen = play(Tournament(3, 1), 8, key=lambda i: i)
    assert seen[:2] == [[2, 4, 6], [3, 5, 7]]


def test_those_who_are_out_follow_by_their_place() -> None:
    order, _ = play(Tournament(4, 2), 8, key=lambda i: -i)
    assert order[4:] == [2, 3, 0, 1]  # windows 0 2 4 6 and 1 3 5 7: thirds before fourths


def test_queries_are_driven_in_step() -> None:
    batches: list[int] = []

    def judge(asked: list[tuple[int, list[int]]]) -> Windows:
        batches.append(len(asked))
        return [window[::-1] for _, window in asked]

    orders = drive([Sliding()(n) for n in (100, 0, 1, 20, 25)], judge)
    assert batches == [3, 2, 1, 1, 1, 1, 1, 1, 1]
    assert [len(order) for order in orders] == [100, 0, 1, 20, 25]
    assert orders[3] == list(range(20))[::-1]
    assert drive([Sliding()(1), Tournament()(0)], lambda asked: pytest.fail("nothing to ask")) == [[0], []]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Single(1),
        lambda: Sliding(1, 1),
        lambda: Sliding(20, 0),
        lambda: Sliding(20, -5),
        lambda: Sliding(20, 21),
        lambda: Tournament(20, 20),
        lambda: Tournament(20, 0),
    ],
)
def test_plans_that_cannot_work(wrong: Callable[[], Planner]) -> None:
    with pytest.raises(RecipeError, match=r"size|step|keep"):
        wrong()


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, 10, 11, 19, 20, 21, 25, 30, 50, 100])
def test_calls_are_what_the_formula_says(plan: Planner, n: int) -> None:
    asked = sum(len(w) > 1 for w in play(plan, n, key=lambda i: i)[1])
    assert asked == plan.calls(n)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_plan_can_be_ended_after_any_round(plan: Planner) -> None:
    ranks = shuffled(50)

    def judge(asked: list[tuple[int, list[int]]]) -> Windows:
        return [sorted(window, key=ranks.__getitem__) for _, window in asked]

    rounds: list[list[int]] = []
    for allowed in range(20):
        left = [allowed]

        def admit(_: int, windows: Windows, left: list[int] = left) -> int:
            left[0] -= 1
            return len(windows) if left[0] >= 0 else 0

        [order] = drive([plan(50)], judge, admit)
        assert sorted(order) == list(range(50))
        rounds.append(order)
    assert rounds[0] == list(range(50))
    assert rounds[-1] == drive([plan(50)], judge)[0]


def test_three_tables_of_five() -> None:
    """Those who were not judged stand as they were dealt; the round is the last one."""
    ranks, dealt = shuffled(100), [list(range(table, 100, 5)) for table in range(5)]
    left = [3]

    def admit(_: int, windows: Windows) -> int:
        now = min(left[0], len(windows))
        left[0] -= now
        return now

    [order] = drive([Tournament()(100)], lambda asked: [sorted(w, key=ranks.__getitem__) for _, w in asked], admit)
    ranked = [sorted(table, key=ranks.__getitem__) for table in dealt[:3]] + dealt[3:]
    assert order == [table[place] for place in range(20) for table in ranked]
