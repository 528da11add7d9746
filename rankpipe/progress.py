"""Long work says how far it is; whoever listens (the command line does) shows it. Silent unless somebody listens.

From Python, with bars on a terminal, and a line now and then elsewhere::

    with listening(Shown()):  # rankpipe.cli.shown
        rankings = list(pipeline(queries))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")
Told = Callable[[int], None]  # that so many more are done


class Listener(Protocol):
    """Shows progress."""

    def counting(self, label: str, total: int | None) -> AbstractContextManager[Told]:
        """Show how many of ``total`` are done, for as long as the block lasts."""
        ...

    def working(self, label: str) -> AbstractContextManager[None]:
        """Show that something goes on for as long as the block does."""
        ...

    def notice(self, text: str) -> None:
        """Show something that happened on the way."""
        ...


class Count:
    """Work that is under way, and who is told of it."""

    def __init__(self, total: int, told: Told) -> None:
        self.left, self._told = total, told

    def done(self, more: int) -> None:
        """So much more; never more than there is."""
        more = min(more, self.left)
        self.left -= more
        self._told(more)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_count: ContextVar[Count | None] = ContextVar("count", default=None)


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
    return _tracked(listener, items, label, total) if listener else items


def _tracked(listener: Listener, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    with listener.counting(label, total) as told:
        for item in items:
            yield item
            told(1)


@contextmanager
def counting(label: str, total: int) -> Iterator[None]:
    """Work in ``total`` parts; who does them inside says :func:`done`. What nobody has said at the end was not needed,
    and is done, too.

    Inside other such work it is a part of that, and is shown as that only: a reranker counts its windows once,
    whatever a model makes of them.
    """
    outer, listener = _count.get(), _listener.get()
    shown = nullcontext(_nobody) if outer or not listener else listener.counting(label, total)
    with shown as told:
        count = Count(total, outer.done if outer else told)
        token = _count.set(count)
        try:
            yield
        finally:
            _count.reset(token)
        count.done(count.left)


def done(more: int = 1) -> None:
    """So many parts more of the work that is being counted, if any is."""
    if count := _count.get():
        count.done(more)


def working(label: str) -> AbstractContextManager[None]:
    """Around one long step that cannot be counted: tells the listener, if there is one."""
    listener = _listener.get()
    return listener.working(label) if listener else nullcontext()


def notice(text: str) -> None:
    """Tell the listener, if there is one, something that happened on the way, such as what is tried again."""
    if listener := _listener.get():
        listener.notice(text)


def _nobody(_: int) -> None:
    pass
