"""Setwise plans (Zhuang et al. 2024): which of a few passages is the best one?

"A Setwise Approach for Effective and Highly Efficient Zero-shot Ranking with Large Language Models", SIGIR 2024, 3.2
and Figure 2. Only the first of each reply counts, so that a prompt that asks for the best one alone (``setwise``) is
enough. With a perfect judge the first ``k`` are exact. ``size`` is the paper's c, of which its main results have 3; its
published code counts the children, one less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rankpipe.rerank.plans.plan import Plan, Round, Windows, at_least
from rankpipe.rerank.plans.topk import bubble, bubble_matches, heap, heap_matches, insertion, insertion_matches


@dataclass(frozen=True)
class SetwiseHeap:
    """Heap sort whose nodes have ``size - 1`` children: a window is a node and its children.

    At most a window for each step down: from all nodes to the leaves to build the heap, about n / (size - 2), and from
    the root to a leaf for each of the k - 1 next ones, about log n to the base size - 1. At n = 100: 151; the paper's
    models took 125 (Table 2). The others stay in their old order, as in the published code.

    We deviate: passages are shown in their old order, not the parent first; and the windows of a level are one round.

    :param k: how many of the best are to be found.
    :param size: passages of a window, the paper's c.
    """

    best_only: ClassVar[bool] = True
    k: int = 10
    size: int = 3

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        at_least(3, size=self.size)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: the heap level by level from the bottom, then one way down for each next best."""
        return heap(n, self.k, self.size - 1, _Best())

    def calls(self, n: int) -> int:
        """At most the heights of all nodes, and of the root k - 1 times, in a heap that loses one each time."""
        return heap_matches(n, self.k, self.size - 1)


@dataclass(frozen=True)
class SetwiseBubble:
    """Bubble sort with windows of ``size`` that overlap in one: the best of each changes places with its first.

    At most the sum of ceil((n - 1 - i) / (size - 1)) calls, i from 0 to k - 1; a window that was asked before is not
    asked again (the published code skips them from the bottom up to the first change). The windows of later passes
    that need not wait are in the rounds of earlier ones.

    We deviate: those after k stay where the bubbles left them; the published code puts them back in their old order.

    :param k: how many of the best are to be found.
    :param size: passages of a window, the paper's c.
    """

    best_only: ClassVar[bool] = True
    k: int = 10
    size: int = 3

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        at_least(2, size=self.size)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: k passes from the bottom up, two windows behind each other."""
        return bubble(n, self.k, self.size - 1, _Best())

    def calls(self, n: int) -> int:
        """At most ``ceil((n - 1 - i) / (size - 1))`` for each pass i."""
        return bubble_matches(n, self.k, self.size - 1)


@dataclass(frozen=True)
class SetwiseInsertion:
    """Insertion sort that trusts the given order (Podolak et al. 2025, Setwise Insertion): passages that the last of
    the best k beats cost one window for each ``size - 1`` of them.

    "Beyond Reproducibility: Advancing Zero-shot LLM Reranking Efficiency with Setwise Insertion", SIGIR 2025. At most
    the calls of heap sort for the first k, and 1 + ceil(log k) to the base 2 for each other; where the given order is
    right, ceil((n - k) / (size - 1)) for all the others. Ours is built on the paper's idea, not on its code: a
    passage's place among the k is found by halves, and a tie is the former's because it is shown first.

    :param k: how many of the best are to be found.
    :param size: passages of a window, the paper's c.
    """

    best_only: ClassVar[bool] = True
    k: int = 10
    size: int = 3

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        at_least(3, size=self.size)

    def __call__(self, n: int) -> Plan:
        """A fresh plan: heap sort of the first k, then the others from the top down, one window after the other."""
        return insertion(n, self.k, self.size - 1, _Best())

    def calls(self, n: int) -> int:
        """At most: every passage after the first k comes in."""
        return insertion_matches(n, self.k, self.size - 1)


@dataclass
class _Best:
    """Asks which of a group is best, once for each group."""

    known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def __call__(self, groups: Windows, order: list[int]) -> Plan:
        if new := [group for group in groups if tuple(group) not in self.known]:
            replies = yield Round(new, order)
            self.known |= {tuple(group): reply[0] for group, reply in zip(new, replies, strict=True)}
        return [self.known[tuple(group)] for group in groups]
