"""Pairwise plans (PRP, Qin et al. 2024): which of two passages is the better one?

"Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting", NAACL Findings 2024, Section 3. Each
pair is asked in both orders, in one round; answers that contradict each other are a tie, and so is a pair that a budget
did not allow in both orders, or of which a reply names neither: one answer alone would tell as much of where a passage
stood as of the passage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar

from rankpipe.rerank.plans.plan import Plan, Round, Windows, at_least, voted
from rankpipe.rerank.plans.topk import bubble, bubble_matches, heap, heap_matches


@dataclass(frozen=True)
class AllPairs:
    """PRP-Allpair: every pair, in one round of n (n - 1) calls; ordered by points, of equals the earlier one first.

    A pair won in both orders is a point, a tie half a point for both. With a perfect judge the whole order is exact,
    and it is the one plan whose result does not depend on who met whom when.
    """

    best_only: ClassVar[bool] = True

    def __call__(self, n: int) -> Plan:
        """A fresh plan: one round, none for fewer than two."""
        order = list(range(n))
        if n < 2:
            return order
        pairs = list(combinations(order, 2))
        winners = yield from _duels(pairs, order)
        halves = Counter[int]()
        for pair, winner in zip(pairs, winners, strict=True):
            halves.update(pair if winner is None else (winner, winner))
        return sorted(order, key=lambda p: -halves[p])

    def calls(self, n: int) -> int:
        """``n (n - 1)``."""
        return n * (n - 1)


@dataclass(frozen=True)
class PairwiseHeap:
    """PRP-Sorting: heap sort with pairs, for the best ``k``; with a perfect judge they are exact, with k >= n all are.

    A node and its two children take two duels of two calls, so that it is at most 4 calls for each step down: fewer
    than n steps to build the heap, and about log2 n for each of the k - 1 next ones. Of a tie the one that was first
    in the beginning is taken; no pair is asked again. The others stay in their old order.

    We deviate: the paper sorts all; with k below n we stop there, as Zhuang et al. 2024 (3.4) do. Theirs takes the
    parent of a tie, which leaves the last of all on top wherever a judge cannot tell.

    :param k: how many of the best are to be found.
    """

    best_only: ClassVar[bool] = True
    k: int = 10

    def __post_init__(self) -> None:
        at_least(1, k=self.k)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: the heap level by level from the bottom, then one way down for each next best."""
        return heap(n, self.k, 2, _Duels())

    def calls(self, n: int) -> int:
        """At most 4 for each step down, and 2 for each pair there is."""
        return min(4 * heap_matches(n, self.k, 2), n * (n - 1))


@dataclass(frozen=True)
class PairwiseBubble:
    """PRP-Sliding-K: ``k`` passes from the bottom up over neighbours; a tie keeps their order.

    At most 2 calls for each of the n - 1 - i pairs of pass i, from 0 to k - 1: k (2n - k - 1) in all for k < n. With a
    perfect judge the first ``k`` are exact. Pairs of later passes that need not wait are in the rounds of earlier ones.

    We deviate: no pair is asked again, where the paper asks 2k (n - 1) times; those after k stay where they are.

    :param k: how many of the best are to be found.
    """

    best_only: ClassVar[bool] = True
    k: int = 10

    def __post_init__(self) -> None:
        at_least(1, k=self.k)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: k passes from the bottom up, two pairs behind each other."""
        return bubble(n, self.k, 1, _Duels())

    def calls(self, n: int) -> int:
        """At most 2 for each pair of each pass."""
        return 2 * bubble_matches(n, self.k, 1)


@dataclass
class _Duels:
    """Finds the best of a group by duels in both orders, each once: of a tie, who stands first."""

    beaten: dict[tuple[int, int], bool] = field(default_factory=dict)  # (first, second): the second one is better

    def __call__(self, groups: Windows, order: list[int]) -> Plan:
        best = [group[0] for group in groups]
        for i in range(1, max(map(len, groups), default=0)):
            pairs = {g: (best[g], group[i]) for g, group in enumerate(groups) if i < len(group)}
            if new := [pair for pair in pairs.values() if pair not in self.beaten]:
                winners = yield from _duels(new, order)
                for (a, b), winner in zip(new, winners, strict=True):
                    self.beaten[a, b], self.beaten[b, a] = winner == b, winner == a
            best = [pairs[g][1] if g in pairs and self.beaten[pairs[g]] else p for g, p in enumerate(best)]
        return best


def _duels(pairs: Sequence[tuple[int, int]], order: list[int]) -> Generator[Round, Windows, list[int | None]]:
    """Who wins each pair, asked in both orders; None is a tie."""
    replies = yield Round([list(shown) for pair in pairs for shown in (pair, pair[::-1])], order)
    told = [next(iter(voted(reply)), None) for reply in replies]
    return [one if one == other else None for one, other in zip(told[::2], told[1::2], strict=True)]
