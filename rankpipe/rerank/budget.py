"""Reranking that may be ended at any time: how much a query may cost, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from rankpipe.data import Step
from rankpipe.errors import RecipeError
from rankpipe.lm.due import within
from rankpipe.progress import counting

T = TypeVar("T")  # what a query waits for
P = TypeVar("P")  # the same, ready to be asked
SLICE = 8  # calls of a query between two looks at its seconds


@dataclass(frozen=True)
class Budget:
    """The most that one query may cost; None is no limit, 0 is no call at all.

    Calls and tokens are never exceeded. Seconds are foreseen from what the query's calls took so far. What the first
    one takes is not known, so that it is asked alone; then they are looked at again after a few calls. They may be
    exceeded by the first call, and by what others take longer than those before them; but a server that says nothing
    for as long as a query has left is not waited for, and what it has not answered counts as an empty reply. They are a
    batch's, shared out evenly, without those in which the model is loaded; an answer that a cache gives is paid with
    the seconds it took when it was asked, so that a replay ends where the run ended (docs/decisions).

    :param seconds: a query's share of what its batch takes.
    :param calls: of the model: windows, passages or pairs.
    :param tokens: in and out, a reply at its longest, thoughts included.
    :raises RecipeError: If a limit is below 0, or no number.
    """

    seconds: float | None = None
    calls: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        limits = {"seconds": self.seconds, "calls": self.calls, "tokens": self.tokens}
        if bad := [f"{name}: {limit}; expected 0 or more" for name, limit in limits.items() if not (limit or 0) >= 0]:
            raise RecipeError(bad)

    def allows(self, spent: Spent, calls: int, tokens: int) -> bool:
        """Whether a query that has spent so much may ask for so many windows, with so many tokens, more."""
        expected_s = spent.seconds + calls * (spent.seconds / spent.asked if spent.asked else 0.0)
        return (
            (self.calls is None or spent.calls + calls <= self.calls)
            and (self.tokens is None or spent.tokens + tokens <= self.tokens)
            and (self.seconds is None or (expected_s <= self.seconds and self.seconds > 0))
        )

    def left(self, spent: Iterable[Spent]) -> float | None:
        """The seconds that the query has left that has most, of those that are asked about; None if all it likes."""
        return None if self.seconds is None else max(self.seconds - one.seconds for one in spent)

    def most(self, calls: int) -> int:
        """How many of so many calls it allows, as far as they are limited."""
        return calls if self.calls is None else min(calls, self.calls)

    def next(
        self, spent: Spent, waiting: Sequence[T], make: Callable[[T], tuple[P, int]], at_once: int = SLICE
    ) -> list[P]:
        """What a query may ask next, the first ones first: all it can pay, or a few where seconds are limited.

        :param make: makes it ready to be asked, and says how many tokens it may cost at most. Nothing is made that
            the other limits forbid.
        :param at_once: how many a few are; the first call is asked alone.
        """
        made, tokens = list[P](), 0
        for one in waiting if self.seconds is None else waiting[: at_once if spent.asked else 1]:
            if not self.allows(spent, len(made) + 1, tokens):
                break
            ready, most = make(one)
            tokens += most
            if not self.allows(spent, len(made) + 1, tokens):
                break
            made.append(ready)
        return made


@dataclass
class Spent:
    """What one query has cost so far."""

    seconds: float = 0.0
    asked: int = 0  # of what it waits for
    calls: int = 0  # of a model; fewer where not all that is asked takes one
    tokens_in: int = 0
    tokens_out: int = 0
    repaired: int = 0
    skipped: int = 0
    cut: set[int] = field(default_factory=set)  # positions of passages that were shortened

    def pay(self, seconds: float, tokens_in: int, tokens_out: int = 0, mended: int = 0, calls: int = 1) -> None:
        """Note one thing that was asked."""
        self.seconds, self.asked, self.calls = self.seconds + seconds, self.asked + 1, self.calls + calls
        self.repaired += mended
        self.tokens_in, self.tokens_out = self.tokens_in + tokens_in, self.tokens_out + tokens_out

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.tokens_in + self.tokens_out

    def step(self, stage: str) -> Step:
        """The same, for the ranking."""
        return Step(
            stage,
            calls=self.calls,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            repaired=self.repaired,
            cut=len(self.cut),
            skipped=self.skipped,
        )


def spend(
    budget: Budget,
    spent: Sequence[Spent],
    waiting: Sequence[Sequence[T]],
    make: Callable[[int, T], tuple[P, int]],
    ask: Callable[[list[P]], None],
    at_once: int = SLICE,
) -> None:
    """Ask all that queries wait for as far as each one's budget allows, and count what it does not (``skipped``).

    What all queries may ask next is one batch.

    :param waiting: of each query, what costs a call each, or none.
    :param make: as of :meth:`Budget.next`; it is told which query it is.
    :param ask: asks, and pays each.
    """

    def next_of(q: int) -> list[P]:
        rest = waiting[q][spent[q].asked :]
        if spent[q].skipped or not rest:
            return []
        made = budget.next(spent[q], rest, partial(make, q), at_once)
        spent[q].skipped = 0 if made else len(rest)
        return made

    while asked := {q: made for q in range(len(waiting)) if (made := next_of(q))}:
        calls = [one for made in asked.values() for one in made]
        with counting("calls", len(calls)), within(budget.left(spent[q] for q in asked)):
            ask(calls)
