"""Which files are whole. Those of a large artefact are read once, and again when they were written to since.

What was seen is kept in the user's cache, by what the operating system says of a file (device, inode, size and time of
the last write), so that the hard links of an amended artefact are known, too. A disk that loses bits by itself changes
none of these: ``rankpipe index verify`` reads everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rankpipe.disk import cache_folder, damage, write
from rankpipe.errors import DiskError
from rankpipe.progress import working

LARGE = 64 << 20  # bytes of an artefact; a smaller one is read whenever it is opened

Files = Mapping[Path, tuple[int, str]]  # size_bytes, sha256


def damages(
    folder: Path, files: Files, *, all_of_them: bool = False, among: Collection[Path] | None = None
) -> list[str]:
    """What is wrong with the files of an artefact: missing, of another size or of another checksum.

    :param all_of_them: read also what was seen to be whole.
    :param among: which are read, if not all; of the others only the size is looked at.
    """
    known = {} if all_of_them or not _large(files) else _noted(folder)
    stamps = {path: _stamp(path) for path in files}  # before they are read: what is written to meanwhile is not known
    with working(f"checksums of {folder}"):
        seen = {path: known.get(stamps[path]) == told[1] for path, told in files.items()}
        read = {path: not there and (among is None or path in among) for path, there in seen.items()}
        looks = ((path, *told, read[path]) for path, told in files.items())
        faults = [fault for look in looks if (fault := damage(*look))]
    if faults:
        with suppress(OSError):
            _place(folder).unlink(missing_ok=True)  # whoever opens it reads all of it again, and sees them, too
    else:
        note(folder, {path: told for path, told in files.items() if seen[path] or read[path]}, stamps)
    return faults


def note(folder: Path, files: Files, stamps: Mapping[Path, str] | None = None) -> None:
    """Remember that the files of a large artefact are whole, in place of what was known of it; without a cache that
    can be written, nothing.

    :param stamps: of the files when they were; as they are now, if None.
    """
    found = {stamps[path] if stamps else _stamp(path): checksum for path, (_, checksum) in files.items()}
    if _large(files) and found != _noted(folder):
        with suppress(OSError, DiskError), write(_place(folder)) as f:
            json.dump(found, f)


def once(place: Path, what: object, files: Iterable[Path], look: Callable[[], str]) -> str:
    """What is found by looking at some files, which is not done again until one of them is written to.

    :param place: whose knowledge this is, in place of what was known there.
    :param what: is looked for, by which arguments.
    """
    key = hashlib.sha256(json.dumps([what, [_stamp(path) for path in files]], default=str).encode()).hexdigest()
    if (found := _noted(place).get(key)) is None:
        found = look()
        with suppress(OSError, DiskError), write(_place(place)) as f:
            json.dump({key: found}, f)
    return found


def _large(files: Files) -> bool:
    return sum(size for size, _ in files.values()) > LARGE


def _noted(folder: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        return dict(json.loads(_place(folder).read_text("utf-8")))
    return {}


def _place(folder: Path) -> Path:
    return cache_folder() / "seen" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"


def _stamp(path: Path) -> str:
    with suppress(FileNotFoundError):
        told = path.stat()
        return f"{told.st_dev} {told.st_ino} {told.st_size} {told.st_mtime_ns}"
    return ""
