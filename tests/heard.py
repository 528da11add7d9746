"""Who listens to long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Heard:
    """Writes down what is counted, how far it came, what is worked at, and what is noticed."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, int | None]] = []
        self.steps: list[int] = []
        self.work: list[str] = []
        self.notices: list[str] = []

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        self.counts.append((label, total))
        yield lambda more, text="": self.steps.append(more)

    def working(self, label: str) -> AbstractContextManager[None]:
        self.work.append(label)
        return nullcontext()

    def notice(self, text: str) -> None:
        self.notices.append(text)
