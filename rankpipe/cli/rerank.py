"""rerank."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rankpipe.cli import app, beside, options, rankings_out, show
from rankpipe.cli.reranking import By, Given, remark
from rankpipe.errors import several

KEPT = "what is done is kept beside {}; to go on from there"


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
    from rankpipe.errors import RecipeError
    from rankpipe.journal import Replayed, Source
    from rankpipe.measure.identity import identity
    from rankpipe.rerank import ledger as windows
    from rankpipe.stage import Top

    if ledger and out is None:
        raise RecipeError(["--ledger: it lies beside the run; say with --out where that is to be"])
    work = beside.Work(out) if out else None
    node = _node(by, replay)
    asks = recipe.spelled(node["use"]).get("lm") == "LM"  # in-context reranking looks inside a model of its own
    if ledger:
        _telling(node, replay)
    rankings = given.rankings()
    keeps = work is not None and asks and (ledger or not (by.cache or replay))
    stage = recipe.build(work.keeping(node) if work and keeps else node, Path.cwd())
    if resumed := keeps and stage.lm.begun:
        show.remark("going on where it stopped: what the model has answered is not asked again")
    reranker, keys, known = stage, {}, set()
    if work and not asks and not isinstance(stage, Top | Replayed):
        reranker = work.kept(stage, identity(node, Path.cwd()), ledger=ledger)
        keys = {r.query.id: reranker.key(r) for r in rankings}
        if known := reranker.known.keys() & keys.values():
            show.remark(f"going on where it stopped: {several(len(known), 'ranking is', 'rankings are')} done")
    reranker.batch = stage.batch
    remark(rankings, stage)
    source = partial(Source.of, given.run, rankings)
    kept = reranker if reranker is not stage else getattr(stage, "lm", None)
    going_on = show.going_on(KEPT.format(by.cache or out), lambda: getattr(kept, "begun", False))
    told = windows.kept(work.windows, keys, known) if work and ledger else nullcontext()
    with going_on, told, beside.replaying(replay, source) if replay else nullcontext():
        made = reranker.through(rankings, f"replay {replay}" if replay else f"rerank with {by.name}")
    asked = stage.lm if resumed else stage.lm.lm if keeps else reranker if known else stage
    rankings_out.tell(made, out, ledger=ledger, asked=asked)
    if work and ledger and keeps:
        work.answered(node, source(), stage.lm)
    elif work and ledger:
        work.scored(source(), rankings, made)
    elif work:
        work.done()


def _telling(node: dict[str, Any], replay: Path | None) -> None:
    """Refuse a ledger of what has no windows.

    :raises RecipeError: If it does not tell what was shown and said.
    """
    from rankpipe.catalog import find
    from rankpipe.errors import RecipeError

    if getattr(find(node["use"]), "tells", False):
        return
    if replay:
        raise RecipeError([f"--ledger: nothing is shown or said again; the windows are in {beside.ledger(replay)}"])
    raise RecipeError([f"--ledger: all that {node['use']} says of a passage is its score, and that is in the run"])


def _node(by: By, replay: Path | None) -> dict[str, Any]:
    """The reranker: the one that is asked for, or that of the run that is replayed.

    :raises RecipeError: If it is none, or both are asked for.
    """
    from rankpipe import recipe
    from rankpipe.errors import RecipeError

    if replay is None:
        node = by.node()
        if faults := recipe.misjoined([{"use": "bm25"}, node], "a retriever, then "):
            raise RecipeError(faults)
        return node
    if by != By():
        raise RecipeError([f"--replay {replay}: what was asked, and whom, is that run's; leave the other options out"])
    return beside.replayed(replay)
