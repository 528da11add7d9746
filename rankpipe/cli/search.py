"""search."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, beside, options, rankings_out, show
from rankpipe.errors import DataError
from rankpipe.stage import Retriever


class Fusion(StrEnum):
    """Fuse's methods, as choices on the command line."""

    rrf = "rrf"
    minmax = "minmax"
    zscore = "zscore"


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
    engine: options.Engine = options.Engines.local,
    address: options.Address = None,
) -> None:
    """Search one index, or several fused.

    rankpipe search my-index "how do I run a function every hour"
    rankpipe search my-index --with my-vectors --data beir/scifact/test -k 1000 --out run.trec
    rankpipe search my-index --data beir/scifact/test --out run.trec --engine ray
    """
    from rankpipe.data import Query
    from rankpipe.progress import track
    from rankpipe.retrieve.fuse import Fuse
    from rankpipe.retrieve.shards import Spread

    if (question is None) == (data is None and topics is None):
        raise DataError("say what to search for: either a question, or many by --data or --topics")
    beside.writable(out)
    k = k or (10 if out is None else 1000)
    opened = [opened_index(folder, k if not others else max(k, 1000)) for folder in (index, *(others or ()))]
    if cluster := options.engine(engine, address):
        opened = [Spread(one, cluster) for one in opened]
    retriever = opened[0] if len(opened) == 1 else Fuse(*opened, method=fuse.value, k=k)
    queries = [Query("q", question)] if question is not None else options.collection(data, topics, split=split).queries
    rankings = list(track(retriever(queries), f"search {index.name}", len(queries)))
    rankings_out.tell(rankings, out)


def opened_index(folder: Path, k: int) -> Retriever:
    """The index in a folder, opened by the component that made it."""
    from rankpipe import store
    from rankpipe.catalog import find
    from rankpipe.retrieve import shelf

    if shelf.outdated(folder):
        show.warn(
            f"{folder}: its documents have changed since it was built; to build it anew: rankpipe index build {folder}"
        )
    opened: Retriever = find(store.read_manifest(folder).kind)(folder, k=k)
    return opened
