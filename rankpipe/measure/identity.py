"""What decides what a stage gives, in one word: by it the work of earlier runs is known again."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from rankpipe import disk, recipe, store, weights
from rankpipe.catalog import find
from rankpipe.errors import DataError
from rankpipe.provenance import versions

LIBRARIES = ("rankpipe", "onnxruntime", "tokenizers", "torch", "transformers", "sentence-transformers")


def identity(node: dict[str, Any], root: Path) -> str:
    """Everything that decides what a stage gives: its recipe, the files that names, its code, weights and libraries."""
    parts: list[Any] = [node, versions(LIBRARIES)]
    for _, part in recipe.walk(node):
        call = find(part["use"])
        parts.append(_code(Path(inspect.getfile(inspect.unwrap(call)))))
        read = [name for name in recipe.paths(call) if name not in getattr(call, "writes", ())]
        parts += [_content(root / part[name]) for name in read if isinstance(part.get(name), str)]
        if isinstance(part.get("model"), str) and "url" not in inspect.signature(call).parameters:  # else on a server
            parts.append(weights.identity(weights.resolve(part["model"])))
    return recipe.digest(parts)


def builds(tree: Any, root: Path) -> dict[str, str]:
    """Of each artefact that a recipe names, indexes and models, by its folder: which build of it was there."""
    named = {
        value for _, part in recipe.walk(tree) for value in part.values()
        if isinstance(value, str) and (root / value / "manifest.json").exists()
    }  # fmt: skip
    return {folder: store.read_manifest(root / folder).build for folder in sorted(named)}


def _code(source: Path) -> list[str]:
    """Checksums of a component's module; of ours also of all in its room (prompts, plans, ...) and the ground floor."""
    house = Path(recipe.__file__).parent
    if not source.is_relative_to(house):
        return [disk.sha256(source)]
    files = {*source.parent.rglob("*.py"), *source.parent.rglob("*.yaml"), *house.glob("*.py")}
    return [disk.sha256(file) for file in sorted(files)]


def _content(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return weights.identity(path) if path.is_dir() else disk.sha256(path)
