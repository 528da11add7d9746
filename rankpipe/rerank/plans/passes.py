"""Several passes of one plan."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from rankpipe.rerank.plans.merge import Borda
from rankpipe.rerank.plans.nested import over, together
from rankpipe.rerank.plans.plan import Plan, Planner, at_least
from rankpipe.rerank.plans.windows import Sliding


@dataclass(frozen=True)
class MultiPass:
    """The plan again over its own result (RankZephyr's progressive reranking, Pradeep et al. 2023: three passes).

    ``passes`` times as many calls as the plan has. With a perfect judge sliding windows bring ``size - step`` more
    passages into their right place with every pass: windows of 4, 2 apart, find the first 10 in 5 passes (Zhuang et al.
    2024, 4.2). Every pass is made, even where the one before it changed nothing.

    :param plan: what is done again.
    :param passes: how many times it is done.
    """

    plan: Planner = Sliding()  # noqa: RUF009  frozen
    passes: int = 3

    def __post_init__(self) -> None:
        at_least(1, passes=self.passes)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: pass after pass, each over the order that the one before it gave."""
        order = list(range(n))
        for _ in range(self.passes):
            order = yield from over(self.plan, order)
        return order

    @property
    def best_only(self) -> bool:
        """As the plan."""
        return self.plan.best_only

    def calls(self, n: int) -> int:
        """``passes`` times the plan's."""
        return self.passes * self.plan.calls(n)


@dataclass(frozen=True)
class ShuffledPasses:
    """The plan again over its own result, shuffled before each pass after the first (RankLLM's shuffle_candidates).

    ``passes`` times as many calls as the plan has. A shuffle forgets: of a plan that judges all passages, as sliding
    does, only the last pass counts, which tells how much a model leans on the order it is shown; what many shuffles
    say, :class:`~rankpipe.rerank.plans.Consensus` joins. A plan that looks at the top only (single) would be
    shown other passages: give it no more than its size (the reranker's ``depth``). What no reply of a pass named stays
    behind the others in the order before it, and not where the shuffle left it. Ended within a pass, the order is that
    of the last whole one. With a perfect judge what the plan finds in any order is found.

    We deviate from RankLLM, whose shuffles have no seed and come before the first pass too.

    :param plan: what is done again.
    :param passes: how many times it is done.
    :param seed: of the shuffles.
    """

    plan: Planner = Sliding()  # noqa: RUF009  frozen
    passes: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, passes=self.passes)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: pass after pass, each over a shuffle that its number and the seed decide."""
        order = yield from self.plan(n)
        for number in range(1, self.passes):
            shuffled = Random(f"{self.seed} {number}").sample(order, n)
            order = Borda()(order, (yield from together([over(self.plan, shuffled)], order)))
        return order

    @property
    def best_only(self) -> bool:
        """As the plan."""
        return self.plan.best_only

    def calls(self, n: int) -> int:
        """``passes`` times the plan's."""
        return self.passes * self.plan.calls(n)
