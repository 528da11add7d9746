"""How to sort a long list with a model that sees only a few passages at a time.

A plan is a generator. It yields rounds: windows (lists of positions) that may be judged together, and the whole order
as far as it is known, so that a plan can be ended at any time. It is sent each window's positions best first, and
returns the whole order. It knows nothing of models, prompts or batching.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankpipe.errors import RecipeError

Windows = list[list[int]]


@dataclass(frozen=True, slots=True)
class Round:
    """What a plan asks for next, and what it would answer if it were not told."""

    windows: Windows  # no two of them the same
    order: list[int]  # all positions, the best order so far


Plan = Generator[Round, Windows, list[int]]


class Planner(Protocol):
    """Makes the plan for a list of n."""

    def __call__(self, n: int) -> Plan:
        """A fresh plan."""
        ...

    @property
    def best_only(self) -> bool:
        """Whether only the first of each window counts, so that a prompt may ask for no more than that."""
        ...

    def calls(self, n: int) -> int:
        """How many windows of two or more the plan asks for; at most, where the answers decide."""
        ...


def drive(
    plans: Sequence[Plan],
    judge: Callable[[list[tuple[int, list[int]]]], Windows],
    admit: Callable[[int, Windows], bool] = lambda _, __: True,
) -> Windows:
    """Run many plans to their end in step, so that all windows waiting at once are judged as one batch.

    A window of one passage has one order: it is answered here and costs no call.

    :param plans: one for each query.
    :param judge: takes (which plan, window) pairs, gives each window best first.
    :param admit: whether a plan may ask for these windows; one that may not ends with the order it has so far.
    :return: one order for each plan.
    """
    orders: Windows = [[] for _ in plans]
    waiting: dict[int, Windows] = {}

    def resume(i: int, reply: Windows | None) -> None:
        waiting.pop(i, None)
        try:
            asked = plans[i].send(reply)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as done:
            orders[i] = done.value
            return
        real = [w for w in asked.windows if len(w) > 1]
        if real and not admit(i, real):
            plans[i].close()
            orders[i] = asked.order
        else:
            waiting[i] = asked.windows

    for i in range(len(plans)):
        resume(i, None)
    while waiting:
        pairs = [(i, w) for i, windows in waiting.items() for w in windows if len(w) > 1]
        replies = iter(judge(pairs) if pairs else [])
        for i, windows in list(waiting.items()):
            resume(i, [next(replies) if len(w) > 1 else w for w in windows])
    return orders


def at_least(least: int, **values: int) -> None:
    """Refuse sizes and counts that no plan can work with.

    :raises ValueError: If a value is below ``least``; says which.
    """
    for name, value in values.items():
        if value < least:
            raise RecipeError([f"{name}={value}: must be {least} or more"])
