"""What a person sees: tables and progress, on a terminal or in a log; or JSON, for machines."""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from threading import Timer
from typing import Annotated, Any, TypeVar, get_type_hints

import click
import typer
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

from rankpipe import progress
from rankpipe.cli.guard import guarded
from rankpipe.cli.layout import laid
from rankpipe.errors import RankpipeError

T = TypeVar("T")
Verb = Callable[..., Any]
PATIENCE_S = 2.0  # work shorter than this shows no progress
FIRST_S, EVERY_S = 10.0, 30.0  # off a terminal: when the first line comes, and how often others


@dataclass
class Manner:
    """How this command speaks."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


manner = Manner()
out, err = (Console(stderr=s, width=None if Console(stderr=s).is_terminal else 120) for s in (False, True))

COMMON = {  # the options that every verb has, typed once
    "json": Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")],
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no remarks.")],
    "verbose": Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


def verb(app: typer.Typer, name: str, *, bare: bool = False, recipe: bool = False) -> Callable[[Verb], Verb]:
    """Register a command with the common options; errors end it with their exit code and without a traceback.

    An argument that is a dataclass stands for options that verbs share: each of its fields is one.

    :param bare: the command makes sense without arguments; others then show their help.
    :param recipe: it reads a recipe; in others faults of components are those of the command line.
    """

    def register(function: Verb) -> Verb:
        signature = inspect.signature(function, eval_str=True)
        groups: dict[str, Any] = {
            p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)
        }

        @functools.wraps(function)
        def command(**arguments: Any) -> None:
            for option in COMMON:
                setattr(manner, option, arguments.pop(option))
            for given, group in groups.items():
                arguments[given] = group(**{f.name: arguments.pop(f.name) for f in fields(group)})
            with errors_told(), progress.listening(Shown()), guarded(arguments, recipe):
                function(**arguments)

        common = [_option(n, a, False) for n, a in COMMON.items()]
        own = [o for p in signature.parameters.values() for o in _options(p)]
        command.__signature__ = signature.replace(parameters=[*own, *common])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
        app.command(name, no_args_is_help=not bare)(command)
        return function

    return register


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not is_dataclass(group := parameter.annotation):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    kinds = get_type_hints(group, include_extras=True)
    empty = inspect.Parameter.empty
    return [_option(f.name, kinds[f.name], empty if f.default is MISSING else f.default) for f in fields(group)]


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


@contextmanager
def errors_told() -> Iterator[None]:
    """Say what went wrong in one paragraph and leave with its exit code."""
    try:
        yield
    except RankpipeError as error:
        if manner.debug:
            err.print_exception()
        _refused(type(error).__name__, str(error), faults=getattr(error, "faults", None))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except Exception as error:
        if manner.debug:
            raise
        _refused(type(error).__name__, f"{error} (a bug in rankpipe, or in what it calls; --debug shows where)")
        raise typer.Exit(RankpipeError.exit_code) from None


def _refused(kind: str, said: str, **more: Any) -> None:
    """An error, in words or as JSON."""
    if manner.json:
        told = {"error": kind, "message": said, **{k: v for k, v in more.items() if v is not None}}
        print(jsonlib.dumps(told, ensure_ascii=False))
    else:
        err.print(f"[bold red]{kind}[/]: {escape(said)}", soft_wrap=True)


def emit(data: Any, human: Callable[[], None]) -> None:
    """The result: as JSON if asked for, else in words and tables."""
    if manner.json:
        print(jsonlib.dumps(data, ensure_ascii=False, indent=1, default=str))
    else:
        human()


def remark(text: str) -> None:
    """Something beside the result; to standard error, unless quiet."""
    if not manner.quiet:
        err.print(f"[dim]{escape(text)}[/]", soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """Something the reader must know."""
    err.print(f"[yellow]{escape(text)}[/]", soft_wrap=True, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, text: Sequence[str] = ()) -> None:
    """A table, or lines where it would be too wide; columns are right-aligned, but for the first and ``text``."""
    if title:
        out.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    out.print(laid(columns, [["" if cell is None else str(cell) for cell in row] for row in rows], out.width, text))


def facts(title: str, told: Mapping[str, object]) -> None:
    """A table of names and what each of them is."""
    table(title, ("", " "), told.items(), text=(" ",))


def costs(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table of what stages cost, without the columns that are zero throughout; nothing where all are."""
    kept = [i for i in range(len(columns)) if i == 0 or any(str(row[i]).strip("0.") for row in rows)]
    if len(kept) > 1:
        table("", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


class Shown:
    """Progress on standard error: bars on a terminal; elsewhere a line now and then, and one at the end of long work.

    :param console: another than standard error.
    :param patience_s: shorter work shows nothing.
    :param clock: tells the time, in seconds.
    """

    def __init__(
        self, console: Console = err, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.patience_s, self.clock = console, patience_s, clock
        self.bars: Progress | None = None

    def track(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        """Pass the items on, showing how many have passed, at what rate, and the time left."""
        if manner.quiet:
            return iter(items)
        return self._bar(items, label, total) if self.console.is_terminal else self._lines(items, label, total)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Show for how long something has been going on."""
        if manner.quiet:
            yield
        elif self.console.is_terminal:
            with self._task(label, None, uncounted=True) as (bars, task):
                timer = Timer(self.patience_s, bars.update, (task,), {"visible": True})
                timer.daemon = True
                timer.start()
                try:
                    yield
                finally:
                    timer.cancel()
                    bars.update(task, total=1, completed=1)
        else:
            started = self.clock()
            yield
            if (seconds := self.clock() - started) > self.patience_s:
                self._tell(label, f"{seconds:.0f} s")

    def _bar(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        with self._task(label, total) as (bars, task):
            started = self.clock()
            for item in items:
                yield item
                bars.update(task, advance=1, visible=self.clock() - started > self.patience_s)

    @contextmanager
    def _task(self, label: str, total: int | None, **fields: bool) -> Iterator[tuple[Progress, TaskID]]:
        """A bar among those that are shown; the outermost starts and stops showing them."""
        outermost, file = self.bars is None, self.console._file
        bars = self.bars = self.bars or _bars(self.console)
        if outermost:
            self.console.file = self.console.file  # held to, for libraries' own bars are silenced by another sys.stderr
            bars.start()
        task = bars.add_task(label, total=total, visible=False, **fields)
        try:
            yield bars, task
        finally:
            bars.stop_task(task)
            if outermost:
                bars.stop()
                self.bars, self.console._file = None, file

    def _lines(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        started, count, told = self.clock(), 0, 0
        due = started + FIRST_S
        for item in items:
            yield item
            count += 1
            if (now := self.clock()) >= due:
                self._tell(label, _rate(count, total, now - started))
                due, told = now + EVERY_S, count
        if (seconds := self.clock() - started) > self.patience_s and told < count:
            self._tell(label, _rate(count, total, seconds))

    def _tell(self, label: str, said: str) -> None:
        self.console.print(f"[dim]{escape(label)}: {said}[/]", highlight=False, soft_wrap=True)


class _Count(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("uncounted") else super().render(task)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = None if task.fields.get("uncounted") else task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "", style="progress.data.speed")


class _Left(TimeRemainingColumn):
    """The time left; of what cannot be counted, the time gone."""

    def render(self, task: Task) -> Text:
        if task.fields.get("uncounted"):
            return Text(f"{task.elapsed or 0:.0f} s", style="progress.elapsed")
        return super().render(task)


def _bars(console: Console) -> Progress:
    label = TextColumn("{task.description}", markup=False)
    return Progress(label, BarColumn(), _Count(), _Rate(), _Left(), console=console)


def _rate(count: int, total: int | None, seconds: float) -> str:
    of, left = "", ""
    if total is not None:
        of = f"/{total}"
        left = f", {(total - count) * seconds / count:.0f} s left" if 0 < count < total else ""
    return f"{count}{of}, {count / seconds:.3g}/s, {seconds:.0f} s{left}"
