"""Progress on standard error, for the command line and for whoever else asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rankpipe.progress import Told

PATIENCE_S = 2.0  # work shorter than this shows no progress
FIRST_S, EVERY_S = 10.0, 30.0  # off a terminal: when the first line comes, and how often others


def screen(*, stderr: bool) -> Console:
    """As wide as the terminal; a log has lines of 120 letters."""
    return Console(stderr=stderr, width=None if Console(stderr=stderr).is_terminal else 120, emoji=False)


class Shown:
    """Bars on a terminal; elsewhere a line now and then, and one at the end of long work.

    :param console: another than standard error.
    :param patience_s: shorter work shows nothing.
    :param clock: tells the time, in seconds.
    """

    def __init__(
        self,
        console: Console = screen(stderr=True),
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.patience_s, self.clock = console, patience_s, clock
        self.bars: Progress | None = None

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Told]:
        """Show how many are done, at what rate, and the time left."""
        if self.console.is_terminal:
            with self._task(label, total) as (bars, task):
                yield lambda more, text="": bars.update(
                    task, advance=more, description=escape(f"{label}: {text}" if text else label)
                )
        else:
            lines = _Lines(lambda said: self._tell(label, said), total, self.clock)
            yield lines.done
            lines.end(self.patience_s)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Show for how long something has been going on."""
        if self.console.is_terminal:
            with self._task(label, None, uncounted=True) as (bars, task):
                try:
                    yield
                finally:
                    bars.update(task, total=1, completed=1)
        else:
            started = self.clock()
            yield
            if (seconds := self.clock() - started) > self.patience_s:
                self._tell(label, f"{seconds:.0f} s")

    def notice(self, text: str) -> None:
        """A line of its own."""
        self.console.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    @contextmanager
    def _task(self, label: str, total: int | None, **fields: bool) -> Iterator[tuple[Progress, TaskID]]:
        """A bar among those that are shown, once it has taken a while; the outermost starts and stops showing them."""
        outermost, file = self.bars is None, self.console._file
        bars = self.bars = self.bars or _bars(self.console)
        if outermost:
            self.console.file = self.console.file  # held to, for libraries' own bars are silenced by another sys.stderr
            bars.start()
        task = bars.add_task(label, total=total, visible=False, **fields)
        timer = Timer(self.patience_s, bars.update, (task,), {"visible": True})
        timer.daemon = True
        timer.start()
        try:
            yield bars, task
        finally:
            timer.cancel()
            bars.stop_task(task)
            if outermost:
                bars.stop()
                self.bars, self.console._file = None, file

    def _tell(self, label: str, said: str) -> None:
        self.notice(f"{label}: {said}")


class _Lines:
    """Counts, and tells it in a line after a while, and then from time to time."""

    def __init__(self, tell: Callable[[str], None], total: int | None, clock: Callable[[], float]) -> None:
        self._tell, self._total, self._clock = tell, total, clock
        self._count, self._told, self._started, self._text = 0, 0, clock(), ""
        self._due = self._started + FIRST_S

    def done(self, more: int, text: str = "", /) -> None:
        """So many more."""
        self._count, self._text = self._count + more, text
        if more and (now := self._clock()) >= self._due:
            self._say(now)
            self._due = now + EVERY_S

    def end(self, patience_s: float) -> None:
        """No more come."""
        if (now := self._clock()) - self._started > patience_s and self._told < self._count:
            self._say(now)

    def _say(self, now: float) -> None:
        said = _rate(self._count, self._total, now - self._started)
        self._tell(f"{said}; {self._text}" if self._text else said)
        self._told = self._count


class _Count(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("uncounted") else super().render(task)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = None if task.fields.get("uncounted") else task.finished_speed or task.speed
        return Text(_speed(speed) if speed else "", style="progress.data.speed")


class _Left(TimeRemainingColumn):
    """The time left; of what cannot be counted, the time gone."""

    def render(self, task: Task) -> Text:
        if task.fields.get("uncounted"):
            return Text(f"{task.elapsed or 0:.0f} s", style="progress.elapsed")
        return super().render(task)


def _bars(console: Console) -> Progress:
    label = TextColumn("{task.description}", markup=False)
    return Progress(label, BarColumn(), _Count(), _Rate(), _Left(), console=console)


def _speed(speed: float) -> str:
    return f"{speed:,.0f}/s" if speed >= 100 else f"{speed:.3g}/s"


def _rate(count: int, total: int | None, seconds: float) -> str:
    of, left = "", ""
    if total is not None:
        of = f"/{total}"
        left = f", {(total - count) * seconds / count:.0f} s left" if 0 < count < total else ""
    return f"{count}{of}, {_speed(count / seconds)}, {seconds:.0f} s{left}"
