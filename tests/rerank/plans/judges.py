"""Judges for plans, and a game that looks at every round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from rankpipe.rerank.plans import Plan, Windows

Judge = Callable[[list[int]], list[int]]
SIZES = [0, 1, 2, 3, 9, 10, 11, 19, 20, 21, 25, 30, 100]


@dataclass
class Game:
    """What a plan asked and found."""

    order: list[int] = field(default_factory=list)
    rounds: list[Windows] = field(default_factory=list)  # windows of one passage are left out, as they cost no call
    so_far: Windows = field(default_factory=list)

    @property
    def windows(self) -> Windows:
        return [w for windows in self.rounds for w in windows]

    @property
    def calls(self) -> int:
        return len(self.windows)

    @property
    def batches(self) -> list[int]:
        return [len(windows) for windows in self.rounds if windows]


def play(plan: Plan, judge: Judge, most: int | None = None) -> Game:
    """Run a plan to its end, or until it has asked for ``most`` rounds."""
    game = Game()
    replies: Windows | None = None
    while True:
        try:
            asked = plan.send(replies)  # type: ignore[arg-type]
        except StopIteration as done:
            game.order = done.value
            return game
        game.so_far.append(asked.order[:])
        if len(game.rounds) == most:
            plan.close()
            game.order = asked.order
            return game
        game.rounds.append([w[:] for w in asked.windows if len(w) > 1])
        replies = [judge(w[:]) if len(w) > 1 else w for w in asked.windows]


def worths(n: int, seed: int = 0) -> list[int]:
    """The true rank of each position."""
    return Random(f"{seed} {n}").sample(range(n), n)


def perfect(ranks: list[int]) -> Judge:
    return lambda window: sorted(window, key=ranks.__getitem__)


def malicious(seed: int) -> Judge:
    """Any order at all."""
    random = Random(seed)
    return lambda window: random.sample(window, len(window))


def fickle(seed: int) -> Judge:
    """Any order at all, but always the same one for the same window."""
    return lambda window: Random(hash((seed, *window))).sample(window, len(window))


def backward(window: list[int]) -> list[int]:
    return window[::-1]


def as_shown(window: list[int]) -> list[int]:
    return window
