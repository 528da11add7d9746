"""What the benchmark programs share: a race between rivals in one run, and results filed by commit."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Generic, TypeVar

from rankpipe.disk import write
from rankpipe.measure.results import machine
from rankpipe.measure.tables import table
from rankpipe.provenance import PACKAGES, commit, versions

T = TypeVar("T")
Row = dict[str, Any]  # flat: text, numbers, yes or no
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = Path(os.environ.get("RANKPIPE_DATA") or ROOT.parent / "shared" / "data")
OUR_CODE = {**os.environ, "PYTHONPATH": str(ROOT)}  # the environment in which another interpreter can import rankpipe


@dataclass(frozen=True)
class Timed(Generic[T]):
    """What a runner made, the last time, and how long each time took."""

    made: T
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the seconds."""
        return median(self.seconds)


Runner = Callable[[], tuple[float, T]]  # seconds, and what was made


def clocked(work: Callable[[], T]) -> Runner[T]:
    """The work with its wall-clock seconds."""

    def runner() -> tuple[float, T]:
        start = perf_counter()
        made = work()
        return perf_counter() - start, made

    return runner


def race(runners: Mapping[str, Runner[T]], times: int) -> dict[str, Timed[T]]:
    """Run each rival ``times`` times, interleaved, so that all of them see the same moods of the machine; each time in
    another order, so that none always finds what the same other one leaves: its caches, or a JVM that tidies up.
    """
    done: dict[str, Timed[T]] = {}
    for i in range(times):
        for name in random.Random(i).sample([*runners], len(runners)):
            seconds, made = runners[name]()
            before = done[name].seconds if name in done else ()
            done[name] = Timed(made, (*before, seconds))
    return {name: done[name] for name in runners}


def peak_mb() -> int:
    """The largest memory of this process so far; of a forked one, on systems without ``/proc``, its parent's too."""
    if (status := Path("/proc/self/status")).exists():
        return round(int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def alone(work: Callable[..., T], *given: Any) -> T:
    """What work gives in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def weight(folder: Path) -> int:
    """Bytes of all files."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def version_in(python: Path, package: str) -> str:
    """The version of a package that another interpreter has."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def file(name: str, rows: Sequence[Row], into: Path, also: Mapping[str, str] | None = None) -> Path:
    """Write ``into/NAME/results/<commit>.json``, whole or not at all, and print its rows.

    :param also: versions of packages that live in other environments.
    """
    tree = {
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": commit(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),  # of the last minute; well above 1 means that others were at work
        "versions": versions(PACKAGES) | dict(also or {}),
        "rows": list(rows),
    }
    path = into / name / "results" / f"{tree['commit']}.json"
    with write(path) as f:
        json.dump(tree, f, indent=1, ensure_ascii=False)
        f.write("\n")
    print(*table([name], into), path, sep="\n")
    return path
