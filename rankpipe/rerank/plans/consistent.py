"""Permutation self-consistency (Tang et al. 2024): ask in many shuffled orders and merge the answers.

"Found in the Middle: Permutation Self-Consistency Improves Listwise Ranking in Large Language Models", NAACL 2024,
Section 2: what a model says because of where a passage stood differs from shuffle to shuffle, what it says because of
the passage does not. The paper merges by Kemeny's rule and takes 20 shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from random import Random

from rankpipe.rerank.plans.merge import Kemeny, Merge
from rankpipe.rerank.plans.nested import Answers, ask, judged, over, together
from rankpipe.rerank.plans.plan import AsShown, Ballot, Plan, Planner, Round, Windows, at_least, voted
from rankpipe.rerank.plans.windows import Single, Sliding


@dataclass(frozen=True)
class SelfConsistent:
    """Every window of the plan in ``shuffles`` orders, all in one round; the plan is sent what they merge to.

    At most ``shuffles`` times as many calls as the plan has: a short window is asked once in each of its orders (2 for
    a pair). With a perfect judge what the plan promises. The paper's shuffles may be the same by chance, ours are not.
    Where a budget allows some of a window's shuffles, they decide. What a reply does not name is no vote (see
    :mod:`~rankpipe.rerank.plans.merge`): what no reply names stays behind the others, as the plan showed it.

    :param plan: whose windows are shuffled.
    :param shuffles: orders that a window is asked in, at most.
    :param merge: makes one order of many: ``kemeny`` or ``borda``.
    :param seed: of the shuffles.
    """

    plan: Planner = Single()  # noqa: RUF009  frozen
    shuffles: int = 20
    merge: Merge = Kemeny()  # noqa: RUF009  frozen
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, shuffles=self.shuffles)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: the rounds of the plan inside it, each window many times."""
        random = Random(self.seed)

        def judge(asked: Round) -> Answers:
            shuffled = [_shuffled(window, self.shuffles, random) for window in asked.windows]
            ballots = iter((yield from ask([order for orders in shuffled for order in orders], asked.order)))
            return [
                self._merged(window, [next(ballots) for _ in orders])
                for window, orders in zip(asked.windows, shuffled, strict=True)
            ]

        return judged(self.plan(n), judge)

    def _merged(self, window: list[int], ballots: Windows) -> list[int]:
        """What those say that were asked."""
        if all(isinstance(ballot, AsShown) for ballot in ballots):
            return AsShown(window)
        return Ballot(self.merge(window, ballots), len({p for ballot in ballots for p in voted(ballot)}))

    @property
    def best_only(self) -> bool:
        """As the plan."""
        return self.plan.best_only

    def calls(self, n: int) -> int:
        """At most ``min(shuffles, n!)`` times the plan's."""
        return min(self.shuffles, factorial(n)) * self.plan.calls(n)


@dataclass(frozen=True)
class Consensus:
    """The whole plan over ``shuffles`` orders of the list, side by side; what they find is merged at the end.

    At most ``shuffles`` times as many calls as the plan has, in as many rounds as it has; a window that comes up twice
    in a round is asked once. Ended early the list stays as it is, for a shuffle half sorted says nothing; ended in the
    last round, those runs are merged that came to their end. With a perfect judge what the plan finds in any order
    comes first, as all runs agree on it. A run's vote are those that its replies named, in the order it found; the
    others are where its shuffle left them, which is no vote. A plan that looks at the top only (single) would be shown
    other passages in each run: give it no more than its size (the reranker's ``depth``).

    :param plan: what is done over each order.
    :param shuffles: orders of the list.
    :param merge: makes one order of many: ``kemeny`` or ``borda``.
    :param seed: of the shuffles.
    """

    plan: Planner = Sliding()  # noqa: RUF009  frozen
    shuffles: int = 20
    merge: Merge = Kemeny()  # noqa: RUF009  frozen
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, shuffles=self.shuffles)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: all runs in step, then one merge."""
        present = list(range(n))
        runs = [over(self.plan, order) for order in _shuffled(present, self.shuffles, Random(self.seed))]
        ballots = yield from together(runs, present)
        return self.merge(present, ballots)

    @property
    def best_only(self) -> bool:
        """As the plan."""
        return self.plan.best_only

    def calls(self, n: int) -> int:
        """At most ``min(shuffles, n!)`` times the plan's."""
        return min(self.shuffles, factorial(n)) * self.plan.calls(n)


def _shuffled(window: Sequence[int], count: int, random: Random) -> list[tuple[int, ...]]:
    """So many different orders of a window, or all if there are no more."""
    if factorial(len(window)) <= count:
        return list(permutations(window))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(random.sample(window, len(window)))] = None
    return list(found)
