"""Artefacts on disk: written whole or not at all, and known by their manifest.

``NAME/recipe.yaml`` says how, ``NAME/manifest.json`` what was made, ``NAME/made/<build>/`` holds it. Replacing the
manifest is the one moment at which an artefact changes: a reader sees the old build or the new, never a mixture, and
a writer killed at any point leaves the old one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rankpipe.errors import ArtefactError, DiskError
from rankpipe.progress import working
from rankpipe.provenance import commit, digest, versions

HASH_ON_OPEN_BYTES = 64 << 20  # larger artefacts are checked by size when opened, by checksum when verified
REFUSED = {errno.EACCES, errno.EROFS, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Data:
    """What an artefact was made from."""

    name: str
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What an artefact is, and the checksum of each of its files."""

    folder: Path
    kind: str
    format: int
    build: str  # the name of its folder under made/
    recipe: dict[str, Any]
    data: Data
    facts: dict[str, Any]
    files: dict[str, tuple[int, str]]  # name: (size_bytes, sha256)
    versions: dict[str, str]
    commit: str
    created: str
    seconds: float = 0.0
    recipe_hash: str = ""

    @property
    def path(self) -> Path:
        """Where the files lie."""
        return self.folder / "made" / self.build

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(size for size, _ in self.files.values())


@dataclass
class Draft:
    """An artefact being written: put files into ``folder``; note what is worth knowing in ``facts``."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears whole when the block ends, and not at all if it fails.

    :raises DiskError: If the disk is full or the folder cannot be written; the old file is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(
                part, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "\n"
            ) as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, path)
            _fsync(path.parent)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


@contextmanager
def publish(
    folder: Path, *, kind: str, format: int = 1, recipe: dict[str, Any], data: Data, resume: bool = False
) -> Iterator[Draft]:
    """Write an artefact; it replaces the one in ``folder`` when the block ends without an error.

    :param resume: keep what an interrupted build of the same recipe and data left, for this one to go on from.
    :raises ArtefactError: If another process is writing there.
    :raises DiskError: If the disk is full; what was there before is untouched.
    """
    started = datetime.now(UTC)
    key = hashlib.sha256(json.dumps([kind, format, recipe, asdict(data)], default=str).encode()).hexdigest()[:12]
    made, work = folder / "made", folder / "made" / f".work-{key}"
    provenance = {"versions": versions(), "commit": commit()}  # git runs before the lock is held: no child keeps it
    with disk_errors(folder), lock(folder):
        if resume:
            _take_up(folder, work, key)
        _sweep(folder, keep=work.name if resume else "")
        work.mkdir(parents=True, exist_ok=True)
        draft = Draft(work)
        yield draft
        files = {str(p.relative_to(work)): p for p in sorted(work.rglob("*")) if p.is_file()}
        with working(f"checksums of {folder}"):
            sums = {n: (p.stat().st_size, sha256(p)) for n, p in files.items()}
        build = f"{key}-{started:%Y%m%dT%H%M%S%f}"
        manifest = {
            "kind": kind, "format": format, "build": build, "recipe": recipe,
            "recipe_hash": digest(recipe), "data": asdict(data),
            "facts": draft.facts, "files": sums,
            **provenance, "created": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
        }  # fmt: skip
        for path in (*files.values(), *(p for p in work.rglob("*") if p.is_dir()), work):
            _fsync(path)
        os.rename(work, made / build)
        _fsync(made)
        with write(folder / "manifest.json") as f:
            json.dump(manifest, f, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        _sweep(folder, keep=build)


def read_manifest(folder: Path) -> Manifest:
    """What lies in ``folder``, unchecked.

    :raises ArtefactError: If there is no artefact, or its manifest cannot be read.
    """
    folder = Path(folder)  # a text will do
    path = folder / "manifest.json"
    if not path.exists():
        hint = f"build it with: rankpipe index {folder}" if (folder / "recipe.yaml").exists() else "is the path right?"
        raise ArtefactError(f"{folder}: nothing built here; {hint}")
    try:
        known = json.loads(path.read_text("utf-8"))
        known["data"] = Data(**known["data"])
        known["files"] = {name: (size, sha) for name, (size, sha) in known["files"].items()}
        return Manifest(folder=folder, **known)
    except (ValueError, TypeError, KeyError) as error:
        raise ArtefactError(f"{path}: damaged manifest ({error}); {_cure(folder)}") from None


def open_artefact(folder: Path, *, kind: str, format: int = 1) -> Manifest:
    """What lies in ``folder``, checked: of this kind, whole, and (up to 64 MiB) bit for bit as it was written.

    :raises ArtefactError: If it is absent, foreign, of another format or damaged; names the file and the cure.
    """
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise ArtefactError(f"{folder}: holds a {manifest.kind!r}, not a {kind!r}; name the component that made it")
    if manifest.format != format:
        raise ArtefactError(
            f"{folder}: format {manifest.format}, this version reads {format} (made by rankpipe "
            f"{manifest.versions.get('rankpipe')}); {_cure(folder)}"
        )
    if faults := damages(manifest, checksums=manifest.size_bytes <= HASH_ON_OPEN_BYTES):
        raise ArtefactError(f"{folder}: " + "; ".join(faults) + f"; {_cure(folder)}")
    return manifest


def damages(manifest: Manifest, *, checksums: bool = True) -> list[str]:
    """Every file that is missing, of another size or (if asked) of another checksum."""
    with working(f"checksums of {manifest.folder}"):
        return [f for name, known in manifest.files.items() if (f := _damage(manifest.path / name, *known, checksums))]


def _damage(path: Path, size: int, checksum: str, look: bool) -> str | None:
    if not path.exists():
        return f"{path} is missing"
    if path.stat().st_size != size:
        return f"{path} has {path.stat().st_size} bytes, the manifest says {size}"
    if look and sha256(path) != checksum:
        return f"{path} is damaged: its sha256 is not the manifest's"
    return None


def staleness(folder: Path, *, kind: str, format: int = 1, recipe: dict[str, Any], data: Data) -> str | None:
    """Why the artefact must be built (again): absent, damaged, another recipe or other data. None if it is current."""
    try:
        manifest = open_artefact(folder, kind=kind, format=format)
    except ArtefactError as error:
        return str(error)
    if changed := [k for k in {*recipe, *manifest.recipe} if recipe.get(k) != manifest.recipe.get(k)]:
        return f"{folder}: built by another recipe ({', '.join(sorted(changed))} changed)"
    if manifest.data.checksum != data.checksum:
        return f"{folder}: built from other documents ({manifest.data.name}, checksum {manifest.data.checksum[:12]})"
    return None


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """One writer at a time. The operating system frees the lock when its holder ends, however it ends.

    :param wait: wait for the holder to end, however long that takes, instead of refusing.
    :raises ArtefactError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ArtefactError(f"{folder}: another process is writing here; wait for it, then try again") from None
        yield


def cache_folder() -> Path:
    """Where fetched files are kept: ``$RANKPIPE_CACHE``, or ``rankpipe`` in the user's cache folder. Makes nothing."""
    if own := os.environ.get("RANKPIPE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankpipe"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into a DiskError that names the place."""
    try:
        yield
    except OSError as error:
        cut_short = error.errno is None and str(error).endswith(" written")  # all that numpy says of a full disk
        if error.errno in FULL or cut_short:
            raise DiskError(f"{path}: no space left; nothing was changed. Free some space and try again") from error
        if error.errno in REFUSED:
            raise DiskError(f"{error.filename or path}: cannot be written ({error.strerror})") from error
        raise


def sha256(path: Path) -> str:
    """A file's checksum, hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _cure(folder: Path) -> str:
    if (folder / "recipe.yaml").exists():
        return f"build it again with: rankpipe index {folder} --force"
    return "build it again from its documents"


def _sweep(folder: Path, keep: str) -> None:
    """Remove builds that no manifest names: older ones, and what killed writers left."""
    with suppress(ArtefactError):
        keep += " " + read_manifest(folder).build
    for left in (folder / "made").glob("*"):
        if left.name not in keep.split():
            shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(".manifest.json.*.part"):
        left.unlink()


def _take_up(folder: Path, work: Path, key: str) -> None:
    """Make an interrupted build ready to go on, also one killed just before its manifest; torn files away."""
    named = ""
    with suppress(ArtefactError):
        named = read_manifest(folder).build
    whole = [build for build in (folder / "made").glob(f"{key}-*") if build.name != named]
    if whole and not work.exists():
        os.rename(whole[0], work)
    for torn in work.rglob(".*.part"):
        torn.unlink()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
