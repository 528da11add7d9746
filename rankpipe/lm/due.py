"""How long an answer is worth waiting for. A budget of seconds says so, and who asks a server heeds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_patience: ContextVar[float | None] = ContextVar("patience", default=None)


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """What is asked inside may take so long, counted from the answer before it; None is no limit."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def patience() -> float | None:
    """The seconds."""
    return _patience.get()
