"""Self-consistency: what a judge says because of where a passage stood is voted away."""

from __future__ import annotations

from math import factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.rerank.plans import (
    AllPairs,
    Ballot,
    Borda,
    Consensus,
    Kemeny,
    Planner,
    SelfConsistent,
    SetwiseHeap,
    Single,
    Sliding,
    TopDown,
    Windows,
    drive,
)
from tests.rerank.plans.judges import SIZES, Judge, as_shown, fickle, perfect, play, worths


def lost_in_the_middle(ranks: list[int]) -> Judge:
    """Knows the order, but leaves whoever is shown first on top and forgets who is shown last."""

    def judge(window: list[int]) -> list[int]:
        middle = sorted(window[1:-1], key=ranks.__getitem__)
        return [window[0], *middle, window[-1]]

    return judge


@pytest.mark.parametrize("merge", [Borda(), Kemeny()], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_where_a_passage_stood_is_voted_away(merge: Borda | Kemeny, seed: int) -> None:
    ranks = worths(10, seed)
    biased = lost_in_the_middle(ranks)
    alone = play(Single()(10), biased).order
    merged = play(SelfConsistent(Single(), 200, merge, seed)(10), biased).order
    assert [ranks[p] for p in alone] != list(range(10))
    assert [ranks[p] for p in merged] == list(range(10))


def test_whole_runs_are_voted_on_too() -> None:
    ranks = worths(30)
    biased = lost_in_the_middle(ranks)
    found = [[ranks[p] for p in play(plan(30), biased).order[:5]] for plan in (Sliding(), Consensus(shuffles=200))]
    assert found[0] != list(range(5)) == found[1]


@pytest.mark.parametrize("n", SIZES)
def test_a_window_is_asked_in_so_many_orders_no_two_the_same(n: int) -> None:
    game = play(SelfConsistent(Single(20), 20)(n), as_shown)
    size = min(n, 20)
    assert game.batches == ([min(20, factorial(size))] if n > 1 else [])
    assert all(sorted(w) == list(range(size)) for w in game.windows)
    assert game.calls == (SelfConsistent(Single(20), 20).calls(n) if n > 1 else 0)
    assert game.order[size:] == list(range(size, n))


def test_seeds() -> None:
    windows = [play(SelfConsistent(Sliding(), 5, seed=seed)(30), as_shown).rounds[0] for seed in (0, 0, 1)]
    assert windows[0] == windows[1] != windows[2]
    runs = [play(Consensus(Sliding(), 5, seed=seed)(30), as_shown).rounds[0] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_every_window_of_a_plan_is_shuffled_by_itself() -> None:
    game = play(SelfConsistent(Sliding(5, 5), 3)(10), as_shown)
    low, high = game.rounds
    assert [[p - 5 for p in w] for w in low] != high


@given(n=st.integers(0, 30), seed=st.integers(), shuffles=st.integers(1, 6))
@pytest.mark.parametrize("plan", [Sliding(6, 3), TopDown(3, 7), SetwiseHeap(3, 4)], ids=str)
@pytest.mark.parametrize("merge", [Borda(), Kemeny(6)], ids=str)
@settings(deadline=None, max_examples=40)
def test_consensus_is_the_merge_of_runs_by_hand(
    plan: Planner, merge: Borda | Kemeny, n: int, seed: int, shuffles: int
) -> None:
    judge = fickle(seed)
    starts = play(Consensus(Single(50), shuffles, merge)(n), as_shown).windows  # the judge says what it was shown
    if n < 2:
        starts = [list(range(n))]
    ballots = []
    for start in starts:

        def places(window: list[int], start: list[int] = start) -> list[int]:
            return [start.index(p) for p in judge([start[i] for i in window])]

        ballots.append([start[i] for i in play(plan(n), places).order])
    assert play(Consensus(plan, shuffles, merge)(n), judge).order == merge(range(n), ballots)


def test_runs_are_in_step() -> None:
    assert play(Consensus(Sliding(), 7)(100), perfect(worths(100))).batches == [7] * 9
    assert play(SelfConsistent(Sliding(), 7)(100), perfect(worths(100))).batches == [7] * 9
    assert play(SelfConsistent(TopDown(), 7)(100), perfect(worths(100))).batches == [7, 35, 7]


def test_what_comes_up_twice_is_asked_once() -> None:
    """All runs of all pairs ask for the same windows; both orders of a pair are shuffled into both."""
    assert play(Consensus(AllPairs(), 5)(10), fickle(1)).batches == [90]
    assert play(SelfConsistent(AllPairs(), 5)(10), fickle(1)).batches == [90]


@settings(deadline=None)
@given(n=st.integers(0, 12), seed=st.integers())
def test_all_pairs_know_no_order_that_shuffles_could_change(n: int, seed: int) -> None:
    judge = fickle(seed)
    assert play(SelfConsistent(AllPairs())(n), judge).order == play(AllPairs()(n), judge).order


def test_ended_early() -> None:
    judge = perfect(worths(100))
    assert play(Consensus()(100), judge, most=5).order == list(range(100))
    assert play(SelfConsistent(Sliding())(100), judge, most=5).order == play(Sliding()(100), judge, most=5).order


def ended(plan: Planner, n: int, judge: Judge, calls: int) -> list[int]:
    left = [calls]

    def admit(_: int, windows: Windows) -> int:
        now = min(left[0], len(windows))
        left[0] -= now
        return now

    return drive([plan(n)], lambda asked: [judge(window) for _, window in asked], admit)[0]


@pytest.mark.parametrize("merge", [Borda(), Kemeny(6)], ids=str)
@pytest.mark.parametrize("calls", [1, 2, 5, 19])
def test_only_those_vote_who_were_asked(merge: Borda | Kemeny, calls: int) -> None:
    """Of twenty shuffles so many: as if there were no more."""
    judge = fickle(7)
    some = play(SelfConsistent(Single(10), calls, merge)(10), judge).order
    assert ended(SelfConsistent(Single(10), 20, merge), 10, judge, calls) == some
    some = play(Consensus(Single(30), calls, merge)(25), judge).order
    assert ended(Consensus(Single(30), 20, merge), 25, judge, calls) == some


def test_a_window_nobody_voted_on_stands_as_the_plan_showed_it() -> None:
    """The pivot's window has all its votes, and one of the five beside it."""
    ranks = worths(100)
    plan, judge = SelfConsistent(TopDown(), 4), perfect(ranks)
    first = sorted(range(20), key=ranks.__getitem__)
    better = sorted((p for p in range(20, 39) if ranks[p] < ranks[first[9]]), key=ranks.__getitem__)
    found = ended(plan, 100, judge, 8)
    assert sorted(found[: 10 + len(better)]) == sorted(first[:10] + better)
    assert [p for p in found if p >= 39] == list(range(39, 100))
    assert ended(plan, 100, judge, 5) == found  # of a perfect judge one vote is as good as four


@pytest.mark.parametrize("merge", [Borda(), Kemeny(), Kemeny(1)], ids=str)
@pytest.mark.parametrize("make", [SelfConsistent, Consensus])
def test_what_a_reply_does_not_name_is_no_vote(
    make: type[SelfConsistent] | type[Consensus], merge: Borda | Kemeny
) -> None:
    """A judge who knows three passages: they come first, and the others stay in the order they were in."""

    def knows(window: list[int]) -> Ballot:
        known = [p for p in (17, 4, 11) if p in window]
        return Ballot([*known, *(p for p in window if p not in known)], len(known))

    assert play(make(Single(20), 5, merge)(20), knows).order == [
        17,
        4,
        11,
        *(p for p in range(20) if p not in {17, 4, 11}),
    ]
    found = play(make(Sliding(6, 3), 5, merge)(20), knows).order
    rest = [p for p in found if p not in (17, 4, 11)]
    assert found[:3] == [17, 4, 11]
    assert rest == sorted(rest)


def test_a_window_of_one_passage_names_nobody() -> None:
    """The last of each run has one, of 11 passages in windows of 5."""
    assert play(Consensus(Sliding(5, 5), 3)(11), lambda window: Ballot(window, 0)).order == list(range(11))


def test_runs_that_were_refused_a_window_say_nothing() -> None:
    judge = fickle(2)
    assert ended(Consensus(Sliding(6, 3), 5), 20, judge, 7) == list(range(20))
    whole = play(Consensus(Sliding(6, 3), 5)(20), judge)
    assert ended(Consensus(Sliding(6, 3), 5), 20, judge, whole.calls) == whole.order
    last = whole.calls - whole.batches[-1]
    one = ended(Consensus(Sliding(6, 3), 5), 20, judge, last + 1)
    assert one == play(Consensus(Sliding(6, 3), 1)(20), judge).order
