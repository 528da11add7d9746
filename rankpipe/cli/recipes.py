"""run, check, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, show
from rankpipe.errors import RecipeError

RecipePath = Annotated[Path, typer.Argument(help="A recipe.yaml, or its folder on the eval or indexes shelf.")]


@show.verb(app, "check")
def check(recipe: RecipePath) -> None:
    """Report every fault of a recipe at once, each with its place; build nothing.

    rankpipe check eval/scifact
    """
    from rankpipe import recipe as recipes
    from rankpipe.measure.experiment import Experiment
    from rankpipe.retrieve import shelf

    tree = recipes.load(recipe)
    faults = shelf.check(tree) if "index" in tree else Experiment(recipe).check()
    if faults:
        raise RecipeError(faults)
    show.emit({"recipe": str(recipe), "faults": []}, lambda: show.out.print(f"{recipe}: no faults"))
