"""rerank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, options, rankings_out, show
from rankpipe.progress import track


@show.verb(app, "rerank")
def rerank(
    run: Annotated[Path, typer.Argument(help="A TREC run (its texts come from --data), or .jsonl with texts.")],
    data: options.DataOrNone = None,
    split: options.Split = "test",
    topics: options.Topics = None,
    use: Annotated[str, typer.Option("--use", "-u", help="The reranker; see: rankpipe ls")] = "cross-encoder",
    settings: options.Set = None,
    depth: Annotated[int, typer.Option("--depth", min=1, help="How many hits of each query go in.")] = 100,
    out: options.Out = None,
) -> None:
    """Rerank a run. One that is killed goes on where it stopped, if it writes to a file (--out).

    rankpipe rerank bm25.trec --data beir/scifact/test --out reranked.trec
    rankpipe rerank bm25.trec --data corpus.jsonl --topics topics.tsv --out reranked.trec
    rankpipe rerank requests.jsonl --use listwise --set lm='{use: hf, model: smollm2}' --out new.trec
    """
    from rankpipe import recipe
    from rankpipe.datasets import rankings, read_requests
    from rankpipe.errors import DataError, RecipeError
    from rankpipe.journal import Kept
    from rankpipe.measure.experiment import identity
    from rankpipe.stage import Top
    from rankpipe.trec import read_run

    node = options.component(use, settings)
    if faults := recipe.misjoined([{"use": "bm25"}, node], "a retriever, then "):
        raise RecipeError(faults)
    if run.name.removesuffix(".gz").endswith(".jsonl"):
        given = list(read_requests(run))
    elif data is not None:
        read = read_run(run)
        for oddity in read.oddities:
            show.warn(oddity)
        given = rankings(read.run, options.collection(data, topics, split=split))
    else:
        raise DataError(f"{run}: a TREC run has no texts; say where they are with --data")
    reranker = recipe.build(node, Path.cwd())
    kept = out.with_name(f".{out.name}.kept.jsonl") if out is not None else None
    if kept and not isinstance(reranker, Top):
        reranker = Kept(reranker, kept, identity(node, Path.cwd()))
        if reranker.known:
            show.remark(f"going on where it stopped: {len(reranker.known)} rankings are done")
    pipe = Top(depth) >> reranker
    pipe.batch = reranker.batch
    made = list(track(pipe(given), f"rerank with {use}", len(given)))
    rankings_out.tell(made, out)
    if kept:
        kept.unlink(missing_ok=True)
