"""rerank."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, options, rankings_out, show
from rankpipe.cli.reranking import By, Given, remark
from rankpipe.progress import track


@show.verb(app, "rerank")
def rerank(
    given: Given,
    by: By,
    out: options.Out = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Keep what the model was shown and said beside --out, for rankpipe view.")
    ] = False,
) -> None:
    """Rerank a run. One that is killed goes on where it stopped, if it writes to a file (--out).

    rankpipe rerank bm25.trec --data beir/scifact/test --out reranked.trec
    rankpipe rerank bm25.trec --data corpus.jsonl --topics topics.tsv --model smollm2 --ledger --out reranked.trec
    rankpipe rerank requests.jsonl --use first --model smollm2 --max-calls 5 --out new.trec
    rankpipe rerank requests.jsonl --model my-model --lm http://127.0.0.1:8000/v1 --cache answers.sqlite --out new.trec
    """
    from rankpipe import recipe
    from rankpipe.catalog import find
    from rankpipe.errors import RecipeError
    from rankpipe.journal import Kept
    from rankpipe.lm.cache import Cached
    from rankpipe.measure.experiment import identity
    from rankpipe.rerank import ledger as windows
    from rankpipe.stage import Top

    if ledger and out is None:
        raise RecipeError(["--ledger: it lies beside the run; say with --out where that is to be"])
    work = _Work(out) if out else None
    if work and work.answers.exists():
        show.remark("going on where it stopped: what the model has answered is not asked again")
    node = by.node(work.answers if work else None)
    if faults := recipe.misjoined([{"use": "bm25"}, node], "a retriever, then "):
        raise RecipeError(faults)
    if ledger and not getattr(find(node["use"]), "tells", False):
        raise RecipeError([f"--ledger: all that {node['use']} says of a passage is its score, and that is in the run"])
    rankings = given.rankings()
    stage = recipe.build(node, Path.cwd())
    reranker, known = stage, set()
    if work and not isinstance(getattr(stage, "lm", None), Cached) and not isinstance(stage, Top):
        reranker = Kept(stage, work.rankings, identity(node, Path.cwd()))
        if known := {r.query.id for r in rankings if reranker.knows(r)}:
            show.remark(f"going on where it stopped: {len(known)} rankings are done")
    reranker.batch = stage.batch
    remark(rankings, stage)
    with windows.kept(rankings_out.beside(out), known) if ledger and out else nullcontext():
        made = list(track(reranker(rankings), f"rerank with {by.name}", len(rankings)))
    lm = getattr(stage, "lm", None)
    rankings_out.tell(made, out, ledger=ledger, lm=lm if by.cache else getattr(lm, "lm", lm))
    if work:
        work.done()


class _Work:
    """What is kept while a run is being made, so that a killed one goes on where it stopped."""

    def __init__(self, out: Path) -> None:
        self.answers = out.with_name(f".{out.name}.answers.sqlite")  # of a language model
        self.rankings = out.with_name(f".{out.name}.kept.jsonl")  # of any other

    def done(self) -> None:
        for path in (*self.answers.parent.glob(f"{self.answers.name}*"), self.rankings):
            path.unlink(missing_ok=True)
