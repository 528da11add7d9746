"""Borda and Kemeny against their definitions, tried on all orders there are."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankpipe.rerank.plans import Ballot, Borda, Kemeny, Windows
from rankpipe.rerank.plans.merge import Merge, _ahead, _groups
from rankpipe.rerank.plans.plan import voted
from tests.rerank.plans.judges import malicious


@st.composite
def elections(draw: st.DrawFn, most: int = 6) -> tuple[list[int], Windows]:
    """Whole ballots, and such that name only their beginning."""
    present = draw(st.lists(st.integers(0, 99), max_size=most, unique=True))
    whole = st.permutations(present)
    return present, draw(st.lists(whole | st.builds(Ballot, whole, st.integers(0, len(present))), max_size=5))


def tau(order: list[int] | tuple[int, ...], ballots: Windows) -> int:
    """In how many pairs the ballots contradict the order; two that a ballot does not name are none."""
    return sum(
        b in voted(ballot) and ballot.index(b) < ballot.index(a)
        for a, b in combinations(order, 2)
        for ballot in ballots
    )


def place(p: int, ballot: list[int]) -> float:
    """The mean of all that it may have, whatever the order of those who are not named."""
    told = voted(ballot)
    return told.index(p) if p in told else sum(range(len(told), len(ballot))) / (len(ballot) - len(told))


@settings(deadline=None)
@given(elections())
def test_kemeny_is_the_best_of_all_orders_and_the_first_of_the_best(election: tuple[list[int], Windows]) -> None:
    present, ballots = election
    # permutations come in the order of the dictionary, min takes the first
    assert Kemeny()(present, ballots) == list(min(permutations(present), key=lambda order: tau(order, ballots)))


@settings(deadline=None)
@given(elections())
def test_kemeny_in_the_large_is_near_and_nobodys_move_helps(election: tuple[list[int], Windows]) -> None:
    present, ballots = election
    order = Kemeny(exact=1)(present, ballots)
    assert sorted(order) == sorted(present)
    cost = tau(order, ballots)
    half = sum(p not in voted(b) and q not in voted(b) for p, q in combinations(present, 2) for b in ballots) / 2
    assert cost <= tau(Borda()(present, ballots), ballots) or not ballots
    assert cost + half <= 5 * (tau(Kemeny()(present, ballots), ballots) + half)
    for p in order:
        others = [q for q in order if q != p]
        assert all(cost <= tau([*others[:i], p, *others[i:]], ballots) for i in range(len(order)))


@settings(deadline=None)
@given(elections())
def test_borda_is_by_mean_place(election: tuple[list[int], Windows]) -> None:
    present, ballots = election
    order = Borda()(present, ballots)
    places = {p: sum(place(p, ballot) for ballot in ballots) for p in present}
    assert order == sorted(present, key=lambda p: (places[p], present.index(p)))


@settings(deadline=None)
@given(elections(7))
def test_groups_are_what_cannot_be_parted(election: tuple[list[int], Windows]) -> None:
    """In the same group are those who reach each other over steps of "not behind for most"."""
    present, ballots = election
    ahead = _ahead(present, ballots)
    n = range(len(present))
    reach = [[a == b or ahead[a][b] >= ahead[b][a] for b in n] for a in n]
    for c in n:
        reach = [[reach[a][b] or (reach[a][c] and reach[c][b]) for b in n] for a in n]
    groups = list(_groups(ahead))
    group = {a: i for i, members in enumerate(groups) for a in members}
    assert sorted(a for members in groups for a in members) == list(n)
    assert all((group[a] == group[b]) == (reach[a][b] and reach[b][a]) for a in n for b in n)
    assert all(ahead[a][b] > ahead[b][a] for a in n for b in n if group[a] < group[b])


@pytest.mark.parametrize("merge", [Borda(), Kemeny(), Kemeny(1)], ids=str)
def test_what_all_say(merge: Merge) -> None:
    order = [3, 1, 4, 5, 9, 2, 6]
    assert merge(sorted(order), [order] * 5) == order
    assert merge(sorted(order), [order]) == order
    assert merge(order, []) == merge(order, [Ballot([9, 1, 2, 5, 6, 3, 4], 0)]) == order
    assert merge(order, [Ballot([9, 1, 2, 5, 6, 3, 4], 2)]) == [9, 1, 3, 4, 5, 2, 6]
    assert merge([], []) == merge([], [[]]) == []
    assert merge([2, 1], [[1, 2], [2, 1]]) == [2, 1]  # a tie: as it is


def test_a_majority_cycle_is_cut_where_it_is_weakest() -> None:
    ballots = [[1, 2, 3]] * 4 + [[2, 3, 1]] * 3 + [[3, 1, 2]] * 2  # 1 > 2 by 6:3, 2 > 3 by 7:2, 3 > 1 by 5:4
    assert Kemeny()([3, 2, 1], ballots) == [1, 2, 3]


def test_borda_and_kemeny_differ() -> None:
    ballots = [[0, 1, 2]] * 3 + [[1, 2, 0]] * 2  # most put 0 first
    assert Kemeny()([0, 1, 2], ballots) == [0, 1, 2]
    assert Borda()([0, 1, 2], ballots) == [1, 0, 2]


@pytest.mark.parametrize("n", [13, 40, 100])
def test_many_passages_of_which_nobody_agrees(n: int) -> None:
    judge = malicious(n)
    ballots = [judge(list(range(n))) for _ in range(20)]
    order = Kemeny()(range(n), ballots)
    assert sorted(order) == list(range(n))
    assert tau(order, ballots) <= tau(Borda()(range(n), ballots), ballots)


def test_kemeny_in_the_large_starts_from_bordas_order_of_top_lists_too() -> None:
    """Counting only how many a passage is put before, it would begin elsewhere, and end at 16."""
    ballots = [Ballot([3, 5, 1, 0, 2, 6, 4], 6), Ballot([2, 6, 3, 4, 0, 5, 1], 3), [1, 5, 6, 2, 3, 4, 0]]
    assert tau(Kemeny(1)(range(7), ballots), ballots) == tau(Borda()(range(7), ballots), ballots) == 15


def test_a_winner_against_everybody_comes_first_however_many_there_are() -> None:
    judge = malicious(1)
    for winner in (0, 17, 49):
        ballots = [judge(list(range(50))) for _ in range(9)]
        ballots = [[winner, *(p for p in b if p != winner)] for b in ballots[:5]] + ballots[5:]
        assert Kemeny()(range(50), ballots)[0] == winner
