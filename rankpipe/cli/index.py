"""index, search."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rankpipe.cli import app, options, rankings_out, show
from rankpipe.errors import ArtefactError, DataError
from rankpipe.stage import Retriever


class Fusion(StrEnum):
    """Fuse's methods, as choices on the command line."""

    rrf = "rrf"
    minmax = "minmax"
    zscore = "zscore"


@show.verb(app, "index")
def index(
    folder: Annotated[Path, typer.Argument(help="The index: a folder to make, or one with a recipe.yaml.")],
    data: options.DataOrNone = None,
    split: options.Split = "test",
    titles: options.Titles = None,
    use: Annotated[str, typer.Option("--use", "-u", help="The kind of index; see: rankpipe ls")] = "bm25",
    settings: options.Set = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if it is current.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every byte of an index; build nothing.")] = False,
) -> None:
    """Build an index from a collection.

    rankpipe index my-index --data path/to/beir-folder
    rankpipe index my-vectors --data corpus.jsonl --use dense --set model=bge-small
    rankpipe index indexes/pydocs-bm25
    """
    from rankpipe import store
    from rankpipe.retrieve import shelf

    if verify:
        _verify(folder)
        return
    written = folder / "recipe.yaml"
    if data is not None:
        node = options.component(use, settings, method="build", given=shelf.GIVEN)
        source = str(Path(data).resolve()) if Path(data).exists() else data
        policy = {**({"split": split} if split != "test" else {}), **({"titles": titles.value} if titles else {})}
        tree = {"data": source, **policy, "index": node}
        _refuse_other(written, tree, force)
        why = shelf.build(shelf.opened(tree), folder, node, force=force)
        _write_recipe(written, tree)  # only now: a build that fails changes nothing
    elif written.exists():
        why = shelf.ensure(folder, force=force)
    else:
        raise DataError(f"{folder}: no recipe.yaml here; name a collection with --data")
    made = store.read_manifest(folder)
    facts = {**made.facts, "size_bytes": made.size_bytes, "seconds": made.seconds, "built": why is not None}

    def human() -> None:
        if why:
            rows = [(k, v) for k, v in facts.items() if k != "built"]
            show.table(f"{folder}: {made.kind} index of {made.data.name}", ("", ""), rows)
        else:
            show.out.print(f"{folder} is current; --force builds it again")
        show.remark(f'next: rankpipe search {folder} "your question"')

    show.emit({"index": str(folder), "kind": made.kind, "data": made.data.name, **facts}, human)


def _verify(folder: Path) -> None:
    from rankpipe import store

    made = store.read_manifest(folder)
    if faults := store.damages(made):
        raise ArtefactError(f"{folder}: " + "; ".join(faults) + f"; build it again: rankpipe index {folder} --force")
    told = {"index": str(folder), "files": len(made.files), "size_bytes": made.size_bytes, "damages": []}
    show.emit(told, lambda: show.out.print(f"{folder}: all {len(made.files)} files are as they were written"))


def _refuse_other(path: Path, tree: dict[str, Any], force: bool) -> None:
    from rankpipe import recipe

    if path.exists() and not force and recipe.load(path) != tree:
        raise ArtefactError(f"{path}: says something else; build by it without --data, or replace it with --force")


def _write_recipe(path: Path, tree: dict[str, Any]) -> None:
    import yaml

    from rankpipe import disk

    with disk.write(path) as f:
        yaml.safe_dump(tree, f, sort_keys=False, allow_unicode=True)


@show.verb(app, "search")
def search(
    index: Annotated[Path, typer.Argument(help="The folder of an index.")],
    question: Annotated[str | None, typer.Argument(help="One question; or --data or --topics for many.")] = None,
    others: Annotated[list[Path] | None, typer.Option("--with", "-w", help="Another index, to fuse with.")] = None,
    data: options.DataOrNone = None,
    split: options.Split = "test",
    topics: options.Topics = None,
    k: options.K = None,
    fuse: Annotated[Fusion, typer.Option(help="How several indexes are fused.")] = Fusion.rrf,
    out: options.Out = None,
) -> None:
    """Search one index, or several fused.

    rankpipe search my-index "how do I run a function every hour"
    rankpipe search my-index --with my-vectors --data beir/scifact/test -k 1000 --out run.trec
    """
    from rankpipe.data import Query
    from rankpipe.progress import track
    from rankpipe.retrieve.fuse import Fuse

    if (question is None) == (data is None and topics is None):
        raise DataError("say what to search for: either a question, or many by --data or --topics")
    k = k or (10 if out is None else 1000)
    opened = [_open(folder, k if not others else max(k, 1000)) for folder in (index, *(others or ()))]
    retriever = opened[0] if len(opened) == 1 else Fuse(*opened, method=fuse.value, k=k)
    queries = [Query("q", question)] if question is not None else options.collection(data, topics, split=split).queries
    rankings = list(track(retriever(queries), f"search {index.name}", len(queries)))
    rankings_out.tell(rankings, out)


def _open(folder: Path, k: int) -> Retriever:
    """The index in a folder, opened by the component that made it."""
    from rankpipe import store
    from rankpipe.catalog import find
    from rankpipe.retrieve import shelf

    if shelf.outdated(folder):
        show.warn(f"{folder}: its documents have changed since it was built; to build it anew: rankpipe index {folder}")
    opened: Retriever = find(store.read_manifest(folder).kind)(folder, k=k)
    return opened
