"""The folder of an index: which index it is, and what lies beside what was built: its recipe, the manifest's copy."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from rankpipe import recipe, store
from rankpipe.catalog import find, is_known
from rankpipe.errors import ArtefactError, DataError
from rankpipe.manifest import Manifest
from rankpipe.retrieve.index import Index
from rankpipe.stage import FILTERS, Retriever


def kind_of(folder: Path | str) -> str:
    """The component that searches what was built in a folder.

    :raises ArtefactError: If none does.
    """
    kind = store.read_manifest(folder).kind
    component = find(kind) if is_known(kind) else None
    if not (isinstance(component, type) and issubclass(component, Retriever)):
        raise ArtefactError(f"{folder}: holds a {kind!r}, which is no index")
    return kind


def open_index(folder: Path | str, **how: Any) -> Index:
    """The index in a folder, by the class of :mod:`rankpipe` that made it.

    :param how: what that class takes: ``k``, ``where``, ...
    :raises ArtefactError: If there is no whole index.
    """
    opened: Index = find(kind_of(folder))(folder, **how)
    return opened


def written(folder: Path) -> dict[str, Any]:
    """The recipe in the folder of an index.

    :raises DataError: If there is none, or it cannot be read; says how to go on then.
    """
    try:
        return recipe.load(folder)
    except DataError as error:
        if not (folder / "recipe.yaml").exists():
            raise
        named = quote(str(folder))
        raise DataError(
            f"{error}; bring back a copy; or remove it, for an index is searched and changed without it; or replace it "
            f"with: rankpipe index build {named} --data ... --force (rankpipe index info {named} has the arguments)"
        ) from None


def damages_beside(made: Manifest) -> list[str]:
    """What is wrong with the recipe beside what was built, and with the copy of its manifest; each with its cure."""
    faults, spare = list[str](), made.path / store.SPARE
    if (made.folder / "recipe.yaml").exists():
        try:
            if "index" not in written(made.folder) and made.kind in FILTERS:
                faults.append(f"{made.folder / 'recipe.yaml'}: has no key 'index', as that of an index; bring it back")
        except DataError as error:
            faults.append(str(error))
    if spare.exists() and spare.read_bytes() != (whole := made.folder / "manifest.json").read_bytes():
        faults.append(f"{spare} is damaged, the copy of {whole}: cp {quote(str(whole))} {quote(str(spare))}")
    return faults
