"""Heap and bubble plans against the textbooks' loops: the same order after the same questions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.rerank.plans import (
    AllPairs,
    PairwiseBubble,
    PairwiseHeap,
    Planner,
    SetwiseBubble,
    SetwiseHeap,
    SetwiseInsertion,
    Windows,
    drive,
)
from tests.rerank.plans.judges import Game, Judge, as_shown, fickle, perfect, play, worths

Best = Callable[[list[int]], int]


def setwise(judge: Judge, asked: list[tuple[int, ...]]) -> Best:
    """The best of a group by one question, each question once."""
    known: dict[tuple[int, ...], int] = {}

    def best(group: list[int]) -> int:
        if tuple(group) not in known:
            asked.append(tuple(group))
            known[tuple(group)] = judge(group)[0]
        return known[tuple(group)]

    return best


def pairwise(judge: Judge, asked: list[tuple[int, ...]]) -> Best:
    """The best of a group by comparing in turn, in both orders, each pair once; a tie keeps the earlier one."""
    known: dict[frozenset[int], int | None] = {}

    def winner(a: int, b: int) -> int | None:
        if frozenset((a, b)) not in known:
            asked.extend([(a, b), (b, a)])
            one, other = judge([a, b])[0], judge([b, a])[0]
            known[frozenset((a, b))] = one if one == other else None
        return known[frozenset((a, b))]

    def best(group: list[int]) -> int:
        leader = group[0]
        for challenger in group[1:]:
            leader = challenger if winner(leader, challenger) == challenger else leader
        return leader

    return best


def heap_loop(n: int, k: int, fan: int, best: Best) -> list[int]:
    """llm-rankers' heapify and heapSort, told in our words; families in their old order."""
    tree = list(range(n))

    def heapify(size: int, node: int) -> None:
        children = list(range(fan * node + 1, min(fan * node + fan + 1, size)))
        if children:
            top = tree.index(best(sorted(tree[i] for i in [node, *children])))
            if top != node:
                tree[node], tree[top] = tree[top], tree[node]
                heapify(size, top)

    for node in range(n - 1, -1, -1):
        heapify(n, node)
    taken: list[int] = []
    for size in range(n - 1, -1, -1):
        taken.append(tree[0])
        tree[0], tree[size] = tree[size], tree[0]
        if len(taken) == k:
            break
        heapify(size, 0)
    return taken + [p for p in range(n) if p not in taken]


def bubble_loop(n: int, k: int, fan: int, best: Best) -> list[int]:
    """llm-rankers' bubble sort, the plain one: pass after pass from the bottom up."""
    order = list(range(n))
    for top in range(min(k, n - 1)):
        start, end = n - fan - 1, n
        while True:
            start = max(start, top)
            found = order.index(best(order[start:end]))
            order[start], order[found] = order[found], order[start]
            if start == top:
                break
            start, end = start - fan, end - fan
    return order


def same(plan: Planner, n: int, judge: Judge, loop: Callable[[Best], list[int]], by: Callable[..., Best]) -> Game:
    asked: list[tuple[int, ...]] = []
    order = loop(by(judge, asked))
    game = play(plan(n), judge)
    assert game.order == order
    assert sorted(map(tuple, game.windows)) == sorted(asked)
    assert game.calls == len(asked) <= plan.calls(n)
    return game


judges = st.one_of(st.integers().map(fickle), st.permutations(range(40)).map(perfect), st.just(as_shown))


@settings(deadline=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), size=st.integers(3, 12), judge=judges)
def test_setwise_heap(n: int, k: int, size: int, judge: Judge) -> None:
    same(SetwiseHeap(k, size), n, judge, lambda best: heap_loop(n, k, size - 1, best), setwise)


@settings(deadline=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), size=st.integers(2, 12), judge=judges)
def test_setwise_bubble(n: int, k: int, size: int, judge: Judge) -> None:
    same(SetwiseBubble(k, size), n, judge, lambda best: bubble_loop(n, k, size - 1, best), setwise)


def insertion_loop(n: int, k: int, fan: int, best: Best) -> list[int]:
    """One by one: who beats the last of the k is compared with each of them by halves."""
    top = heap_loop(min(k, n), k, fan, best)
    dropped: list[int] = []
    for start in range(len(top), n, fan):
        group = [*range(start, min(start + fan, n))]
        while group and (winner := best([top[-1], *group])) != top[-1]:
            below = [*top[:-1]]
            place = 0
            while below:
                half = len(below) // 2
                if best([below[half], winner]) == winner:
                    below = below[:half]
                else:
                    place, below = place + half + 1, below[half + 1 :]
            group.remove(winner)
            dropped = [top[-1], *dropped]
            top = [*top[:place], winner, *top[place:-1]]
    return [*top, *dropped, *(p for p in range(n) if p not in top and p not in dropped)]


@settings(deadline=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), size=st.integers(3, 12), judge=judges)
def test_setwise_insertion(n: int, k: int, size: int, judge: Judge) -> None:
    same(SetwiseInsertion(k, size), n, judge, lambda best: insertion_loop(n, k, size - 1, best), setwise)


@pytest.mark.parametrize(("n", "k", "size"), [(100, 10, 3), (100, 10, 20), (31, 1, 4), (12, 11, 3)])
def test_insertion_costs_little_where_the_given_order_is_right(n: int, k: int, size: int) -> None:
    sort = SetwiseHeap(k, size)
    right = play(SetwiseInsertion(k, size)(n), perfect(list(range(n)))).calls
    assert right == play(sort(k), perfect(list(range(k)))).calls + ceil((n - k) / (size - 1))
    wrong = play(SetwiseInsertion(k, size)(n), perfect(list(range(n))[::-1])).calls
    first = play(sort(k), perfect(list(range(k))[::-1])).calls
    assert wrong <= first + (n - k) * (1 + (k - 1).bit_length())
    assert wrong > 2 * right or k == 1 or n - k < 2


@settings(deadline=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), judge=judges)
def test_pairwise_heap(n: int, k: int, judge: Judge) -> None:
    same(PairwiseHeap(k), n, judge, lambda best: heap_loop(n, k, 2, best), pairwise)


@settings(deadline=None)
@given(n=st.integers(0, 40), k=st.integers(1, 45), judge=judges)
def test_pairwise_bubble(n: int, k: int, judge: Judge) -> None:
    same(PairwiseBubble(k), n, judge, lambda best: bubble_loop(n, k, 1, best), pairwise)


@pytest.mark.parametrize(
    "plan",
    [SetwiseHeap(3, 3), SetwiseHeap(9, 4), SetwiseBubble(3, 3), PairwiseBubble(3), SetwiseInsertion(2, 3)],
    ids=str,
)
def test_somebody_is_so_unlucky_that_all_calls_are_needed(plan: Planner) -> None:
    for n in range(6):
        most = max(play(plan(n), perfect(list(ranks))).calls for ranks in permutations(range(n)))
        assert most == plan.calls(n)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 30, 100])
def test_the_formulas(n: int) -> None:
    assert PairwiseBubble(4).calls(n) == sum(2 * (n - 1 - i) for i in range(min(4, n)))
    assert PairwiseBubble(n + 5).calls(n) == AllPairs().calls(n)
    assert SetwiseBubble(4, 6).calls(n) == sum(ceil((n - 1 - i) / 5) for i in range(min(4, n)))
    heights = [0] * n  # from the leaves up
    for node in reversed(range(n)):
        heights[node] = max((1 + heights[c] for c in range(3 * node + 1, min(3 * node + 4, n))), default=0)
    assert SetwiseHeap(1, 4).calls(n) == sum(heights)
    assert PairwiseHeap(n + 1).calls(n) <= n * (n - 1)


def test_a_level_of_the_heap_is_one_round() -> None:
    """13 passages, 3 children each: 3 nodes above the leaves, then the root, and one of the 3 again."""
    game = play(SetwiseHeap(1, 4)(13), perfect(list(range(13))[::-1]))
    assert game.batches == [3, 1, 1]
    assert game.windows[:3] == [[3, 10, 11, 12], [2, 7, 8, 9], [1, 4, 5, 6]] or game.windows[:3] == [
        [1, 4, 5, 6], [2, 7, 8, 9], [3, 10, 11, 12],
    ]  # fmt: skip


@pytest.mark.parametrize(("k", "size"), [(10, 2), (10, 3), (3, 20), (1, 5)])
def test_bubbles_rise_behind_each_other(k: int, size: int) -> None:
    """n / (size - 1) + 2k rounds, where one after the other they would need k times n / (size - 1)."""
    game = play(SetwiseBubble(k, size)(100), perfect(worths(100)))
    assert len(game.batches) <= ceil(99 / (size - 1)) + 2 * (k - 1)
    assert all(len({p for w in windows for p in w}) == sum(map(len, windows)) for windows in game.rounds)


def test_ended_early_a_heap_is_the_plan_for_a_smaller_k() -> None:
    ranks = worths(50)
    whole = play(SetwiseHeap(10)(50), perfect(ranks))
    smaller = [play(SetwiseHeap(k)(50), perfect(ranks)).order for k in range(1, 10)]
    assert [order for order in smaller if order not in whole.so_far] == []
    assert all(order == list(range(50)) or order in smaller for order in whole.so_far)


def test_ended_early_a_bubble_is_as_high_as_it_has_come() -> None:
    game = play(PairwiseBubble(1)(6), perfect([5, 4, 3, 2, 1, 0]))
    assert game.so_far == [[*range(6 - rise - 1), 5, *range(6 - rise - 1, 5)] for rise in range(5)]
    assert game.order == [5, 0, 1, 2, 3, 4]


def test_all_pairs_are_one_round_of_points() -> None:
    game = play(AllPairs()(30), perfect(worths(30)))
    assert game.batches == [30 * 29]
    assert sorted(map(tuple, game.windows)) == sorted(permutations(range(30), 2))


@settings(deadline=None)
@given(n=st.integers(0, 12), seed=st.integers())
def test_all_pairs_are_prp_points(n: int, seed: int) -> None:
    """Qin et al. 2024: 1 for a win, 0.5 for a tie; of equals, the order of the first stage."""
    judge = fickle(seed)
    points = [0.0] * n
    for a in range(n):
        for b in range(n):
            if a != b:
                one, other = judge([a, b])[0], judge([b, a])[0]
                points[a] += 1.0 * (one == other == a) + 0.5 * (one != other)
    assert play(AllPairs()(n), judge).order == sorted(range(n), key=lambda p: (-points[p], p))


def test_contradicting_answers_are_ties() -> None:
    """1 beats 0 whatever comes first; all else is won by whoever is shown second."""

    def judge(window: list[int]) -> list[int]:
        return [1, 0] if set(window) == {0, 1} else window[::-1]

    for plan in (PairwiseHeap(3), PairwiseBubble(3)):
        assert play(plan(9), judge).order == [1, 0, 2, 3, 4, 5, 6, 7, 8]
    assert play(AllPairs()(9), judge).order == [1, 2, 3, 4, 5, 6, 7, 8, 0]  # 4.5 points, 4 each, 3.5 points


@pytest.mark.parametrize(("calls", "order"), [(1, [0, 1, 2]), (2, [1, 2, 0]), (4, [1, 2, 0]), (6, [2, 1, 0])])
def test_all_pairs_count_those_that_were_asked_in_both_orders(calls: int, order: list[int]) -> None:
    """The last is the best: 1 beats 0, then 2 beats 0, then 2 beats 1; whoever has not met is even."""
    asked = [0]

    def admit(_: int, windows: Windows) -> int:
        now, asked[0] = min(calls - asked[0], len(windows)), calls
        return now

    assert drive([AllPairs()(3)], lambda pairs: [sorted(w)[::-1] for _, w in pairs], admit) == [order]


def test_only_the_best_of_a_reply_counts() -> None:
    def best_only(window: list[int]) -> list[int]:
        best = max(window)
        return [best, *(p for p in window if p != best)]

    for plan in (SetwiseHeap(5, 4), SetwiseBubble(5, 4), SetwiseInsertion(5, 4)):
        assert play(plan(30), best_only).order[:5] == [29, 28, 27, 26, 25]
        assert play(plan(30), best_only).order == play(plan(30), lambda w: sorted(w, reverse=True)).order
