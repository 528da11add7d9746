"""Top-down partitioning (Parry et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rankpipe.errors import RecipeError
from rankpipe.rerank.plans.plan import Plan, Round, at_least


@dataclass(frozen=True)
class TopDown:
    """The first window gives a pivot, its ``k``-th; the rest is compared with it, side by side; who beats it goes on.

    Parry et al. 2024, "Top-Down Partitioning for Efficient List-Wise Ranking", Algorithm 1. Where nothing beats the
    pivot but the k - 1 above it, they are the result; else the ``budget`` first of those who do are the next list, of
    which a window's size or less is one last window. At n = 100: 6 or 7 calls in 2 or 3 rounds, where sliding has 9
    calls in 9.

    With a perfect judge the first ``k`` are exact if no more than ``budget`` passages beat the pivot; with no budget
    (None) always, in more rounds. Who beats the pivot stays before it, who does not stays behind it, in any case.

    We deviate: the paper asks the windows in turn and leaves off when the budget is full; here they are one round, so
    that all are judged and the surplus stands behind the ``budget``, where the paper leaves it unseen. The last windows
    may be short; the published code of 2024 leaves a short rest unjudged.

    :param k: the pivot's place in the first window; how many are to be found.
    :param size: passages of a window, more than ``k``.
    :param budget: passages that go on, at most; all who beat the pivot if None.
    """

    best_only: ClassVar[bool] = False
    k: int = 10
    size: int = 20
    budget: int | None = 20

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        if self.k >= self.size:
            raise RecipeError([f"{self}: k must be less than size, or a window parts nobody from the pivot"])
        if self.budget is not None and self.budget < self.k:
            raise RecipeError([f"{self}: budget must be k or more, or the first k cannot all go on"])

    def __call__(self, n: int) -> Plan:
        """A fresh plan: a window, then the rest beside it, again and again while more than a window's size go on."""
        field, behind = list(range(n)), list[int]()
        while len(field) > self.size:
            [top] = yield Round([field[: self.size]], field + behind)
            better, pivot, worse, rest = top[: self.k - 1], top[self.k - 1], top[self.k :], field[self.size :]
            parts = [rest[i : i + self.size - 1] for i in range(0, len(rest), self.size - 1)]
            for ranked in (yield Round([[pivot, *part] for part in parts], top + rest + behind)):
                cut = ranked.index(pivot)
                better, worse = better + ranked[:cut], worse + ranked[cut + 1 :]
            if len(better) < self.k:
                return [*better, pivot, *worse, *behind]
            most = len(better) if self.budget is None else self.budget
            field, behind = better[:most], [*better[most:], pivot, *worse, *behind]
        if field:
            [field] = yield Round([field], field + behind)
        return field + behind

    def calls(self, n: int) -> int:
        """At most ``1 + ceil((m - size) / (size - 1))`` for each list of m > size, and 1 for the last; m is n at first,
        then no more than ``budget`` and ``m - (size - k + 1)``, as so many are at or below the pivot.
        """
        total = 0
        while n > self.size:
            total += 1 - (self.size - n) // (self.size - 1)
            n -= self.size - self.k + 1
            n = n if self.budget is None else min(n, self.budget)
        return total + (n > 1)
