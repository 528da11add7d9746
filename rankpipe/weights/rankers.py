"""What ``rankpipe train`` made: the models of a shelf, and each as the reranker that it is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from rankpipe import store
from rankpipe.catalog import near
from rankpipe.errors import ArtefactError, DataError
from rankpipe.store import Manifest

TUNED = "ranker"  # its kind of artefact
SHELF = Path("models")
ADAPTER = "adapter_config.json"  # what PEFT says of an adapter


def tuned(folder: Path) -> Path:
    """Where a model's files lie: in what ``rankpipe train`` made last, if the folder is of the ``models`` shelf.

    :raises ArtefactError: If what it made is damaged, or nothing is made yet.
    """
    if (folder / "recipe.yaml").exists() and not any(folder.glob("*.json")):  # of a manifest, or of a model's own
        raise _untrained(folder)
    return store.open_artefact(folder, kind=TUNED).path if is_tuned(folder) else folder


def is_tuned(folder: Path) -> bool:
    """Whether the folder holds what ``rankpipe train`` made."""
    return (folder / "manifest.json").exists() and store.read_manifest(folder).kind == TUNED


def ranker(name: str, *, gone: bool = False) -> Manifest:
    """A tuned model, by its name on the shelf or by its folder.

    :param gone: whether its files may be somewhere else, as those of a shelf that came with git are.
    :raises DataError: If there is none; says the nearest names.
    :raises ArtefactError: If it is not trained yet, or damaged.
    """
    folder = Path(name).expanduser() if Path(name).expanduser().is_dir() else SHELF / name
    if not folder.is_dir():
        known = [made.folder.name for made in shelf()]
        raise DataError(f"no tuned model {name!r}{near(name, known) or '.'} See: rankpipe models")
    if (folder / "recipe.yaml").exists() and not (folder / "manifest.json").exists():
        raise _untrained(folder)
    if gone and is_tuned(folder) and not (made := store.read_manifest(folder)).path.exists():
        return made
    return store.open_artefact(folder, kind=TUNED)


def _untrained(folder: Path) -> ArtefactError:
    return ArtefactError(f"{folder}: not trained yet; rankpipe train {folder}")


def shelf() -> list[Manifest]:
    """All that are on the shelf, by name; their files are not looked at."""
    found = sorted(path.parent for path in SHELF.glob("*/manifest.json"))
    return [store.read_manifest(folder) for folder in found if is_tuned(folder)]


def has_adapter(made: Manifest) -> bool:
    """Whether it is an adapter beside its base, and no whole model."""
    return ADAPTER in made.files


def method(recipe: dict[str, Any]) -> str:
    """How a recipe trains, in few words."""
    if adapter := recipe.get("adapter"):
        return str(adapter["use"])
    return f"all weights, {recipe['optimizer']['use']}" if recipe.get("optimizer") else "all weights"


def reranker(made: Manifest, *, base: bool = False) -> dict[str, Any]:
    """The recipe of the reranker, over the folder as it lies now.

    :param base: over the model that it was made of, instead.
    """
    node = deepcopy(made.facts["reranker"])
    asked = node.get("lm", node)
    if not has_adapter(made):
        asked["model"] = made.recipe["model"] if base else str(made.folder)
    elif base:
        del asked["adapter"]
    else:
        asked["adapter"] = str(made.folder)
    return dict(node)
