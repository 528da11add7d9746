"""How to sort a long list with a model that sees only a few passages at a time.

A plan is a generator. It yields rounds: windows (lists of positions) that may be judged together, and the whole order
as far as it is known, so that a plan can be ended at any time. It is sent each window's positions best first, and
returns the whole order. It knows nothing of models, prompts or batching. Of budgets it need not know: a window that
there is no call for is sent as it was shown, as if the judge agreed, and that round is the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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


class Ballot(list[int]):
    """A window's order of which the judge said only the first ``told`` places; the others follow as they were shown,
    or are in no order at all. For plans that count votes: what was not said is none.
    """

    def __init__(self, order: Iterable[int], told: int) -> None:
        super().__init__(order)
        self.told = told


class AsShown(Ballot):
    """A window that was not asked, as it was shown."""

    def __init__(self, window: Iterable[int]) -> None:
        super().__init__(window, 0)


def voted(order: list[int]) -> list[int]:
    """What a judge really said, best first: all of a plain order, the beginning of a :class:`Ballot`."""
    return order[: order.told] if isinstance(order, Ballot) else order


def drive(
    plans: Sequence[Plan],
    judge: Callable[[list[tuple[int, list[int]]]], Windows],
    admit: Callable[[int, Windows], int] = lambda _, windows: len(windows),
    each: Callable[[Callable[[int], Windows], Iterable[int]], Iterable[Windows]] = map,
) -> Windows:
    """Run many plans to their end in step, so that all windows waiting at once are judged as one batch.

    A window of one passage has one order: it is answered here and costs no call.

    :param plans: one for each query.
    :param judge: takes (which plan, window) pairs, gives each window best first.
    :param admit: takes a plan's number and the windows that it waits for, and says how many of them, the first ones
        first, may be asked now; then it is told the rest. None of them: the plan ends with what it knows.
    :param each: how plans are taken one step further, such as several at once (a pool's ``map``).
    :return: one order for each plan.
    """
    games = [_Game(plan) for plan in plans]

    def step(i: int) -> Windows:
        return games[i].next(partial(admit, i))

    while asked := [(i, window) for i, now in enumerate(each(step, range(len(games)))) for window in now]:
        for (i, window), reply in zip(asked, judge(asked), strict=True):
            games[i].said[tuple(window)] = reply
    return [game.order for game in games]


class _Game:
    """A plan, and what was said to the round it has come to."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.order, self.over = plan, list[int](), False
        self.waiting: Windows = []
        self._send(None)

    def next(self, admit: Callable[[Windows], int]) -> Windows:
        """The windows to be asked now; none if the plan has ended."""
        while not self.over:
            if not self.waiting:
                self._send([self.said[tuple(window)] for window in self.round.windows])
            elif now := self.waiting[: admit(self.waiting)]:
                self.waiting = self.waiting[len(now) :]
                return now
            else:
                self._end()
        return []

    def _send(self, replies: Windows | None) -> None:
        """Go on to the next round, or to the end."""
        try:
            self.round = self.plan.send(replies)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as done:
            self.order, self.over = done.value, True
            return
        self.said = {tuple(window): window for window in self.round.windows if len(window) < 2}
        self.waiting = [window for window in self.round.windows if len(window) > 1]

    def _end(self) -> None:
        """What the plan makes of a round that was asked in part; its order so far if nothing was."""
        if any(len(window) > 1 for window in self.said):
            self._send([self.said.get(tuple(window), AsShown(window)) for window in self.round.windows])
        if not self.over:
            self.plan.close()
            self.order, self.over = self.round.order, True


def at_least(least: int, **values: int) -> None:
    """Refuse sizes and counts that no plan can work with.

    :raises ValueError: If a value is below ``least``; says which.
    """
    for name, value in values.items():
        if value < least:
            raise RecipeError([f"{name}={value}: must be {least} or more"])
