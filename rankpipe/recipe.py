"""A recipe is a tree: ``use`` names a component, the other keys are its arguments. Check it whole, then build it.

Where only a component fits, its name will do: :func:`meant`.

Recipes live on shelves, ``HOUSE/{indexes,models,eval}/NAME/recipe.yaml``; paths inside them start at the house.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import rshift
from pathlib import Path
from typing import Any

from rankpipe.catalog import find, is_known
from rankpipe.errors import DataError, Fault, MissingExtra, RankpipeError, RecipeError, placed
from rankpipe.provenance import digest
from rankpipe.signature import defaults, misfits, parameters, shared, spelled, spelling, spread

__all__ = [
    "bind",
    "build",
    "check",
    "defaults",
    "digest",
    "house",
    "load",
    "meant",
    "misjoined",
    "parameters",
    "paths",
    "pipeline",
    "rooted",
    "shared",
    "spelled",
    "walk",
]

SHELVES = ("indexes", "models", "eval")


def load(path: Path) -> dict[str, Any]:
    """Read ``path``, or ``path/recipe.yaml`` if it is a folder.

    :raises DataError: If there is none, or it is no YAML mapping; says the line.
    """
    import yaml

    file = path / "recipe.yaml" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: is a folder, not a recipe" if file.is_dir() else f"{file}: no such recipe")
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{file}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character, not UTF-8, the date 2026-13-01
        raise DataError(f"{file}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{file}:1: a recipe is a mapping of keys to values, not {type(tree).__name__}")
    return tree


def house(path: Path) -> Path:
    """The folder that paths in this recipe start at: above its shelf, or the working folder off any shelf."""
    folder = (path if path.is_dir() else path.parent).resolve()
    return folder.parent.parent if folder.parent.name in SHELVES else Path.cwd()


def place(folder: Path, house: Path) -> str:
    """How recipes of a house name a folder: by its path from there, if it lies below."""
    folder, house = folder.resolve(), house.resolve()
    return str(folder.relative_to(house) if folder.is_relative_to(house) else folder)


def meant(node: Any) -> Any:
    """The tree, every component in it a mapping that says which: ``plan: tournament`` is ``plan: {use: tournament}``,
    ``prompt: mine.yaml`` the prompt in that file, ``prompt: {use: prompt, file: mine.yaml}``, and
    ``negatives: {skip: 3}`` the only component that can be there, ``negatives: {use: negatives, skip: 3}``.

    A name stands for a component only where the argument's kind is none that a name could be.
    """
    if isinstance(node, list):
        return [meant(n) for n in node]
    if not isinstance(node, dict):
        return node
    node = {k: meant(v) for k, v in node.items()}
    try:
        kinds = spelled(node["use"])
    except (KeyError, TypeError, MissingExtra, RecipeError):
        return node  # no component, or none that can be found, which check() reports
    return {k: _meant(k, v, kinds[k].split(" | ")) if k in kinds else v for k, v in node.items()}


def _meant(name: str, said: Any, kinds: list[str]) -> Any:
    if isinstance(said, dict) and "use" not in said and is_known(name) and [find(name).__name__] == kinds:
        return {"use": name, **said}
    if not isinstance(said, str):
        return said
    if said.endswith((".yaml", ".yml")) and any(kind.endswith("Prompt") for kind in kinds):
        return {"use": "prompt", "file": said}
    classes = all(re.fullmatch(r"[A-Z]\w*", kind) and kind not in ("Any", "Path") for kind in {*kinds} - {"None"})
    return {"use": said} if classes and is_known(said) else said


def walk(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node that uses a component, with its place in the tree, leaves first."""
    return _walked(meant(node), "")


def _walked(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        for i, n in enumerate(node):
            yield from _walked(n, f"{place}[{i}]")
    elif isinstance(node, dict):
        for k, v in node.items():
            yield from _walked(v, f"{place}.{k}".lstrip("."))
        if "use" in node:
            yield place, node


def check(tree: Any, place: str = "", root: Path = Path()) -> list[str]:
    """Every fault in the tree, each with its place; an empty list if it can be built.

    Components are made, for they know best what they refuse; but not those that open files (``Stage.opens``), nor
    those that have a fault inside.

    :param root: where paths start.
    """
    faults: list[str] = []
    _rehearsed(meant(tree), place, root, faults)
    return faults


def _rehearsed(node: Any, place: str, root: Path, faults: list[str]) -> Any:
    """What :func:`build` would make; where it can't or shouldn't be, an empty instance stands in."""
    if isinstance(node, list):
        return [_rehearsed(n, f"{place}[{i}]", root, faults) for i, n in enumerate(node)]
    if not isinstance(node, dict):
        return node
    before = len(faults)
    made = {k: _rehearsed(v, f"{place}.{k}".lstrip("."), root, faults) for k, v in node.items() if k != "use"}
    if "use" not in node:
        return made
    faults += bind(node, place)
    if len(faults) > before:
        return None
    call = find(node["use"])
    where = f"{place}: {node['use']}" if place else node["use"]
    try:
        if getattr(call, "opens", False):
            stand_in = object.__new__(call)
            return stand_in if made.get("where") is None else stand_in.filtered(made["where"])
        return _called(call, made, root)
    except RecipeError as error:
        faults += placed(where, error.faults)
    except DataError as error:  # as of a prompt that it names
        faults.append(f"{where}: {error}")
    except RankpipeError as error:
        faults.append(Fault(f"{where}: {error}", type(error)))
    return None


def bind(node: dict[str, Any], place: str, method: str | None = None, given: Sequence[str] = ()) -> list[str]:
    """The faults of one component call: unknown name, missing or unknown argument, wrong kind of value.

    :param method: check the arguments against this class method instead of the constructor.
    :param given: arguments of it that the caller supplies.
    """
    where = f"{place}: " if place else ""
    try:
        call = find(node["use"])
    except RecipeError as error:
        return [where + f for f in error.faults]
    except MissingExtra as error:
        return [Fault(f"{where}{error}", type(error))]
    if method and not inspect.ismethod(getattr(call, method, None)):  # of the class
        return [f"{where}{node['use']}: cannot {method}"]
    arguments = {k: v for k, v in node.items() if k != "use"}
    return [f"{where}{node['use']}: {f}" for f in misfits(getattr(call, method) if method else call, arguments, given)]


def build(node: Any, root: Path) -> Any:
    """Make the objects, leaves first. Arguments that a component declares as ``Path`` start at ``root``."""
    return _built(meant(node), root)


def _built(node: Any, root: Path) -> Any:
    if isinstance(node, list):
        return [_built(n, root) for n in node]
    if not isinstance(node, dict):
        return node
    made = {k: _built(v, root) for k, v in node.items() if k != "use"}
    if "use" not in node:
        return made
    return _called(find(node["use"]), made, root)


def _called(call: Callable[..., Any], made: dict[str, Any], root: Path) -> Any:
    made = rooted(call, made, root)
    values = [value for name in spread(call) for value in made.pop(name, ())]
    return call(*values, **made)


def rooted(call: Callable[..., Any], arguments: dict[str, Any], root: Path) -> dict[str, Any]:
    """The arguments, those declared as ``Path`` made to start at ``root``."""
    return {k: root / v if k in paths(call) and isinstance(v, str) else v for k, v in arguments.items()}


def paths(call: Callable[..., Any]) -> list[str]:
    """The arguments that a component declares as ``Path``."""
    return [name for name, p in parameters(call).items() if spelling(p).startswith("Path")]


def pipeline(stages: list[dict[str, Any]], root: Path) -> Any:
    """Build a list of stages and compose them with ``>>``."""
    return reduce(rshift, build(stages, root))


def misjoined(stages: list[dict[str, Any]], place: str) -> list[str]:
    """Neighbours in a pipeline of which one does not take what the other gives. Builds nothing."""
    faults: list[str] = []
    gives = None
    for i, node in enumerate(stages):
        try:
            kind = find(node["use"])
        except (RecipeError, KeyError, TypeError):
            return faults  # reported by check()
        takes = getattr(kind, "takes", None)
        if takes is None:
            return [*faults, f"{place}[{i}]: {node['use']} is not a stage"]
        wanted = gives.__name__ if gives else "Query"
        if takes.__name__ != wanted:
            faults.append(f"{place}[{i}]: {node['use']} takes {takes.__name__}, but is given {wanted}")
        gives = kind.gives
    return faults
