"""Long work says how far it is; whoever listens (the command line does) shows it. Silent unless somebody listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Listener(Protocol):
    """Shows progress."""

    def track(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        """Pass the items on, showing how many have passed."""
        ...

    def working(self, label: str) -> AbstractContextManager[None]:
        """Show that something goes on for as long as the block does."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Everything inside reports to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """Pass ``items`` on, telling the listener, if there is one.

    :param total: how many there are; taken from ``len(items)`` where it has one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    listener = _listener.get()
    return listener.track(items, label, total) if listener else items


def working(label: str) -> AbstractContextManager[None]:
    """Around one long step that cannot be counted: tells the listener, if there is one."""
    listener = _listener.get()
    return listener.working(label) if listener else nullcontext()
