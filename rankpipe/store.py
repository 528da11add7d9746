"""Artefacts on disk: written whole or not at all, and known by their manifest.

``NAME/recipe.yaml`` says how, ``NAME/manifest.json`` what was made, ``NAME/made/<build>/`` holds it, and a copy of its
manifest (``.manifest.json``). Replacing the manifest is the one moment at which an artefact changes: a reader sees the
old build or the new, never a mixture, and a writer killed at any point leaves the old one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from rankpipe import builds, seen
from rankpipe.builds import SPARE as SPARE
from rankpipe.disk import disk_errors, fsync, lock, sha256, write
from rankpipe.errors import ArtefactError, several
from rankpipe.manifest import Data as Data
from rankpipe.manifest import Manifest as Manifest
from rankpipe.progress import working
from rankpipe.provenance import commit, digest, versions

Sums = Mapping[str, tuple[int, str]]  # name: (size_bytes, sha256)
MADE_BY = {"ranker": "train", "runs": "run"}  # kinds of artefacts that are no indexes, by what makes them
SHOWN = 3  # faults of files
TEXTS = "docs.jsonl"  # where an index of segments keeps its documents
OTHERS, CHANGED = "artefacts of other kinds", "and what was changed since it was built"
_replaces: ContextVar[Sequence[str]] = ContextVar("replaces", default=())


@dataclass
class Draft:
    """An artefact being written: put files into ``folder``; note what is worth knowing in ``facts``."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, tuple[int, str]] = field(default_factory=dict)  # of files that are on the disk for sure, if known
    spent_s: float = 0.0  # on it before it was begun


@contextmanager
def publish(
    folder: Path, *, kind: str, format: int = 1, recipe: dict[str, Any], data: Data, resume: object = None
) -> Iterator[Draft]:
    """Write an artefact; it replaces the one in ``folder`` when the block ends without an error.

    :param resume: keep what an interrupted build of the same recipe and data left, for this one to go on from, if it
        was told the same here; anything but None.
    :raises ArtefactError: If another process is writing there, or an artefact of another kind is there (but see
        :func:`replacing`).
    :raises DiskError: If the disk is full; what was there before is untouched.
    """
    folder = Path(folder)  # a text will do
    refuse_other(folder, kind)
    known = _Known(kind, format)
    work = builds.work(folder, kind, format, recipe, asdict(data), resume)
    with disk_errors(folder), lock(folder):
        refuse_other(folder, kind)  # what was changed before the lock was held
        named = _named(folder)
        if resume is not None:
            builds.take_up(folder, work, named, digest)
        else:
            shutil.rmtree(work, ignore_errors=True)
        builds.sweep(folder, named, "by other settings or of other data", work.name)
        with builds.working(work, goes_on=resume is not None):
            draft = Draft(work)
            yield draft
            known.commit(folder, recipe, data, draft, draft.sums)


@contextmanager
def replacing(asked: bool = True, *, changed: bool = True) -> Iterator[None]:
    """Inside, what is published takes the place of an artefact of another kind, too.

    :param asked: whether it does.
    :param changed: also of one that was changed since it was built.
    """
    token = _replaces.set((OTHERS, CHANGED)[: asked * (1 + changed)])
    try:
        yield
    finally:
        _replaces.reset(token)


def claim(folder: Path, kind: str, cure: str = "name another folder", beside: str = "") -> None:
    """Refuse to write an artefact where something else is: what :func:`publish` refuses, and files of no artefact.

    :param cure: what to do about an artefact of another kind.
    :param beside: what this kind keeps beside what is built, and before it.
    :raises ArtefactError: If it is.
    """
    if not refuse_other(folder, kind, cure) and folder.is_dir():
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".manifest.json.")}
        builds_there = [builds.OURS.fullmatch(path.name) for path in (folder / "made").glob("*")]
        ours = {".lock", "made", "manifest.json"} if any(builds_there) else {".lock"}
        if others := sorted(there - ours - {beside}):
            raise ArtefactError(f"{folder}: holds {others[0]}, and nothing that was built; name another folder")


def refuse_other(folder: Path, kind: str, cure: str = "name another folder") -> bool:
    """Whether an artefact is there.

    :param cure: what to do about one of another kind.
    :raises ArtefactError: If it is of another kind, or was changed since it was built.
    """
    try:
        there = read_manifest(folder)
    except ArtefactError:
        if CHANGED not in _replaces.get() and any((folder / "made").glob(f"{builds.CHANGED}-*")):
            raise  # what is there was changed, and would be lost
        return False
    if there.kind != kind and OTHERS not in _replaces.get():
        raise ArtefactError(f"{folder}: holds a {there.kind!r}, which a {kind!r} does not replace; {cure}")
    if CHANGED not in _replaces.get():
        builds.refuse_changed(folder, there.facts)
    return True


@contextmanager
def amend(folder: Path, *, kind: str, format: int = 1) -> Iterator[tuple[Manifest, Draft]]:
    """Change an artefact: the draft has all its files, which the block adds to, replaces or removes.

    They are the old build's own (hard links): a file may be replaced by a new one, but never written into. A kill at
    any point leaves the artefact as it was before the block or as it is after it.

    :raises ArtefactError: If another process is writing there, or there is no whole artefact of this kind.
    :raises DiskError: If the disk is full; what was there before is untouched.
    """
    known = _Known(kind, format)
    with disk_errors(folder), lock(folder):
        old = open_artefact(folder, kind=kind, format=format)
        work = folder / "made" / builds.AMENDED
        builds.sweep(folder, old.build, "begun before this change")
        with builds.working(work):
            for name in old.files:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                builds.linked(old.path / name, work / name)
            draft = Draft(work, dict(old.facts))
            yield old, draft
            kept = {n: s for n, s in old.files.items() if builds.same(old.path / n, work / n)}
            known.commit(folder, old.recipe, old.data, draft, kept)


def tidy(folder: Path) -> None:
    """Remove what killed writers of an artefact have left.

    :raises Busy: If another process is writing there.
    """
    with disk_errors(folder), lock(folder):
        builds.sweep(folder, _named(folder), "begun before this")


@dataclass(frozen=True)
class _Known:
    """What is known of an artefact before it is written. Made before the lock is held: git's process would keep it."""

    kind: str
    format: int
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    provenance: dict[str, Any] = field(default_factory=lambda: {"versions": versions(), "commit": commit()})

    def commit(self, folder: Path, recipe: dict[str, Any], data: Data, draft: Draft, sums: Sums) -> None:
        """Make the draft the artefact.

        :param sums: of its files, as far as they are known already.
        """
        work, made = draft.folder, folder / "made"
        files = {
            str(p.relative_to(work)): p
            for p in sorted(work.rglob("*"))
            if p.is_file() and p.name not in (builds.SUMS, SPARE)
        }
        fresh = [p for n, p in files.items() if n not in sums]
        with working(f"checksums of {folder}"):
            sums = {n: sums.get(n) or (p.stat().st_size, sha256(p)) for n, p in files.items()}
        build = f"{work.name.removeprefix('.work-')}-{self.started:%Y%m%dT%H%M%S%f}"
        manifest = {
            "kind": self.kind, "format": self.format, "build": build, "recipe": recipe,
            "recipe_hash": digest(recipe), "data": asdict(data), "facts": draft.facts, "files": sums,
            **self.provenance, "created": f"{self.started:%Y-%m-%dT%H:%M:%SZ}",
            "seconds": round(draft.spent_s + (datetime.now(UTC) - self.started).total_seconds(), 3),
        }  # fmt: skip
        plain = json.loads(json.dumps(manifest, default=str))
        text = json.dumps({**plain, "checksum": digest(plain)}, indent=1, sort_keys=True, ensure_ascii=False)
        (work / SPARE).write_text(text, "utf-8")
        for path in (*fresh, work / SPARE, *(p for p in work.rglob("*") if p.is_dir()), work):
            fsync(path)
        os.rename(work, made / build)
        fsync(made)
        with write(folder / "manifest.json") as f:
            f.write(text)
        for noted in (made / build).rglob(builds.SUMS):
            noted.unlink()
        seen.note(folder, {made / build / name: known for name, known in sums.items()})
        builds.sweep(folder, build)


def read_manifest(folder: Path | str) -> Manifest:
    """What lies in ``folder``, unchecked.

    :raises ArtefactError: If there is no artefact, or its manifest cannot be read.
    """
    folder = Path(folder)  # a text will do
    path = folder / "manifest.json"
    if not path.exists() and any((folder / "made").glob("[!.]*")):
        raise ArtefactError(f"{path} is missing, though something was built here; {_brought_back(folder)}")
    if not path.exists() and any((folder / "made").glob(".work-*")):
        raise ArtefactError(f"{folder}: a build of it has not come to its end; the same command again goes on")
    if not path.exists():
        there = (folder / "recipe.yaml").exists()
        hint = f"build it with: rankpipe index build {folder}" if there else "is the path right?"
        raise ArtefactError(f"{folder}: {'is a file' if folder.is_file() else 'nothing built here'}; {hint}")
    try:
        known = builds.told(path, digest)
        known["data"] = Data(**known["data"])
        known["files"] = {name: (size, sha) for name, (size, sha) in known["files"].items()}
        return Manifest(folder=folder, **known)
    except (ValueError, TypeError, KeyError) as error:
        raise ArtefactError(f"{path}: damaged manifest ({error}); {_brought_back(folder)}") from None


def open_artefact(folder: Path, *, kind: str, format: int = 1, read: Callable[[str], bool] = bool) -> Manifest:
    """What lies in ``folder``, checked: of this kind, whole, and bit for bit as it was written. Files of an artefact of
    over 64 MiB are read only if they were written to since they were last seen to be whole.

    :param read: whether a file of this name is to be read; of others only the size is looked at.
    :raises ArtefactError: If it is absent, foreign, of another format or damaged; names the file and the cure.
    """
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise ArtefactError(f"{folder}: holds a {manifest.kind!r}, not a {kind!r}; name the component that made it")
    if manifest.format != format:
        raise ArtefactError(
            f"{folder}: format {manifest.format}, this version reads {format} (made by rankpipe "
            f"{manifest.versions.get('rankpipe')}); {cure(folder)}"
        )
    faults = seen.damages(folder, manifest.paths, among={manifest.path / name for name in manifest.files if read(name)})
    if not manifest.path.exists():
        faults = [f"{manifest.path.relative_to(folder)} is gone, with all that the manifest names"]
    if faults and read_manifest(folder).build != manifest.build:  # replaced meanwhile
        return open_artefact(folder, kind=kind, format=format, read=read)
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise ArtefactError(f"{folder}: " + "; ".join([*faults[:SHOWN], *more, cure(folder, manifest)]))
    return manifest


def damages(manifest: Manifest) -> list[str]:
    """Every file that is missing, of another size or of another checksum."""
    return seen.damages(manifest.folder, manifest.paths, all_of_them=True)


def staleness(folder: Path, *, kind: str, format: int = 1, recipe: dict[str, Any], data: Data) -> str | None:
    """Why the artefact must be built (again): absent, damaged, another recipe or other data. None if it is current."""
    try:
        manifest = open_artefact(folder, kind=kind, format=format)
    except ArtefactError as error:
        return str(error)
    if changed := manifest.unlike(recipe):
        return f"{folder}: built by another recipe ({', '.join(changed)} changed)"
    if manifest.data.checksum != data.checksum:
        return f"{folder}: built from other documents ({manifest.data.name}, checksum {manifest.data.checksum[:12]})"
    return None


def cure(folder: Path, manifest: Manifest | None = None) -> str:
    """How to get a damaged artefact back; the manifest, if it can be read, knows of changes after the build."""
    made = manifest.facts.get("batches", 0) if manifest else 0
    again = several(made, "batch", "batches")
    then = f", then make its {again} of changes again, or bring back a copy" if made else ""
    if manifest and any(path.name == TEXTS for path in manifest.paths):
        then += f"; what documents it has may be whole: rankpipe index export {quote(str(folder))} --out FILE"
    if (folder / "recipe.yaml").exists():
        verb = MADE_BY.get(manifest.kind if manifest else "", "index build")
        return f"build it again with: rankpipe {verb} {quote(str(folder))} --force{then}"
    return f"build it again from its documents{then}"


def _brought_back(folder: Path) -> str:
    """How to get a manifest back: its copy, if there is no doubt which build it was of."""
    found = [spare for made in (folder / "made").glob("[!.]*") if (spare := made / SPARE).exists()]
    if len(found) == 1:
        return f"bring back its copy: cp {quote(str(found[0]))} {quote(str(folder / 'manifest.json'))}"
    return f"{cure(folder)}; what was changed since it was built, if anything, is lost with it"


def _named(folder: Path) -> str:
    """The build that the manifest names; "" if there is none."""
    with suppress(ArtefactError):
        return read_manifest(folder).build
    return ""
