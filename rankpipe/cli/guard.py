"""What is refused of every command line, and how that is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rankpipe.errors import CommandError, RecipeError

OUTPUTS = ("out", "report")
NOT_READ = (*OUTPUTS, "replay")  # a replay reads what lies beside its run


@contextmanager
def guarded(arguments: Mapping[str, Any], recipe: bool) -> Iterator[None]:
    """Do what a command says, unless it would write over what it reads.

    :param recipe: whether a recipe is read; where it is not, what is wrong with one is wrong with the command line.
    :raises CommandError: If the command line is wrong.
    """
    _refuse_inputs(dict(_flat(arguments)))
    if recipe:
        yield
        return
    with spelled():
        yield


@contextmanager
def spelled() -> Iterator[None]:
    """Inside, recipes are spelled by the command line, and their faults are its own.

    :raises CommandError: Instead of a RecipeError.
    """
    try:
        yield
    except RecipeError as error:
        raise CommandError(getattr(error, "faults", [str(error)])) from error  # a worker's has none


def _flat(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options, those of groups too."""
    for name, value in arguments.items():
        if is_dataclass(value):
            yield from ((f.name, getattr(value, f.name)) for f in fields(value))
        else:
            yield name, value


def _refuse_inputs(options: Mapping[str, Any]) -> None:
    """:raises CommandError: If an output is one of the files that the command reads, or documents or queries."""
    for name in OUTPUTS:
        out = options.get(name)
        if not isinstance(out, Path):
            continue
        if str(out) == "-":
            raise CommandError([f"--{name} -: name a file, or /dev/stdout"])
        if not out.exists():
            continue
        read = [path for other, value in options.items() if other not in NOT_READ for path in _files(other, value)]
        if any(path.exists() and path.samefile(out) for path in read):
            raise CommandError([f"--{name} {out}: this command reads it; name another place"])
        if _records(out):
            raise CommandError([f"--{name} {out}: holds documents or queries; move them away, or name another place"])


def _records(path: Path) -> bool:
    """Whether a file is one of documents or queries, as of a BEIR folder, by its first line."""
    if not path.is_file() or path.suffix != ".jsonl":
        return False
    with open(path, "rb") as f:
        return f.readline(1 << 20).lstrip().startswith(b'{"_id"')


def _files(name: str, value: Any) -> Iterator[Path]:
    """What is read for an option: a file, a collection's files, or all that an index or another artefact has."""
    from rankpipe.datasets.opening import sources

    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str | Path):
            path = Path(str(one).partition("=")[2] if name == "settings" else one)
            yield from sources(str(one)) if name == "data" else ()
            yield from path.rglob("*") if (path / "manifest.json").is_file() else [path]
