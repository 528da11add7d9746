"""fit: learn a reranker from judged rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, options, show
from rankpipe.cli.reranking import Given

GIVEN = ("rankings", "qrels", "folder", "name", "depth")  # what fit() is handed beside --set


@show.verb(app, "fit")
def fit(
    given: Given,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that is made of what is learned.")],
    qrels: options.QrelsFile = None,
    use: Annotated[str, typer.Option("--use", "-u", help="What learns: a component with fit().")] = "ltr",
    settings: options.Set = None,
    depth: options.Depth = None,
) -> None:
    """Learn a reranker from the judged hits of a run: trees over what is known of query and hit.

    rankpipe fit train.trec --data mine --split train --out learned
    rankpipe fit train.trec --data mine --set cross=minilm-l12 --set learner='{use: yetirank}' --out learned
    """
    from rankpipe import recipe, store
    from rankpipe.catalog import find

    node = options.component(use, settings, method="fit", given=GIVEN)
    judged = options.judged(given.data, qrels=qrels, split=given.split)
    arguments = recipe.build({k: v for k, v in node.items() if k != "use"}, Path.cwd())
    arguments |= {} if depth is None else {"depth": depth}
    find(use).fit(given.rankings(), judged.qrels, out, name=judged.name, **arguments)
    made = store.read_manifest(out)
    told = {"folder": str(out), "kind": made.kind, "data": made.data.name, "seconds": made.seconds, **made.facts}

    def human() -> None:
        plain = [(k.replace("_", " "), v) for k, v in told.items() if isinstance(v, str | int | float)]
        show.facts(f"{out}: {made.kind} learned from {made.data.name}", dict(plain[3:]))
        shares: dict[str, float] = made.facts.get("importance", {})
        if shares:
            best = sorted(shares, key=shares.__getitem__, reverse=True)
            show.table("Of use", ("feature", "share"), [(feature, shares[feature]) for feature in best])
        data = f" --data {given.data}" if given.data else ""
        show.remark(f"next: rankpipe rerank RUN{data} --use {use} --set folder={out} --out learned.trec")

    show.emit(told, human)
