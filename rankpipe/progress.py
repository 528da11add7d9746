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


class Told(Protocol):
    """Is told that so many more are done, and perhaps how it stands."""

    def __call__(self, more: int, text: str = "", /) -> None:
        """So many more."""
        ...


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

    def __init__(self, total: int, told: Callable[[int], None]) -> None:
        self.left, self._told = total, told

    def done(self, more: int) -> None:
        """So much more; never more than there is."""
        more = min(more, self.left)
        self.left -= more
        self._told(more)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_count: ContextVar[Count | None] = ContextVar("count", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Everything inside reports to ``listener``; to nobody, if it is None."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(
    items: Iterable[T], label: str, total: int | None = None, size: Callable[[T], int] = lambda _: 1
) -> Iterable[T]:
    """Pass ``items`` on, telling the listener, if there is one.

    :param total: how many there are; taken from ``len(items)`` where it has one.
    :param size: for how many an item stands.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    listener = _listener.get()
    return _tracked(listener, items, label, total, size) if listener else items


def _tracked(
    listener: Listener, items: Iterable[T], label: str, total: int | None, size: Callable[[T], int]
) -> Iterator[T]:
    with listener.counting(label, total) as told:
        for item in items:
            yield item
            told(size(item))


@contextmanager
def counting(label: str, total: int) -> Iterator[None]:
    """Work in ``total`` parts; who does them inside says :func:`done`. What nobody has said at the end was not needed,
    and is done, too.

    Inside other such work it is a part of that, and is shown as that only: a reranker counts its windows once,
    whatever a model makes of them.
    """
    outer, listener = _count.get(), _listener.get()
    with _shown(None if outer else listener, label, total) as told:
        count = Count(total, outer.done if outer else told)
        token = _count.set(count)
        try:
            yield
        finally:
            _count.reset(token)
        count.done(count.left)


@contextmanager
def running(label: str, total: int) -> Iterator[Told]:
    """Work in ``total`` steps that says after each how it stands. What is counted inside is shown beside it, and is no
    part of it.
    """
    listener = _listener.get()
    with _shown(listener, label, total) as told:
        token = _count.set(None)
        try:
            yield told
        finally:
            _count.reset(token)


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


def _shown(listener: Listener | None, label: str, total: int) -> AbstractContextManager[Told]:
    return listener.counting(label, total) if listener else nullcontext(_nobody)


def _nobody(_: int, __: str = "", /) -> None:
    pass
