"""index build, info, verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import app, guard, options, show
from rankpipe.errors import ArtefactError, Busy, CommandError, DataError, MissingExtra

if TYPE_CHECKING:
    from rankpipe.manifest import Manifest
    from rankpipe.retrieve.forecast import Forecast

index = typer.Typer(help="Build an index, and change it while it is searched.", no_args_is_help=True)
app.add_typer(index, name="index")
ROUNDS = 5  # of looking at an index that is changed meanwhile
GO_ON = "what was whole is kept; to go on from there"
Folder = Annotated[Path, typer.Argument(help="The folder of an index.")]


@show.verb(index, "build", recipe=True)
def build(
    folder: Annotated[Path, typer.Argument(help="The index: a folder to make, or one with a recipe.yaml.")],
    data: options.DataOrNone = None,
    split: options.SplitOrNone = None,
    titles: options.Titles = None,
    use: Annotated[
        str | None,
        typer.Option("--use", "-u", help="bm25 (if not said), lucene, dense (faiss), sparse, colbert (late), milvus."),
    ] = None,
    settings: options.Set = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="What it may hold, as 1GB; an index in less has more segments.")
    ] = None,
    recall: Annotated[
        float | None, typer.Option("--recall", help="Search by HNSW or IVF, tuned to find so much of the 10 nearest.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build even if it is current, in the place of whatever was built there.")
    ] = False,
    engine: options.Engine = options.Engines.local,
    address: options.Address = None,
    gpus: options.Gpus = 0,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Documents of a segment; 65536 with a cluster, else one is made of all.")
    ] = None,
) -> None:
    """Build an index from a collection.

    rankpipe index build my-index --data path/to/beir-folder
    rankpipe index build my-vectors --data corpus.jsonl --use dense --set model=bge-small
    rankpipe index build my-vectors --data corpus.jsonl --use dense --recall 0.95
    rankpipe index build my-index --data huge.jsonl.gz --memory 2GB
    rankpipe index build indexes/pydocs-bm25
    rankpipe index build my-index --data corpus.jsonl --engine ray --address head:6379
    """
    from rankpipe import store
    from rankpipe.retrieve import shelf

    foreseen: list[Forecast] = []
    written = folder / "recipe.yaml"
    how: dict[str, Any] = {
        "force": force, "memory": memory, "told": foreseen.append, "shard": shard,
        "engine": options.engine(engine, address, gpus),
    }  # fmt: skip
    if data is not None:
        settings = [*(settings or ()), *([f"recall={recall}"] if recall is not None else ())]
        with guard.spelled(), store.replacing(force), _going_on(folder):
            kind = use or "bm25"
            node = options.component(shelf.ALSO.get(kind, kind), settings, method="build", given=shelf.GIVEN)
            tree = {**_collection(data, split, titles), "index": node}
            _refuse_other(written, tree, force)
            why = shelf.build(shelf.opened(tree), folder, node, **how)
        _write_recipe(written, tree)  # only now: a build that fails changes nothing
    elif written.exists():
        _refuse_said(written, use=use, set=settings, titles=titles, recall=recall, split=split)
        with _going_on(folder):
            why = shelf.ensure(folder, **how)
    else:
        raise CommandError([f"{folder}: no recipe.yaml here; name a collection with --data"])
    _tell(folder, why, foreseen)


@show.verb(index, "info")
def info(folder: Folder) -> None:
    """Say what an index is: what it was made from, how, how large it is, and which fields its documents have.

    rankpipe index info my-index
    """
    from rankpipe import store
    from rankpipe.catalog import find
    from rankpipe.stage import FILTERS

    made = store.read_manifest(folder)
    facts = {**made.facts, "size_bytes": made.size_bytes, "created": made.created, "commit": made.commit}
    told = {"index": str(folder), "kind": made.kind, "data": made.data.name, "recipe": made.recipe, **facts}
    if made.kind in FILTERS:
        try:
            told["fields"] = find(made.kind)(folder).known_fields
        except MissingExtra as error:
            show.remark(f"the fields of its documents are not told: {error}")

    def human() -> None:
        kept = {k: v for k, v in made.recipe.items() if k != "use" and v is not None}
        if "factory" in facts:  # "exact" in a recipe may mean one that was picked for its recall
            kept |= {"factory": facts["factory"]}
        recipe = ", ".join(f"{k}={v}" for k, v in kept.items())
        show.facts(f"{folder}: {made.kind} index of {made.data.name}", {"recipe": recipe, **facts})
        _tell_recall(made.recipe.get("recall"), facts)
        if listed := told.get("fields"):
            rows = [(name, _values(name, counts, listed), counts["documents"]) for name, counts in listed.items()]
            show.table("Fields (--where, --show)", ("field", "values", "documents"), rows, text=("values",))

    show.emit(told, human)


@show.verb(index, "verify")
def verify(folder: Folder) -> None:
    """Check every byte of an index against the checksums it was written with, and whether its recipe can be read.

    rankpipe index verify my-index
    """
    from rankpipe import store
    from rankpipe.retrieve.folder import damages_beside

    made, faults = looked_at(folder, store.damages)
    _, beside = looked_at(folder, damages_beside)
    cure = [store.cure(folder, made)] if faults else []
    told = {"index": str(folder), "files": len(made.files), "size_bytes": made.size_bytes, "damages": faults + beside}

    def human() -> None:
        if faults or beside:
            raise ArtefactError(f"{folder}: " + "; ".join([*faults, *cure, *beside]))
        show.out.print(f"{folder}: all {len(made.files)} files are as they were written")

    show.emit(told | ({"cure": cure[0]} if cure else {}), human)
    if faults or beside:
        raise typer.Exit(ArtefactError.exit_code)


def looked_at(folder: Path, look: Callable[[Manifest], list[str]]) -> tuple[Manifest, list[str]]:
    """What is wrong with an index, and its manifest, though it be changed meanwhile.

    :raises Busy: If it is changed all the time.
    """
    from rankpipe import store

    for _ in range(ROUNDS):
        made = store.read_manifest(folder)
        if not (faults := look(made)) or store.read_manifest(folder).build == made.build:
            return made, faults
    raise Busy(f"{folder}: was changed {ROUNDS} times while it was read; look when nobody writes")


def _tell(folder: Path, why: str | None, foreseen: Sequence[Forecast]) -> None:
    """What was built, or was current."""
    from rankpipe import store

    made = store.read_manifest(folder)
    facts = {**made.facts, "size_bytes": made.size_bytes, "seconds": made.seconds, "built": why is not None}

    def human() -> None:
        if why:
            said = {k: v for k, v in facts.items() if k != "built"}
            show.facts(f"{folder}: {made.kind} index of {made.data.name}", said)
            _tell_recall(made.recipe.get("recall"), facts)
        else:
            show.out.print(f"{folder} is current; --force builds it again")
        show.remark(f'next: rankpipe search {folder} "your question"')

    judged = {"forecast": asdict(foreseen[0])} if foreseen else {}
    show.emit({"index": str(folder), "kind": made.kind, "data": made.data.name, **facts, **judged}, human)


def _tell_recall(wanted: float | None, facts: dict[str, Any]) -> None:
    """What approximate search finds of what exact search does."""
    if (found := facts.get("recall_at_10")) is None:
        if wanted is not None:
            show.remark("few documents: searched exactly, which is as fast")
        return
    said = (
        f"recall, against exact search: {found:.3f} of the 10 nearest, {facts['recall_at_100']:.3f} of the 100 nearest"
    )
    asked = f" (asked: {of})" if (of := facts.get("recall_of")) else ""
    show.out.print(said + asked, highlight=False)
    if wanted is not None and found < wanted:
        show.warn(f"{facts['factory']} does not reach the recall {wanted}; another factory may, exact search does")


def _values(name: str, counts: dict[str, int], listed: Iterable[str]) -> str:
    """Of which kinds a field's values are, in how many documents; of an object, its fields by name."""
    inner = ", ".join(field for field in listed if field.startswith(f"{name}."))
    return ", ".join(
        f"{kind} {n}" + (f" (has {inner})" if kind == "object" else "")
        for kind, n in counts.items() if kind != "documents"
    )  # fmt: skip


def _collection(data: str, split: str | None, titles: options.TitlePolicy | None) -> dict[str, Any]:
    """A collection as the recipe of an index has it.

    :raises DataError: If it has no such split.
    """
    from rankpipe.datasets import open_dataset

    if split:
        open_dataset(data, split)
    source = str(Path(data).resolve()) if Path(data).exists() else data
    return {
        "data": source,
        **({"split": split} if split else {}),
        **({"titles": titles.value} if titles else {}),
    }


def _going_on(folder: Path) -> AbstractContextManager[None]:
    """Tells who interrupts a build how it goes on, if it has written anything."""
    return show.going_on(GO_ON, lambda: any(path.is_file() for path in folder.glob("made/.work-*/**/*")))


def _refuse_said(written: Path, **told: Any) -> None:
    if said := [f"--{option}" for option, value in told.items() if value is not None]:
        raise CommandError([f"{', '.join(said)}: {written} says how; change it, or name a collection with --data"])


def _refuse_other(path: Path, tree: dict[str, Any], force: bool) -> None:
    from rankpipe.retrieve import folder

    try:
        written = folder.written(path.parent) if path.exists() else tree
    except DataError:
        if force:  # what cannot be read is replaced, too
            return
        raise
    if "index" not in written:
        raise ArtefactError(f"{path}: is no recipe of an index; name another folder")
    if written == tree or force:
        return
    there, here = _leaves(written), _leaves(tree)
    keys = [k for k in {**there, **here} if there.get(k) != here.get(k)]
    other = [f"{k}: {there.get(k, 'nothing')} there, {here.get(k, 'nothing')} here" for k in keys]
    raise ArtefactError(
        f"{path}: says something else ({'; '.join(other)}); build by it without --data, or replace it with --force"
    )


def _leaves(tree: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Each value by the keys that lead to it, with points between them."""
    return {
        name: value
        for key, told in tree.items()
        for name, value in (_leaves(told, f"{place}{key}.") if isinstance(told, dict) else {place + key: told}).items()
    }


def _write_recipe(path: Path, tree: dict[str, Any]) -> None:
    import yaml

    from rankpipe import disk

    with disk.write(path) as f:
        yaml.safe_dump(tree, f, sort_keys=False, allow_unicode=True)
