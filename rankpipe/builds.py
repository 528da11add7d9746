"""What lies in the folder ``made/`` of an artefact: its build, perhaps one that is being made, and what was left of
others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rankpipe.disk import damage, shown, write
from rankpipe.errors import ArtefactError, DataError, RecipeError
from rankpipe.progress import notice

Digest = Callable[[Any], str]  # what makes the checksum of a manifest
SUMS = ".sums.json"  # of a part that a build has finished, in its folder until the build is whole
SPARE = ".manifest.json"  # a copy of the manifest, in the build that it names
OURS = re.compile(r"\.work-\w+|\w+-\d{8}T\d{12}")  # what work and builds are called
CHANGED = "amended"  # what builds are called that changes have made of others
AMENDED = f".work-{CHANGED}"  # no build's name: none goes on from it
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}


def work(folder: Path, *told: Any) -> Path:
    """Where a build works, and where the next one that is told the same finds what was left if it is interrupted."""
    said = json.dumps(told, default=str, sort_keys=True)
    return folder / "made" / f".work-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def sweep(folder: Path, named: str, why: str = "", work: str = "") -> None:
    """Remove builds that no manifest names: older ones, and what killed writers left.

    :param named: by the manifest; if it is "", for there is none that can be read, builds that came to their end stay.
    :param why: no build goes on from one that was interrupted, which is said.
    :param work: stays, too.
    """
    for left in (folder / "made").glob("*"):
        begun = left.name.startswith(".work-")
        if OURS.fullmatch(left.name) and left.name not in (named, work) and (named or begun):
            size = sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
            if why and size and begun and left.name != AMENDED:
                notice(f"{left} is removed ({shown(size)}): an interrupted build, {why}")
            shutil.rmtree(left, ignore_errors=True)
    for torn in folder.glob(".manifest.json.*.part"):
        torn.unlink()


def take_up(folder: Path, work: Path, named: str, digest: Digest) -> None:
    """Make an interrupted build ready to go on, also one killed just before its manifest, or that lost it; torn files
    away.

    :param named: by the manifest; nothing goes on from this build.
    """
    key = work.name.removeprefix(".work-")
    ended = [build for build in (folder / "made").glob(f"{key}-*") if build.name != named]
    for build in sorted(ended, reverse=True):
        if not work.exists():
            if fault := _harmed(build, digest):
                notice(f"{fault}; nothing is taken from this build, and all is built again")
            else:
                os.rename(build, work)
    for torn in work.rglob(".*.part"):
        torn.unlink()


def _harmed(build: Path, digest: Digest) -> str | None:
    """What is wrong with a build that came to its end. Segments are not read: they get their checksums, by which a
    build that goes on looks at them, back from the copy of the manifest.
    """
    try:
        files = dict(told(build / SPARE, digest)["files"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        bare = any(not (path / SUMS).exists() for path in build.iterdir() if path.name != SPARE)
        return f"{build / SPARE} is missing or damaged" if bare else None
    segments = dict[str, dict[str, tuple[int, str]]]()
    for name, (size, checksum) in files.items():
        segment, _, file = name.partition("/")
        if segment.isdecimal() and (build / segment).is_dir():
            segments.setdefault(segment, {})[file] = (size, checksum)
        elif fault := damage(build / name, size, checksum, True):
            return fault
    for segment, sums in segments.items():
        with write(build / segment / SUMS) as f:
            json.dump(sums, f)
    return None


def told(manifest: Path, digest: Digest) -> dict[str, Any]:
    """What a manifest says, without its checksum.

    :raises ValueError: If the checksum is another, or it is no JSON; TypeError if it is no object.
    """
    known = dict(json.loads(manifest.read_text("utf-8")))
    if known.pop("checksum", None) not in (None, digest(known)):  # none in those of earlier versions
        raise ValueError("its checksum is another")
    return known


@contextmanager
def working(work: Path, *, goes_on: bool = False) -> Iterator[None]:
    """A folder to work in, which is left behind after an error only for a build that goes on from it.

    :param goes_on: whether one does; never after an error in the data or the recipe, which another build would meet,
        too.
    """
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        if not goes_on or isinstance(error, DataError | RecipeError) or not any(p.is_file() for p in work.rglob("*")):
            shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            work.parent.rmdir()  # if there is nothing else
        raise


def linked(old: Path, new: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(old, new)


def same(old: Path, new: Path) -> bool:
    """Whether they are one file."""
    return new.exists() and old.samefile(new)


def refuse_changed(folder: Path, facts: Mapping[str, Any]) -> None:
    """:raises ArtefactError: If the artefact of these facts was changed since it was built."""
    if batches := facts.get("batches"):
        times = "once" if batches == 1 else f"{batches} times"
        raise ArtefactError(
            f"{folder}: changed {times} since it was built, which building it anew loses; to do so: --force, or in "
            "Python `with rankpipe.store.replacing():`"
        )
