"""rerank."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from rankpipe.cli import app, beside, options, rankings_out, show
from rankpipe.cli.reranking import By, Given, remark
from rankpipe.progress import track


@show.verb(app, "rerank")
def rerank(
    given: Given,
    by: By,
    out: options.Out = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Keep what the model was shown and said beside --out, to view and replay.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="A run made with --ledger: make it again, without its model.")
    ] = None,
) -> None:
    """Rerank a run. One that is killed goes on where it stopped, if it writes to a file (--out).

    rankpipe rerank bm25.trec --data beir/scifact/test --out reranked.trec
    rankpipe rerank bm25.trec --data corpus.jsonl --topics topics.tsv --model smollm2 --ledger --out reranked.trec
    rankpipe rerank bm25.trec --data corpus.jsonl --topics topics.tsv --replay reranked.trec --out the-same.trec
    rankpipe rerank requests.jsonl --use first --model smollm2 --max-calls 5 --out new.trec
    rankpipe rerank requests.jsonl --model my-model --lm http://127.0.0.1:8000/v1 --cache answers.sqlite --out new.trec
    """
    from rankpipe import recipe
    from rankpipe.catalog import find
    from rankpipe.errors import RecipeError
    from rankpipe.journal import Kept
    from rankpipe.measure.experiment import identity
    from rankpipe.rerank import ledger as windows
    from rankpipe.stage import Top

    if ledger and out is None:
        raise RecipeError(["--ledger: it lies beside the run; say with --out where that is to be"])
    work = beside.Work(out) if out else None
    node = _node(by, replay)
    if faults := recipe.misjoined([{"use": "bm25"}, node], "a retriever, then "):
        raise RecipeError(faults)
    asks = recipe.spelled(node["use"]).get("lm") == "LM"  # in-context reranking looks inside a model of its own
    if ledger and not getattr(find(node["use"]), "tells", False):
        raise RecipeError([f"--ledger: all that {node['use']} says of a passage is its score, and that is in the run"])
    rankings = given.rankings()
    keeps = work is not None and asks and (ledger or not (by.cache or replay))
    if work and keeps and work.answers.exists():
        show.remark("going on where it stopped: what the model has answered is not asked again")
    stage = recipe.build(work.keeping(node) if work and keeps else node, Path.cwd())
    reranker, known = stage, set()
    if work and not asks and not isinstance(stage, Top):
        reranker = Kept(stage, work.rankings, identity(node, Path.cwd()))
        if known := {r.query.id for r in rankings if reranker.knows(r)}:
            show.remark(f"going on where it stopped: {len(known)} rankings are done")
    reranker.batch = stage.batch
    remark(rankings, stage)
    with windows.kept(beside.ledger(out), known) if ledger and out else nullcontext():
        label = f"replay {replay}" if replay else f"rerank with {by.name}"
        made = list(track(reranker(rankings), label, len(rankings)))
    rankings_out.tell(made, out, ledger=ledger, asked=stage.lm.lm if keeps else stage)
    if work and ledger and keeps:
        work.publish(node, stage.lm)
    elif work:
        work.done(ledger)


def _node(by: By, replay: Path | None) -> dict[str, Any]:
    """The reranker: the one that is asked for, or that of the run that is replayed."""
    from rankpipe.errors import RecipeError

    if replay is None:
        return by.node()
    if by != By():
        raise RecipeError([f"--replay {replay}: what was asked, and whom, is that run's; leave the other options out"])
    return beside.replayed(replay)
