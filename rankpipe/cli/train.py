"""train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, show
from rankpipe.cli.recipes import there

RecipePath = Annotated[Path, typer.Argument(help="A recipe.yaml, or its folder on the models shelf.")]


@show.verb(app, "train", recipe=True)
def train(
    recipe: RecipePath,
    force: Annotated[bool, typer.Option("--force", help="Forget the checkpoints of earlier runs.")] = False,
) -> None:
    """Tune a reranker: make its examples, train it, evaluate it on the way, and keep the best. Killed, it goes on.

    rankpipe train models/listwise-smollm2-lora
    """
    from rankpipe.train.tuning import Tuning

    there(recipe)
    tuning = Tuning(recipe)
    with show.going_on(f"checkpoints are kept in {tuning.work}; to go on from the last one"):
        facts = tuning.run(force=force)
    told = {"folder": str(tuning.folder), **facts}

    def human() -> None:
        show.facts(f"{tuning.folder}: tuned", {k.replace("_", " "): v for k, v in facts.items() if k != "reranker"})
        show.remark(f"{tuning.folder / 'card.md'} says more; rankpipe rerank RUN --use {facts['reranker']['use']} ...")

    show.emit(told, human)
