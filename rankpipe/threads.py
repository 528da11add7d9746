"""Work side by side in threads, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 8  # items a thread that are taken before they are needed


class Pool(ThreadPoolExecutor):
    """Threads in whose work all is as where it was begun: who listens, until when an answer is wanted."""

    def __exit__(self, kind: type[BaseException] | None, *more: Any) -> None:
        """Wait for all, but not where the user interrupts."""
        self.shutdown(wait=kind is not KeyboardInterrupt, cancel_futures=kind is not None)

    def submit(self, work: Callable[..., Any], /, *given: Any, **more: Any) -> Future[Any]:
        """Begin it."""
        return super().submit(copy_context().run, work, *given, **more)


def side_by_side(
    work: Callable[[A], B], items: Iterable[A], threads: int, begin: Callable[[], object] | None = None
) -> Iterator[B]:
    """The results of ``work`` for each item, in their order. Items are taken in the caller's thread while others are
    worked at, so that what it costs to make them is hidden.

    :param threads: items that are worked at at a time.
    :param begin: called once in each thread, before its first item.
    """
    waiting: deque[Future[B]] = deque()
    with Pool(threads, initializer=begin) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
