"""Indexes on their shelf: ``indexes/NAME/recipe.yaml`` says how, and this builds them when they are not current.

A recipe of an index is ``data: ID`` and ``index: {use: KIND, ...}``; KIND's ``build`` takes the other keys. With
``titles: drop`` the titles of its documents are left out; ``split`` is in the collection's name, if it has that one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, get_args

from rankpipe import builds, recipe, seen, store
from rankpipe.catalog import find
from rankpipe.datasets import Dataset
from rankpipe.datasets.dataset import Titles
from rankpipe.datasets.opening import corpus_files, open_documents
from rankpipe.engine import Engine, Local
from rankpipe.errors import ArtefactError, DataError, Fault, MissingExtra, RankpipeError, RecipeError, placed, refuse
from rankpipe.progress import notice
from rankpipe.retrieve import shards
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.folder import written
from rankpipe.retrieve.forecast import Forecast, forecast, free_disk, free_memory
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.memory import size_bytes
from rankpipe.retrieve.passages import Passages
from rankpipe.stage import Retriever

ALSO = {"faiss": "dense", "late": "colbert"}  # kinds by other names
KEYS = ("data", "split", "titles", "index")
Told = Callable[[Forecast], None]
GIVEN = ("data", "folder", "memory")  # what build() is handed beside the recipe's arguments


def check(tree: dict[str, Any]) -> list[str]:
    """Every fault in the recipe of an index."""
    faults = [f"no key {k!r}; an index has {', '.join(KEYS)}" for k in tree if k not in KEYS]
    if tree.get("titles", "join") not in get_args(Titles):
        faults.append(f"titles: {tree['titles']!r} is not one of {', '.join(get_args(Titles))}")
    if "data" not in tree:
        faults.append("data: missing; name a data set or a path")
    if not isinstance(tree.get("index"), dict) or "use" not in tree["index"]:
        return [*faults, "index: missing; for example {use: bm25}"]
    index = called(tree["index"])
    faults += recipe.bind(index, "index", method="build", given=GIVEN)
    return faults or placed("index", _refused(index))


def called(index: dict[str, Any]) -> dict[str, Any]:
    """The node of an index with its kind by the name that recipes of pipelines have, too."""
    return {**index, "use": ALSO.get(index["use"], index["use"])}


def _refused(index: dict[str, Any]) -> list[str]:
    """What the kind of index refuses of its arguments' values, and the extras it lacks, if it can tell before
    building.
    """
    kind, faults = find(index["use"]), list[str]()
    for ask in ("check", "needs"):
        try:
            if hasattr(kind, ask):
                getattr(kind, ask)(**_own(full(kind, index)))
        except MissingExtra as error:
            faults.append(Fault(str(error), type(error)))
        except RecipeError as error:
            faults += error.faults
    return faults


def _own(index: dict[str, Any]) -> dict[str, Any]:
    """The arguments that no other kind need have."""
    return {k: v for k, v in index.items() if k not in ("use", *Common.__annotations__)}


def ensure(folder: Path, **how: Any) -> str | None:
    """Build the index that the recipe in ``folder`` describes, unless it is there and current.

    :param engine: as :func:`build`; also ``shard``.
    :return: why it was built; None if it was current.
    :raises RecipeError: If the recipe has faults; MissingExtra if they are only of extras.
    """
    tree = written(folder)
    refuse(placed(str(folder), check(tree)))
    with store.replacing(changed=False):  # the recipe says what is to be here
        return build(opened(tree), folder, tree["index"], **how)


def ready(folder: Path, **how: Any) -> None:
    """Build the index that the recipe in ``folder`` describes, unless it is there. One that was changed since it was
    built is taken as it is, and so is one whose documents are not where they were; both are said.

    :raises: As :func:`ensure`.
    """
    if why := _taken_as_it_is(folder):
        notice(f"{folder}: {why}; it is searched as it is")
    else:
        ensure(folder, **how)


def _taken_as_it_is(folder: Path) -> str:
    """Why an index that was built by the recipe in its folder is not to be built anew; "" if it may be."""
    tree = written(folder)
    with suppress(ArtefactError):
        if not check(tree) and not store.read_manifest(folder).unlike(_whole(tree["index"])):
            if changes(folder):
                return "was changed since it was built"
            try:
                opened(tree)
            except DataError as error:
                return f"its documents are not there any more ({error})"
    return ""


def _whole(index: dict[str, Any]) -> dict[str, Any]:
    index = called(index)
    return full(find(index["use"]), index)


def outdated(folder: Path) -> bool:
    """Whether the documents that the recipe in ``folder`` names are no longer those that its index was built from.

    Files of this machine that are older than the index are taken to be the same; only newer ones are read, once.
    Documents that are not here any more, or are somewhere else, are not looked for.
    """
    if not (folder / "recipe.yaml").exists() or changes(folder):
        return False
    manifest = store.read_manifest(folder)
    built = datetime.fromisoformat(manifest.created).timestamp()
    with suppress(RankpipeError):  # whatever is wrong with them, the index is whole
        tree = recipe.load(folder)
        read = [file for file in corpus_files(str(tree.get("data", ""))) if file.is_file()]
        if any(file.stat().st_mtime > built for file in read):
            found = seen.once(folder / "recipe.yaml", tree, read, lambda: opened(tree).checksum)
            return found != manifest.data.checksum
    return False


def opened(tree: dict[str, Any]) -> Dataset:
    """The collection that the recipe of an index names."""
    return open_documents(tree["data"], tree.get("split", "test"), titles=tree.get("titles"))


def build(
    data: Dataset,
    folder: Path,
    index: dict[str, Any],
    *,
    force: bool = False,
    memory: str | None = None,
    told: Told | None = None,
    engine: Engine | None = None,
    shard: int | None = None,
) -> str | None:
    """Build one index, unless it is there and current; the reason, or None.

    :param memory: see :class:`rankpipe.retrieve.common.Common`.
    :param told: is told what it will take, before it is done.
    :param engine: builds shards of the collection, which become segments; None builds one segment here.
    :param shard: documents of a shard; also without an engine.
    :raises ArtefactError: If documents were added to it or deleted from it since, which only ``force`` throws away; or
        if something else is there (:func:`rankpipe.store.claim`).
    :raises MissingExtra: If what would build it is not installed.
    :raises RecipeError: If it will take more memory or disk than there is.
    """
    kind = find((index := called(index))["use"])
    whole = full(kind, index)
    if not (folder / "recipe.yaml").exists():
        store.claim(folder, index["use"], "name another folder, or --force replaces it")
    refuse(_refused(index))
    form = getattr(kind, "format", 1)
    why = (
        "asked for" if force else store.staleness(folder, kind=index["use"], format=form, recipe=whole, data=data.data)
    )
    if not force and (folder / "manifest.json").exists():
        builds.refuse_changed(folder, store.read_manifest(folder).facts)  # a damaged one may be of a changed index
    if not why:
        return None
    if not force and (folder / "manifest.json").exists():
        notice(f"{why}; building it again")
    if memory and "memory" not in recipe.parameters(kind.build):
        raise RecipeError([f"memory: {index['use']} has no such limit; leave it out"])
    if shard is None and engine is not None:
        shard = shards.SHARD
    resume: Any = size_bytes(memory) if shard is None else shards.goes_on(shard, size_bytes(memory))
    work = builds.work(folder, index["use"], form, whole, asdict(data.data), resume)
    foreseen = forecast(kind, data, whole, memory, shard, work)
    if foreseen:
        _refuse(foreseen, folder, memory, shard)
        _tell(foreseen, folder, told)
    with store.replacing() if force else nullcontext():
        if shard is None:
            given = {"memory": memory} if memory else {}
            kind.build(data, folder, **{k: v for k, v in index.items() if k != "use"}, **given)
        else:
            _by_shards(kind, data, folder, index, whole, engine or Local(), shard, size_bytes(memory))
    if foreseen:
        made = store.read_manifest(folder)
        notice(f"{folder}: {foreseen.beside(made.seconds, made.size_bytes)}")
    return why


def _by_shards(
    kind: Any,
    data: Dataset,
    folder: Path,
    index: dict[str, Any],
    written: dict[str, Any],
    engine: Engine,
    shard: int,
    memory: int,
) -> None:
    """Build shards, which become segments.

    :raises RecipeError: If this kind has none.
    """
    if not (issubclass(kind, Living) and kind.apart):
        raise RecipeError([f"{folder}: {index['use']} has no shards; build it without engine and shard"])
    shards.build(kind, data, folder, written, engine, shard, memory)


def _refuse(foreseen: Forecast, folder: Path, memory: str | None, shard: int | None) -> None:
    foreseen.refuse(free_memory() if shard is None else inf, free_disk(folder))  # workers have their own
    if shard is not None:
        foreseen.refuse_shards(size_bytes(memory), shard)


def _tell(foreseen: Forecast, folder: Path, told: Told | None) -> None:
    notice(f"{folder}: {foreseen}")
    if told:
        told(foreseen)


def changes(folder: Path) -> int:
    """How many batches of changes there were since the index in ``folder`` was built; 0 if there is none to be read."""
    with suppress(ArtefactError):
        return int(store.read_manifest(folder).facts.get("batches", 0))
    return 0


def full(kind: type[Retriever], index: dict[str, Any]) -> dict[str, Any]:
    """The recipe with every default written out, as manifests keep it.

    :raises RecipeError: If what is said of passages has faults.
    """
    parameters = recipe.parameters(kind.build)  # type: ignore[attr-defined]  # every index kind has it
    defaults = {k: p.default for k, p in parameters.items() if k not in GIVEN}
    written = {"use": index["use"], **defaults, **{k: v for k, v in index.items() if k != "use"}}
    if cut := Passages.of(written.get("passages")):
        written["passages"] = cut.told
    return written
