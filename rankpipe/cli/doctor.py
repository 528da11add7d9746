"""What ``rankpipe doctor`` does: try each part in a process of its own, and say what mends it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from time import perf_counter
from typing import Literal

from rankpipe.catalog import EXTRAS, installed, near
from rankpipe.cli.probes import PARTS
from rankpipe.errors import DataError
from rankpipe.progress import track

TIMEOUT_S = 180
LIBRARY = ("ImportError", "OSError", "AttributeError", "signal")  # what a damaged library gives, not a damaged model

State = Literal["works", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """What a probe found: ``works``, ``absent`` (never installed or fetched) or ``broken`` (there, but fails)."""

    part: str
    state: State
    said: str
    cure: str
    seconds: float


def examine(names: Sequence[str], verbose: bool = False) -> list[Finding]:
    """Try each named part, or each part of a named extra, or all of them.

    :raises DataError: If a name is none of these.
    """
    parts: dict[str, None] = {}
    for name in names or PARTS:
        of_extra = [name] if name in PARTS else [p for p, it in PARTS.items() if name in EXTRAS and it.extra == name]
        if not of_extra:
            known = [*PARTS, *(e for e in EXTRAS if e not in PARTS)]
            raise DataError(f"no part {name!r}{near(name, known) or '.'} Known are {', '.join(known)}")
        parts |= dict.fromkeys(of_extra)
    return [_try(part, verbose) for part in track(list(parts), "try each part")]


def _try(part: str, verbose: bool) -> Finding:
    extra = PARTS[part].extra
    if lacking := [m for m in EXTRAS.get(extra, ()) if not installed(m)]:
        return Finding(part, "absent", f"not installed: {', '.join(lacking)}", _install(part), 0.0)
    start = perf_counter()
    # -P: a file of the working folder must not pass for a package
    command = [sys.executable, "-P", "-c", f"from rankpipe.cli.probes import tell; tell({part!r})"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        said = f"no answer in {TIMEOUT_S} s: it hangs, or the machine has too much else to do"
        return Finding(part, "broken", said, f"rankpipe doctor {extra}".strip(), TIMEOUT_S)
    seconds = round(perf_counter() - start, 2)
    if done.returncode == 0:
        made = json.loads(done.stdout.splitlines()[-1])
        return Finding(part, "broken" if made["cure"] else "works", made["said"], made["cure"], seconds)
    kind, said = last_error(done.stderr, done.returncode)
    state: State = "absent" if kind == "MissingWeights" else "broken"
    shown = done.stderr.strip() if verbose and done.stderr else said
    return Finding(part, state, shown, cure(part, kind, said), seconds)


def last_error(stderr: str, returncode: int) -> tuple[str, str]:
    """The class (without its module) and the message of the error that ended a process; a signal is one too."""
    if returncode < 0:
        return "signal", f"ended by signal {-returncode}"
    after = stderr.rpartition("Traceback (most recent call last):\n")[2]
    lines = [line for line in after.splitlines() if line and not line.startswith(" ")] or ["no message"]
    kind, _, message = "\n".join(lines).partition(": ")
    return kind.rpartition(".")[2], message or kind


def cure(part: str, kind: str, said: str) -> str:
    """The one command that mends a part, by the error that ended its probe.

    Weights that are absent or damaged are fetched; a package that is absent, or of a version that another does not
    bear, is installed; one that is there and fails is installed again, as it was and alone.
    """
    _, is_model, model = part.partition("model ")
    fetch = f"rankpipe pull {model}"
    if is_model and kind in ("MissingWeights", "ArtefactError"):
        return fetch
    if kind == "MissingExtra":
        return _install(part)
    if missing := re.match(r"No module named '(\w+)", said):
        owner = _owner(part, missing[1])
        return _reinstall(owner) if owner else _install(part)
    if is_model and kind not in LIBRARY:
        return fetch
    packages = _packages(part)
    return _install(part) if not packages or _at_odds(packages) else _reinstall(*packages)


def _install(part: str) -> str:
    extra = PARTS[part].extra
    return f"pip install 'rankpipe[{extra}]'" if extra else "pip install rankpipe"


def _reinstall(*packages: str) -> str:
    """The same versions anew; nothing else is touched. Local versions (+cpu) are an index's own affair."""
    pinned = " ".join(f"{name}=={version(name).partition('+')[0]}" for name in packages)
    return f"pip install --force-reinstall --no-deps {pinned}"


def _packages(part: str) -> list[str]:
    """The packages of a part that are installed; of alternatives, the first."""
    return list(filter(None, (_first(names) for names in PARTS[part].packages.values())))


def _owner(part: str, module: str) -> str | None:
    """The installed package that a module comes in, if it is known."""
    return _first(PARTS[part].packages.get(module, module))


def _first(names: str) -> str | None:
    for name in names.split("|"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    return None


def _at_odds(packages: Sequence[str]) -> bool:
    """Whether one of the packages finds what it requires absent, or of a version that it does not bear."""
    from packaging.requirements import Requirement  # faiss-cpu brings it

    for needed in (Requirement(line) for name in packages for line in requires(name) or ()):
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            found = _first(needed.name)
            if found is None or not needed.specifier.contains(version(found), prereleases=True):
                return True
    return False
