"""The plans that everyone knows: one window, windows that slide, windows side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rankpipe.errors import RecipeError
from rankpipe.rerank.plans.plan import Plan, Round, at_least


@dataclass(frozen=True)
class Single:
    """One window over the first ``size``; the rest stays behind it as it is.

    :param size: passages of the window.
    """

    best_only: ClassVar[bool] = False
    size: int = 20

    def __post_init__(self) -> None:
        at_least(2, size=self.size)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: one window, none for an empty list."""
        head = list(range(min(n, self.size)))
        if head:
            [head] = yield Round([head], list(range(n)))
        return head + list(range(len(head), n))

    def calls(self, n: int) -> int:
        """One."""
        return int(n > 1)


@dataclass(frozen=True)
class Sliding:
    """From the bottom up, ``size`` at a time, ``step`` places further up each time (RankGPT, Sun et al. 2023, 3.2).

    The windows are RankLLM's to the edge: 25 candidates are [5, 25) and [0, 15). Its bug that leaves lists of exactly
    size - step candidates as they are is not copied. With a perfect judge the first size - step are exact.

    :param size: passages of a window.
    :param step: places from one window to the next, at most ``size``.
    """

    best_only: ClassVar[bool] = False
    size: int = 20
    step: int = 10

    def __post_init__(self) -> None:
        at_least(2, size=self.size)
        if not 1 <= self.step <= self.size:
            raise RecipeError([f"{self}: step must be 1 to size, or passages are skipped"])

    def __call__(self, n: int) -> Plan:
        """A fresh plan: 1 + ceil((n - size) / step) windows; one for a shorter list, none for an empty one."""
        order = list(range(n))
        for end in range(n, 0, -self.step):
            start = max(end - self.size, 0)
            [order[start:end]] = yield Round([order[start:end]], order[:])
            if start == 0:
                break
        return order

    def calls(self, n: int) -> int:
        """``1 + ceil((n - size) / step)``, less one if the last window holds a single passage, which is free."""
        more = max(-(-(n - self.size) // self.step), 0)
        return more + (n - more * self.step > 1)


@dataclass(frozen=True)
class Tournament:
    """Windows of ``size`` side by side; the best ``keep`` of each go on until one window is left.

    All windows of a round are one batch, where sliding ones must wait for each other. With a perfect judge the first
    ``keep`` are exact. Candidates are dealt to the windows like cards, so that good ones meet late; where they do not
    fill all windows, the first ones go on unjudged. Those who are out come after those who went on, by their place in
    their window. Near to Parry et al. 2024 (top-down partitioning), without its pivot.

    :param size: passages of a window.
    :param keep: passages of a window that go on, less than ``size``.
    """

    best_only: ClassVar[bool] = False
    size: int = 20
    keep: int = 10

    def __post_init__(self) -> None:
        at_least(2, size=self.size)
        if not 1 <= self.keep < self.size:
            raise RecipeError([f"{self}: keep must be 1 to size - 1, or the tournament never ends"])

    def __call__(self, n: int) -> Plan:
        """A fresh plan: rounds of m // size windows, m the candidates still in, and a last one over the rest."""
        field, out = list(range(n)), list[int]()
        while len(field) > self.size:
            tables, unjudged = divmod(len(field), self.size)
            ranked = yield Round([field[unjudged + table :: tables] for table in range(tables)], field + out)
            by_place = [p for places in zip(*ranked, strict=True) for p in places]  # all winners, all seconds, ...
            out = by_place[tables * self.keep :] + out
            field = field[:unjudged] + by_place[: tables * self.keep]
        if field:
            [field] = yield Round([field], field + out)
        return field + out

    def calls(self, n: int) -> int:
        """Rounds of m // size windows, m the candidates still in, and a last one."""
        total = int(n > 1)
        while n > self.size:
            tables = n // self.size
            total, n = total + tables, n - tables * (self.size - self.keep)
        return total
