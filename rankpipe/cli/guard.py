"""What is refused of every command line, and how that is said."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rankpipe.errors import CommandError, RecipeError

OUTPUTS = ("out", "report")
COLUMNS = 6  # of a TREC run
FIRST = 1 << 20  # bytes of a line that are looked at
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
        raise CommandError(error.faults) from error


def _flat(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options, those of groups too."""
    for name, value in arguments.items():
        if is_dataclass(value):
            yield from ((f.name, getattr(value, f.name)) for f in fields(value))
        else:
            yield name, value


def _refuse_inputs(options: Mapping[str, Any]) -> None:
    """:raises CommandError: If an output is a file that the command reads, or anything that no command writes."""
    for name in OUTPUTS:
        out = options.get(name)
        if not isinstance(out, Path):
            continue
        if str(out) == "-":
            raise CommandError([f"--{name} -: name a file, or /dev/stdout"])
        read = [path for other, value in options.items() if other not in NOT_READ for path in _files(other, value)]
        if out.exists() and any(path.exists() and path.samefile(out) for path in read):
            raise CommandError([f"--{name} {out}: this command reads it; name another place"])
        if any((above / "manifest.json").is_file() and (above / "made").is_dir() for above in out.absolute().parents):
            raise CommandError([f"--{name} {out}: lies in a folder that was built; name another place"])
        if out.is_file() and not options.get("force") and not _written_by_commands(out):
            cure = "replace it with --force" if "force" in options else "move it away"
            fault = f"--{name} {out}: holds something else, such as documents; {cure}, or name another place"
            raise CommandError([fault])


def _written_by_commands(path: Path) -> bool:
    """Whether a file is a run, rankings or a report, or empty: by its first line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
            line = f.readline(FIRST).decode("utf-8-sig", "replace").strip()
            if not line:
                return not f.read(FIRST).strip()
    except (OSError, EOFError, zlib.error):  # not packed, or not whole
        return False
    if line.startswith("{"):
        try:
            return "candidates" in json.loads(line)
        except ValueError:
            return len(line) > FIRST // 2 and '"candidates"' in line  # its end was not looked at
    return line.startswith("<") or len(line.split()) == COLUMNS


def _files(name: str, value: Any) -> Iterator[Path]:
    """What is read for an option: a file, a collection's files, or all that an index or another artefact has."""
    from rankpipe.datasets.opening import sources

    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str | Path):
            path = Path(str(one).partition("=")[2] if name == "settings" else one)
            yield from sources(str(one)) if name == "data" else ()
            yield from path.rglob("*") if (path / "manifest.json").is_file() else [path]
