"""Top-down partitioning against Algorithm 1, told as a recursion that asks in turn."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.rerank.plans import TopDown
from tests.rerank.plans.judges import Judge, as_shown, backward, fickle, perfect, play, worths


def algorithm_1(field: list[int], k: int, size: int, budget: int, judge: Judge, asked: list[list[int]]) -> list[int]:
    """Those that can be among the first k, in order; then whoever was parted from them."""
    if len(field) <= size:
        if len(field) > 1:
            asked.append(field)
            return judge(field)
        return field
    asked.append(field[:size])
    window, rest = judge(field[:size]), field[size:]
    candidates, pivot, backfill = window[: k - 1], window[k - 1], window[k:]
    while rest:
        part, rest = [pivot, *rest[: size - 1]], rest[size - 1 :]
        asked.append(part)
        window = judge(part)
        candidates += window[: window.index(pivot)]
        backfill += window[window.index(pivot) + 1 :]
    if len(candidates) == k - 1:
        return [*candidates, pivot, *backfill]
    kept, surplus = candidates[:budget], candidates[budget:]
    return [*algorithm_1(kept, k, size, budget, judge, asked), *surplus, pivot, *backfill]


@settings(deadline=None)
@given(data=st.data(), n=st.integers(0, 90), size=st.integers(2, 21), seed=st.integers())
def test_it_is_algorithm_1(data: st.DataObject, n: int, size: int, seed: int) -> None:
    k = data.draw(st.integers(1, size - 1))
    budget = data.draw(st.one_of(st.none(), st.integers(k, 40)))
    judge = data.draw(st.sampled_from([fickle(seed), perfect(worths(n, seed)), as_shown, backward]))
    asked: list[list[int]] = []
    expected = algorithm_1(list(range(n)), k, size, n if budget is None else budget, judge, asked)
    game = play(TopDown(k, size, budget)(n), judge)
    assert game.order == expected
    assert game.windows == asked


@settings(deadline=None)
@given(n=st.integers(0, 90), seed=st.integers())
def test_the_first_k_are_exact_if_the_budget_holds_all_who_beat_the_pivot(n: int, seed: int) -> None:
    ranks = worths(n, seed)
    order = play(TopDown(5, 10, 12)(n), perfect(ranks)).order
    pivot = sorted(range(min(n, 10)), key=ranks.__getitem__)[:5][-1:]
    if all(ranks[p] <= 12 for p in pivot):
        assert [ranks[p] for p in order[:5]] == list(range(min(n, 5)))
    for p in pivot if n > 10 else []:  # who beats the pivot stands before it, whatever the budget
        assert {ranks[q] for q in order[: order.index(p)]} == set(range(ranks[p]))


def test_the_rest_is_one_round() -> None:
    assert play(TopDown()(100), perfect(list(range(100)))).batches == [1, 5]  # the first stage is right: 6 calls
    assert play(TopDown()(100), perfect(worths(100))).batches == [1, 5, 1]
    assert play(TopDown()(20), perfect(worths(20))).batches == [1]
    assert play(TopDown()(21), perfect(list(range(21)))).batches == [1, 1]


def test_what_is_known_is_told_before_the_rest_is_judged() -> None:
    ranks = worths(60)
    game = play(TopDown()(60), perfect(ranks))
    assert game.so_far[1] == [*sorted(range(20), key=ranks.__getitem__), *range(20, 60)]


@pytest.mark.parametrize("n", [21, 39, 40, 58, 100, 1000])
def test_calls(n: int) -> None:
    assert TopDown().calls(n) == 1 + ceil((n - 20) / 19) + 1
    worst = [play(TopDown()(n), judge).calls for judge in (backward, perfect(list(range(n))[::-1]))]
    assert max(worst) == TopDown().calls(n)


@pytest.mark.parametrize("n", [0, 1, 20, 21, 30, 100])
def test_calls_without_a_budget(n: int) -> None:
    left, calls = n, 0
    while left > 20:
        calls, left = calls + 1 + ceil((left - 20) / 19), left - 11
    assert TopDown(10, 20, None).calls(n) == calls + (left > 1)
    assert play(TopDown(10, 20, None)(n), backward).calls <= TopDown(10, 20, None).calls(n)
