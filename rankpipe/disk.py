"""Files on disk: written whole or not at all, one writer at a time, and clear words where the system refuses."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir, mkdtemp
from typing import IO, Any

from rankpipe.errors import Busy, DiskError

REFUSED = {errno.EACCES, errno.EROFS, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_SAID = re.compile(r" written$|\(os error 28\)|file write failed")  # of a full disk, by numpy, safetensors, torch
SPARE_FILES = 64  # for all that a program opens beside


@contextmanager
def write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears whole when the block ends, and not at all if it fails; a link still leads to it. What is no
    file (a pipe, a terminal, ``/dev/stdout``) is written to as it is.

    :raises DiskError: If the disk is full or the folder cannot be written; the old file is untouched.
    """
    text: dict[str, Any] = {"encoding": None if "b" in mode else "utf-8", "newline": None if "b" in mode else "\n"}
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        with disk_errors(path), open(path, mode, **text) as f:
            yield f
        return
    path = path.resolve() if path.is_symlink() else path
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, mode, **text) as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, path)
            fsync(path.parent)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def writable(path: Path) -> None:
    """Refuse before the work what could not be written after it; makes nothing.

    :raises DiskError: If it is to lie where nothing can be written.
    """
    there = next(folder for folder in path.absolute().parents if folder.exists())
    with disk_errors(path):
        try:
            TemporaryFile(dir=there).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """One writer at a time. The operating system frees the lock when its holder ends, however it ends.

    :param wait: wait for the holder to end, however long that takes, instead of refusing.
    :raises Busy: If another process holds it.
    """
    file, new = _locked(folder, wait)
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing was written: nothing stays
                    (folder / ".lock").unlink()
                    for made in new:
                        made.rmdir()


def _locked(folder: Path, wait: bool) -> tuple[IO[str], list[Path]]:
    """The lock of a folder, held, and not one that its holder has removed; and the folders that were made for it."""
    while True:
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder was just removed
            file = open(folder / ".lock", "a")  # noqa: SIM115  the lock ends with it
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.close()
                raise Busy(f"{folder}: another process is writing here; wait for it, then try again") from None
            if os.fstat(file.fileno()).st_nlink:
                return file, new
            file.close()


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder. Those that processes left that were killed are removed, for nobody holds them any more."""
    for left in Path(gettempdir()).glob(f"{prefix}*"):
        with suppress(BlockingIOError, FileNotFoundError, PermissionError), _held(left):
            shutil.rmtree(left)
    with ExitStack() as stack:
        while True:
            folder = Path(mkdtemp(prefix=prefix))
            with suppress(BlockingIOError, FileNotFoundError):  # another took it for one that was left, and removes it
                stack.enter_context(_held(folder))
                if folder.exists():
                    break
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A folder that is there, for this process alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def damage(path: Path, size: int, checksum: str, look: bool) -> str | None:
    """What is wrong with a file: not there, of another size or (if looked at) of another checksum."""
    try:
        if (there := path.stat().st_size) != size:
            return f"{path} has {there} bytes, the manifest says {size}"
        if look and sha256(path) != checksum:
            return f"{path} is damaged: its sha256 is not the manifest's"
    except FileNotFoundError:
        return f"{path} is missing"
    return None


def cache_folder() -> Path:
    """Where fetched files are kept: ``$RANKPIPE_CACHE``, or ``rankpipe`` in the user's cache folder. Makes nothing."""
    if own := os.environ.get("RANKPIPE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankpipe"


@contextmanager
def disk_errors(path: Path, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn the operating system's refusals to write into a DiskError that names the place.

    :param also: what libraries raise that do not say it by an OSError.
    """
    try:
        yield
    except (OSError, *also) as error:  # type: ignore[misc]  # of classes
        number = error.errno if isinstance(error, OSError) else None
        if number in FULL or (number is None and FULL_SAID.search(str(error))):
            raise DiskError(f"{path}: no space left; nothing was changed. Free some space and try again") from error
        if number in REFUSED and isinstance(error, OSError):
            raise DiskError(f"{error.filename or path}: cannot be written ({error.strerror})") from error
        raise


def room_for(files: int, what: str) -> None:
    """Let this process have so many more files open, of which systems usually allow it 1,024 unless it asks.

    :param what: wants them, for the error.
    :raises DiskError: If the system does not allow so many; says the number.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    listed = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    wanted = files + (len(os.listdir(listed)) if listed.exists() else 0) + SPARE_FILES
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise DiskError(f"{what}: needs {wanted} open files, and this process may have {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def sha256(path: Path) -> str:
    """A file's checksum, hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """What a file or folder holds is on the disk for sure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shown(size: float) -> str:
    """A number of bytes for people: ``1.5 GB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TB"
