"""run, check, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, options, show
from rankpipe.errors import DataError, refuse
from rankpipe.recipe import SHELVES

RecipePath = Annotated[Path, typer.Argument(help="A recipe.yaml, or its folder on the eval, indexes or models shelf.")]


def there(recipe: Path) -> None:
    """:raises DataError: If there is no recipe."""
    if not recipe.exists():
        ours = "; rankpipe's own come with a clone of its repository" if recipe.parts[0] in SHELVES else ""
        raise DataError(f"{recipe}: no such recipe here{ours}. Name the path of one; rankpipe demo writes some to copy")


@show.verb(app, "check", recipe=True)
def check(recipe: RecipePath) -> None:
    """Report every fault of a recipe at once, each with its place; build nothing.

    rankpipe check eval/scifact
    """
    from rankpipe import recipe as recipes
    from rankpipe.measure.experiment import Experiment
    from rankpipe.retrieve import shelf
    from rankpipe.train.tuning import Tuning

    there(recipe)
    tree = recipes.load(recipe)
    if "index" in tree:
        faults = shelf.check(tree)
    else:
        faults = (Tuning if "head" in tree else Experiment)(recipe).check()
    refuse(faults, str(recipe))
    show.emit({"recipe": str(recipe), "faults": []}, lambda: show.out.print(f"{recipe}: no faults"))


@show.verb(app, "run", recipe=True)
def run(
    recipe: RecipePath,
    force: Annotated[bool, typer.Option("--force", help="Forget what is kept of earlier runs.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html beside the recipe.")] = True,
    engine: options.Engine = options.Engines.local,
    address: options.Address = None,
    gpus: options.Gpus = 0,
    block: Annotated[int, typer.Option(min=1, help="Queries that go through all systems together.")] = 64,
) -> None:
    """Run an experiment: build its indexes, run its systems, evaluate, file the result, hold it to its bounds.

    rankpipe run eval/scifact
    rankpipe run eval/scifact --engine ray --address head:6379 --block 16
    """
    from rankpipe.cli.experiments import experiment
    from rankpipe.measure.experiment import Experiment

    cluster = options.engine(engine, address, gpus)
    there(recipe)
    broken = experiment(Experiment(recipe), report=report, force=force, engine=cluster, block=block)
    if broken:
        raise typer.Exit(10)


@show.verb(app, "tables")
def tables(
    files: Annotated[list[Path], typer.Argument(help="Markdown files with <!-- table: ... --> marks.")],
    root: Annotated[Path, typer.Option(help="The folder that eval/ lies in.")] = Path(),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 10 if a table is out of date.")
    ] = False,
) -> None:
    """Write the tables in README and docs anew, from the results filed under eval/.

    rankpipe tables README.md docs/*.md
    """
    from rankpipe.disk import write
    from rankpipe.measure.tables import rewrite

    stale = []
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        text = path.read_text("utf-8")
        made = rewrite(text, root)
        if made != text:
            stale.append(str(path))
            if not check:
                with write(path) as f:
                    f.write(made)
    said = "out of date" if check else "written anew"
    show.emit({"changed": stale}, lambda: show.out.print(f"{said}: {', '.join(stale) or 'none'}", highlight=False))
    if check and stale:
        raise typer.Exit(10)
