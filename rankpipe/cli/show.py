"""What a person sees: tables, remarks, errors; or JSON, for machines."""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
import math
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import IO, Annotated, Any, NoReturn, get_type_hints

import click
import typer
from rich.markup import escape

from rankpipe import progress
from rankpipe.cli.guard import guarded
from rankpipe.cli.layout import laid
from rankpipe.cli.once import Once
from rankpipe.cli.shown import Shown, screen
from rankpipe.disk import FULL
from rankpipe.errors import DiskError, RankpipeError

Verb = Callable[..., Any]
INTERRUPTED = 130  # as shells have it
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # characters that a terminal obeys, but for tabs and lines


@dataclass
class Manner:
    """How this command speaks."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    stdout: IO[str] | None = None  # of JSON alone; what libraries print then goes to standard error


manner = Manner()
out, err = screen(stderr=False), screen(stderr=True)

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
            heard = nullcontext() if manner.quiet else progress.listening(Shown(err))
            manner.stdout = sys.stdout
            alone = redirect_stdout(sys.stderr) if manner.json else nullcontext()
            with errors_told(), heard, alone, guarded(arguments, recipe):
                function(**arguments)

        common = [_option(n, a, False) for n, a in COMMON.items()]
        own = [o for p in signature.parameters.values() for o in _options(p)]
        command.__signature__ = signature.replace(parameters=[*own, *common])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
        app.command(name, cls=Once, no_args_is_help=not bare)(command)
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
        known = next(kind for kind in type(error).__mro__ if kind.__module__ == RankpipeError.__module__)
        _refused(known.__name__, str(error), faults=getattr(error, "faults", None))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        _interrupted("nothing is half-written")
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except Exception as error:
        if manner.debug:
            raise
        if isinstance(error, OSError) and error.errno in FULL:  # no file of ours, which is a DiskError
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it is not tried again
            manner.json = False
            _refused("DiskError", f"standard output cannot be written: {error.strerror}")
            raise typer.Exit(DiskError.exit_code) from None
        _refused(type(error).__name__, f"{error} (a bug in rankpipe, or in what it calls; --debug shows where)")
        raise typer.Exit(RankpipeError.exit_code) from None


@contextmanager
def going_on(kept: str, begun: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Tell who interrupts the work what is kept of it, and that the same command goes on from there.

    :param begun: whether there is anything to go on from.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not begun():
            raise
        _interrupted(f"{kept}: rankpipe {shlex.join(sys.argv[1:])}")


def _interrupted(said: str) -> NoReturn:
    warn(f"interrupted; {said}")
    if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # else they would be waited for: one may hang on a server
    raise typer.Exit(INTERRUPTED)


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
        told = jsonlib.dumps(_strict(data), ensure_ascii=False, indent=1, default=str, allow_nan=False)
        print(told, file=manner.stdout)
    else:
        human()


def _strict(data: Any) -> Any:
    """With null for numbers that JSON has none of: NaN, Infinity."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {key: _strict(value) for key, value in data.items()}
    return [_strict(value) for value in data] if isinstance(data, list | tuple) else data


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
        out.print(plain(title), style="italic", markup=False, highlight=False, soft_wrap=True)
    told = [["" if cell is None else plain(str(cell)) for cell in row] for row in rows]
    out.print(laid(columns, told, out.width, text))


def plain(text: str) -> str:
    """A text with its control characters, which would steer a terminal, spelled out."""
    return STEERING.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def facts(title: str, told: Mapping[str, object]) -> None:
    """A table of names and what each of them is."""
    table(title, ("", " "), told.items(), text=(" ",))


def costs(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table of what stages cost, without the columns that are zero throughout; nothing where all are."""
    kept = [i for i in range(len(columns)) if i == 0 or any(str(row[i]).strip("0.") for row in rows)]
    if len(kept) > 1:
        table("", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
