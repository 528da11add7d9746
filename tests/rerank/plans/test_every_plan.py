"""What holds for every plan: nobody is lost, it can be ended at any time, it keeps its word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rankpipe.catalog import CATALOG, find
from rankpipe.errors import RecipeError
from rankpipe.rerank.plans import (
    AllPairs,
    Ballot,
    Borda,
    Consensus,
    Kemeny,
    MultiPass,
    PairwiseBubble,
    PairwiseHeap,
    Planner,
    SelfConsistent,
    SetwiseBubble,
    SetwiseHeap,
    SetwiseInsertion,
    ShuffledPasses,
    Single,
    Sliding,
    TopDown,
    Tournament,
    Windows,
    drive,
)
from tests.rerank.plans.judges import SIZES, Judge, as_shown, backward, fickle, malicious, perfect, play, worths

PLANS: list[
    tuple[Planner, int, int | None]
] = [  # plan, size of its largest window, how many it finds (None: see tests)
    (Single(), 20, None),
    (Sliding(), 20, 10),
    (Sliding(8, 3), 8, 5),
    (Tournament(), 20, 10),
    (Tournament(6, 5), 6, 5),
    (TopDown(), 20, None),
    (TopDown(3, 5, None), 5, 3),
    (TopDown(1, 2, None), 2, 1),
    (TopDown(10, 20, None), 20, 10),
    (TopDown(4, 9, 4), 9, None),
    (MultiPass(), 20, 10),
    (MultiPass(Sliding(4, 2), 5), 4, 10),
    (MultiPass(SetwiseHeap(3, 4), 2), 4, 3),
    (ShuffledPasses(), 20, 10),
    (ShuffledPasses(TopDown(5, 9, None), 2, seed=7), 9, 5),
    (SetwiseHeap(), 3, 10),
    (SetwiseHeap(1, 3), 3, 1),
    (SetwiseHeap(100, 10), 10, 100),
    (SetwiseBubble(), 3, 10),
    (SetwiseBubble(4, 10), 10, 4),
    (SetwiseBubble(200, 2), 2, 100),
    (SetwiseInsertion(), 3, 10),
    (SetwiseInsertion(1, 3), 3, 1),
    (SetwiseInsertion(7, 10), 10, 7),
    (SetwiseInsertion(200, 4), 4, 100),
    (AllPairs(), 2, 100),
    (PairwiseHeap(), 2, 10),
    (PairwiseHeap(100), 2, 100),
    (PairwiseBubble(), 2, 10),
    (SelfConsistent(), 20, None),
    (SelfConsistent(Sliding(6, 3), 4, Borda()), 6, 3),
    (SelfConsistent(PairwiseBubble(3), 3, Kemeny(1)), 2, 3),
    (SelfConsistent(SelfConsistent(SetwiseHeap(2, 4), 3), 2), 4, 2),
    (Consensus(), 20, 10),
    (Consensus(SetwiseHeap(5, 9), 7, Borda(), seed=3), 9, 5),
    (Consensus(PairwiseHeap(5), 3), 2, 5),
    (Consensus(MultiPass(TopDown(5, 9, None), 2), 3), 9, 5),
]
EXACT = [  # plans whose calls are the formula whatever the answers are
    Single(), Sliding(), Sliding(8, 3), Tournament(), Tournament(6, 5), AllPairs(), MultiPass(), ShuffledPasses(),
    MultiPass(AllPairs(), 2),
]  # fmt: skip
plans = pytest.mark.parametrize(("plan", "size", "found"), PLANS, ids=[str(p) for p, _, _ in PLANS])


def judges(n: int) -> list[Judge]:
    return [perfect(worths(n)), malicious(n), malicious(n + 1), fickle(n), backward, as_shown]


@plans
@pytest.mark.parametrize("n", SIZES)
def test_nobody_is_lost_or_doubled_whatever_the_judge_says(plan: Planner, size: int, found: int | None, n: int) -> None:
    everybody = list(range(n))
    for judge in judges(n):
        game = play(plan(n), judge)
        assert sorted(game.order) == everybody
        assert all(sorted(order) == everybody for order in game.so_far)
        assert game.so_far[:1] in ([], [everybody])  # before the first answer nothing has changed
        assert game.calls <= plan.calls(n)
        for windows in game.rounds:
            assert len(set(map(tuple, windows))) == len(windows), "a window twice in a round"
            assert all(2 <= len(w) <= size and len(set(w)) == len(w) for w in windows)


@plans
@pytest.mark.parametrize("n", SIZES)
def test_a_perfect_judge_gets_what_is_promised(plan: Planner, size: int, found: int | None, n: int) -> None:
    for seed in range(4) if found else []:
        ranks = worths(n, seed)
        order = play(plan(n), perfect(ranks)).order
        assert [ranks[p] for p in order[:found]] == list(range(min(n, found or 0)))


@pytest.mark.parametrize("plan", EXACT, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_calls_that_no_answer_decides(plan: Planner, n: int) -> None:
    assert [play(plan(n), judge).calls for judge in judges(n)] == [plan.calls(n)] * 6


@plans
@pytest.mark.parametrize("n", [2, 10, 21, 25])
def test_a_plan_can_be_ended_after_any_round(plan: Planner, size: int, found: int | None, n: int) -> None:
    judge = perfect(worths(n))
    whole = play(plan(n), judge)
    for most, so_far in enumerate(whole.so_far):
        asked = [0]

        def admit(_: int, windows: Windows, asked: list[int] = asked, most: int = most) -> int:
            asked[0] += 1
            return len(windows) if asked[0] <= most else 0

        [order] = drive([plan(n)], lambda pairs: [judge(window) for _, window in pairs], admit)
        real = [i for i, windows in enumerate(whole.rounds) if windows]
        assert order == (so_far if real == list(range(len(real))) else order)
        assert sorted(order) == list(range(n))


@plans
@pytest.mark.parametrize("n", [2, 10, 21, 25])
def test_a_plan_can_be_ended_within_a_round(plan: Planner, size: int, found: int | None, n: int) -> None:
    """All calls there are get used, for the first windows of a round, and nobody is lost by the others."""
    judge = perfect(worths(n))
    whole = play(plan(n), judge)
    for most in {*range(7), whole.calls // 2, whole.calls - 1, whole.calls}:
        asked: Windows = []

        def said(pairs: list[tuple[int, list[int]]], asked: Windows = asked) -> Windows:
            asked += [window for _, window in pairs]
            return [judge(window[:]) for _, window in pairs]

        def admit(_: int, windows: Windows, asked: Windows = asked, most: int = most) -> int:
            return min(len(windows), most - len(asked))

        [order] = drive([plan(n)], said, admit)
        assert asked == whole.windows[:most]
        assert sorted(order) == list(range(n))
        assert most < whole.calls or order == whole.order
        assert most > 0 or order == list(range(n))


@pytest.mark.parametrize("plan", [AllPairs(), PairwiseHeap(3), PairwiseBubble(3), PairwiseHeap(9)], ids=str)
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_half_a_duel_tells_nothing(plan: Planner, n: int) -> None:
    """A judge who always takes the passage that is shown second changes nothing, however many calls there are."""
    for most in range(plan.calls(n) + 1):
        left = [most]

        def admit(_: int, windows: Windows, left: list[int] = left) -> int:
            now = min(left[0], len(windows))
            left[0] -= now
            return now

        assert drive([plan(n)], lambda asked: [window[::-1] for _, window in asked], admit) == [list(range(n))], most


@pytest.mark.parametrize("plan", [AllPairs(), PairwiseHeap(3), PairwiseBubble(3)], ids=str)
def test_a_duel_that_was_answered_once_tells_nothing(plan: Planner) -> None:
    def judge(window: list[int]) -> list[int]:
        return Ballot(window[::-1], 1) if window[0] < window[1] else Ballot(window, 0)

    assert play(plan(7), judge).order == list(range(7))


@plans
def test_a_round_may_be_asked_bit_by_bit(plan: Planner, size: int, found: int | None) -> None:
    batches: list[int] = []

    def said(pairs: list[tuple[int, list[int]]]) -> Windows:
        batches.append(len(pairs))
        return [fickle(3)(window) for _, window in pairs]

    [order] = drive([plan(25)], said, lambda _, windows: min(len(windows), 3))
    game = play(plan(25), fickle(3))
    assert order == game.order
    assert batches == [size for batch in game.batches for size in [3] * (batch // 3) + [batch % 3] * (batch % 3 > 0)]


@plans
def test_the_same_again(plan: Planner, size: int, found: int | None) -> None:
    first, second = (play(plan(30), fickle(5)) for _ in range(2))
    assert (first.order, first.rounds, first.so_far) == (second.order, second.rounds, second.so_far)


@pytest.mark.parametrize(
    "plan",
    [p for p, _, _ in PLANS if not isinstance(p, ShuffledPasses | SelfConsistent | Consensus)],
    ids=str,
)
@pytest.mark.parametrize("n", SIZES)
def test_a_judge_who_cannot_tell_changes_nothing(plan: Planner, n: int) -> None:
    assert play(plan(n), as_shown).order == list(range(n))


@plans
@pytest.mark.parametrize("n", SIZES)
def test_a_judge_who_names_nobody_changes_nothing(plan: Planner, size: int, found: int | None, n: int) -> None:
    """Whatever was shuffled: where a passage was shown is no vote."""
    assert play(plan(n), lambda window: Ballot(window, 0)).order == list(range(n))


@plans
def test_a_ballot_that_names_all_is_an_order(plan: Planner, size: int, found: int | None) -> None:
    whole = play(plan(25), lambda window: Ballot(fickle(3)(window), len(window)))
    assert whole.order == play(plan(25), fickle(3)).order


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("single", 1), ("sliding", 9), ("tournament", 9), ("top-down", 7), ("multipass", 27), ("shuffled-passes", 27),
        ("setwise-heap", 151), ("setwise-bubble", 475), ("setwise-insertion", 474), ("all-pairs", 9900),
        ("pairwise-heap", 604), ("pairwise-bubble", 1890), ("self-consistent", 20), ("consensus", 180),
    ],
)  # fmt: skip
def test_calls_for_100_by_default(name: str, calls: int) -> None:
    assert find(name)().calls(100) == calls
    assert CATALOG[name].target.startswith("rankpipe.rerank.plans:")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: SetwiseHeap(0), "k=0: must be 1 or more"),
        (lambda: SetwiseHeap(10, 2), "size=2: must be 3 or more"),
        (lambda: SetwiseBubble(0), "k=0"),
        (lambda: SetwiseBubble(10, 1), "size=1: must be 2 or more"),
        (lambda: PairwiseHeap(0), "k=0"),
        (lambda: PairwiseBubble(0), "k=0"),
        (lambda: TopDown(0), "k=0"),
        (lambda: TopDown(20, 20), "k must be less than size"),
        (lambda: TopDown(10, 20, 9), "budget must be k or more"),
        (lambda: MultiPass(passes=0), "passes=0"),
        (lambda: ShuffledPasses(passes=0), "passes=0"),
        (lambda: SelfConsistent(shuffles=0), "shuffles=0"),
        (lambda: Consensus(shuffles=0), "shuffles=0"),
        (lambda: Kemeny(0), "exact=0"),
        (lambda: Kemeny(17), "exact must be 16 or less"),
    ],
)
def test_plans_that_cannot_work(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        wrong()
