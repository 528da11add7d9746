"""Reranking that may be ended at any time: how much a query may cost, and what it has cost so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rankpipe.errors import RecipeError


@dataclass(frozen=True)
class Budget:
    """The most that one query may cost; None is no limit. Calls and tokens are never exceeded, seconds are foreseen
    from what the query's windows took so far, so that they may be by one round.

    :raises RecipeError: If a limit is below 0.
    """

    seconds: float | None = None
    calls: int | None = None
    tokens: int | None = None  # in and out, a reply at its longest

    def __post_init__(self) -> None:
        limits = {"seconds": self.seconds, "calls": self.calls, "tokens": self.tokens}
        if bad := [f"{name}: {limit}; expected 0 or more" for name, limit in limits.items() if (limit or 0) < 0]:
            raise RecipeError(bad)

    def allows(self, spent: Spent, calls: int, tokens: int) -> bool:
        """Whether a query that has spent so much may ask for so many windows, with so many tokens, more."""
        expected_s = spent.seconds + calls * (spent.seconds / spent.calls if spent.calls else 0.0)
        return (
            (self.calls is None or spent.calls + calls <= self.calls)
            and (self.tokens is None or spent.tokens + tokens <= self.tokens)
            and (self.seconds is None or expected_s <= self.seconds)
        )


@dataclass
class Spent:
    """What one query has cost so far."""

    seconds: float = 0.0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    repaired: int = 0
    skipped: int = 0
    cut: set[int] = field(default_factory=set)  # positions of passages that were shortened

    def pay(self, seconds: float, tokens_in: int, tokens_out: int, mended: bool) -> None:
        """Note one window."""
        self.seconds, self.calls, self.repaired = self.seconds + seconds, self.calls + 1, self.repaired + mended
        self.tokens_in, self.tokens_out = self.tokens_in + tokens_in, self.tokens_out + tokens_out

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.tokens_in + self.tokens_out
