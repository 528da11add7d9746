"""Make one order of many over the same passages: Borda and Kemeny.

A ballot may name only some of them (:class:`~rankpipe.rerank.plans.plan.Ballot`). It is a top list, then, as in Fagin,
Kumar and Sivakumar 2003 ("Comparing Top k Lists", SIAM Journal on Discrete Mathematics 17): who is named is before all
who are not, and of two who are not named it says nothing. One that names nobody changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankpipe.errors import RecipeError
from rankpipe.rerank.plans.plan import Windows, at_least, voted

Ahead = list[list[int]]  # ahead[a][b]: how many ballots put a before b


class Merge(Protocol):
    """Makes one order of many."""

    def __call__(self, present: Sequence[int], ballots: Windows) -> list[int]:
        """The order that stands for all ballots; of equals, as they are at present."""
        ...


@dataclass(frozen=True)
class Borda:
    """By mean place in the ballots; those that a ballot does not name share the mean of the places that are left (the
    mid-ranks of Kendall 1945, "The Treatment of Ties in Ranking Problems", Biometrika 33).
    """

    def __call__(self, present: Sequence[int], ballots: Windows) -> list[int]:
        """Falling worth: the sum of places from the end."""
        places = dict.fromkeys(present, 0.0)
        for ballot in ballots:
            told = len(voted(ballot))
            for place, p in enumerate(ballot):
                places[p] += place if place < told else (told + len(ballot) - 1) / 2
        return sorted(present, key=places.__getitem__)


@dataclass(frozen=True)
class Kemeny:
    """The order that fewest ballots contradict, counted by pairs: the least sum of Kendall's tau distances.

    The passages fall into groups such that everyone in a group is put before everyone in a later one by most of the
    ballots that tell the two apart; the best order keeps the groups apart (the extended Condorcet criterion, Truchon
    1998), so that each is solved alone. A group of ``exact`` or fewer is solved exactly, by dynamic programming over
    its subsets (12 take some hundredths of a second, each one more doubles that); of equally good orders it is the
    first by the dictionary, the present order being the alphabet. A larger group starts from Borda's order, which is
    at most 5 times as bad as the best one (Coppersmith, Fleischer and Rudra 2006; two that a ballot does not tell apart
    count half, whatever the order), and single passages are moved while that helps.

    :param exact: passages of a group that is solved exactly, at most; 16 or less.
    """

    exact: int = 12

    def __post_init__(self) -> None:
        at_least(1, exact=self.exact)
        if self.exact > 16:
            raise RecipeError([f"{self}: exact must be 16 or less, as it takes 2^exact steps and places in memory"])

    def __call__(self, present: Sequence[int], ballots: Windows) -> list[int]:
        """Group after group."""
        ahead = _ahead(present, ballots)
        order = [a for group in _groups(ahead) for a in (_exact if len(group) <= self.exact else _near)(group, ahead)]
        return [present[a] for a in order]


def _ahead(present: Sequence[int], ballots: Windows) -> Ahead:
    ahead = [[0] * len(present) for _ in present]
    index = {p: a for a, p in enumerate(present)}
    for ballot in ballots:
        for place, p in enumerate(voted(ballot)):
            row = ahead[index[p]]
            for q in ballot[place + 1 :]:
                row[index[q]] += 1
    return ahead


def _groups(ahead: Ahead) -> Iterator[list[int]]:
    """The strong components of "not behind for most", best first, members as at present.

    Ordered by how many a member is not behind, components are stretches; one ends where nobody after it reaches back.
    """
    n = range(len(ahead))
    behind = [[b for b in n if b != a and ahead[b][a] >= ahead[a][b]] for a in n]  # b is not behind a
    order = sorted(n, key=lambda a: len(behind[a]))
    place = {a: i for i, a in enumerate(order)}
    start = end = 0
    for i, a in enumerate(order):
        end = max([end, i, *(place[b] for b in behind[a])])
        if i == end:
            yield sorted(order[start : i + 1])
            start = i + 1


def _exact(group: list[int], ahead: Ahead) -> list[int]:
    """Held and Karp's way: the best order of a set begins with the one whose cost and the rest's best are least."""
    n = len(group)
    cost = [[0] * (1 << n) for _ in group]  # cost[a][set]: contradictions if a stands before the set
    for a, row in zip(group, cost, strict=True):
        for members in range(1, 1 << n):
            lowest = (members & -members).bit_length() - 1
            row[members] = row[members & (members - 1)] + ahead[group[lowest]][a]
    least = [0] * (1 << n)
    first = [0] * (1 << n)
    for members in range(1, 1 << n):
        inside = [a for a in range(n) if members >> a & 1]
        first[members] = min(inside, key=lambda a: cost[a][members ^ 1 << a] + least[members ^ 1 << a])
        rest = members ^ 1 << first[members]
        least[members] = cost[first[members]][rest] + least[rest]
    order, members = list[int](), (1 << n) - 1
    while members:
        order.append(group[first[members]])
        members ^= 1 << first[members]
    return order


def _near(group: list[int], ahead: Ahead) -> list[int]:
    """From Borda's order, move one at a time to its best place until nobody's move helps."""
    order = sorted(group, key=lambda a: sum(ahead[b][a] - ahead[a][b] for b in group))
    moved = True
    while moved:
        moved = False
        for a in group:
            here = order.index(a)
            others = order[:here] + order[here + 1 :]
            costs = [0]  # of standing at each place, beside that of standing first
            for b in others:
                costs.append(costs[-1] + ahead[a][b] - ahead[b][a])
            there = min(range(len(costs)), key=lambda i: (costs[i], i))
            if costs[there] < costs[here]:
                order, moved = [*others[:there], a, *others[there:]], True
    return order
