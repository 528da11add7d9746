"""train, teach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import app, options, show
from rankpipe.cli.recipes import there
from rankpipe.cli.reranking import By
from rankpipe.errors import CommandError, RankpipeError, RecipeError, refuse

if TYPE_CHECKING:
    from rankpipe.train.tuning import Tuning

DEPTH = 50  # hits that are labelled
RecipePath = Annotated[Path, typer.Argument(help="A recipe.yaml, or its folder on the models shelf.")]


@show.verb(app, "train", recipe=True)
def train(
    recipe: RecipePath,
    force: Annotated[bool, typer.Option("--force", help="Tune again, and forget earlier checkpoints.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make the lists, foretell the memory, and refuse too much.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Change the recipe: KEY=VALUE, as training.seed=1.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder of the changed recipe, which is what is tuned.")
    ] = None,
) -> None:
    """Tune a reranker: make its examples, train it, evaluate it on the way, and keep the best. Killed, it goes on.

    rankpipe train models/listwise-smollm2-lora
    rankpipe train models/mine --set training.seed=1 --out models/mine-seed1

    accelerate launch --multi_gpu --num_processes 2 -m rankpipe.cli train models/listwise-smollm2-lora
    """
    there(recipe)
    new = None
    if settings or out:
        recipe, new = _changed(recipe, settings, out)
    with _refusals(recipe, new):
        _tune(recipe, force, dry_run)


@contextmanager
def _refusals(recipe: Path, new: list[Path] | None) -> Iterator[None]:
    """Inside, faults are of the recipe by its name; one that was written for this call goes, if nothing came of it.

    :param new: the folders that were made for it, the innermost first; None if it was there.
    """
    try:
        yield
    except RankpipeError as error:
        if new is not None and [path.name for path in recipe.iterdir()] == ["recipe.yaml"]:
            (recipe / "recipe.yaml").unlink()
            for folder in new:
                folder.rmdir()
        if isinstance(error, RecipeError) and error.where == "the recipe":
            raise RecipeError(error.faults, str(recipe)) from error
        raise


def _tune(recipe: Path, force: bool, dry_run: bool) -> None:
    from rankpipe.disk import shown
    from rankpipe.train.processes import first
    from rankpipe.train.tuning import Tuning

    tuning = Tuning(recipe)
    if dry_run:
        with show.going_on(f"the lists are kept in {tuning.folder / 'kept'}"):
            foretold = tuning.forecast()
        if not first():
            return
        sizes = {**foretold.parts, "all": foretold.total}
        show.emit(
            {f"{name}_bytes": size for name, size in sizes.items()},
            lambda: show.facts(
                f"{tuning.folder}: memory, beside Python and torch", {n: shown(size) for n, size in sizes.items()}
            ),
        )
        return
    kept = f"checkpoints are kept in {tuning.work}; to go on from the last one"
    with show.going_on(kept, lambda: tuning.begun is not None):
        facts = tuning.run(force=force)
    if not first():  # of several processes
        return
    show.emit({"folder": str(tuning.folder), **facts}, lambda: _tell(tuning, facts))


def _tell(tuning: Tuning, facts: dict[str, Any]) -> None:
    """What was made, whether anything is gained, and how it is used."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}
    told = {k.replace("_", " "): v for k, v in rounded.items() if k not in ("reranker", "base")}
    show.facts(f"{tuning.folder}: tuned", {"of": tuning.tree["model"], **told})
    if said := _not_gained(facts):
        show.warn(said)
    use = f"rankpipe rerank RUN --data DATA --model {tuning.folder} --out NEW"
    show.remark(f"{tuning.folder / 'card.md'} says more; to use it: {use}")


def _not_gained(facts: dict[str, Any]) -> str:
    """That tuning is no better than what was there before, with all figures; "" if it is, or it was not measured."""
    names = {"first_stage": "the first stage", "untrained": "the model before tuning"}
    before = {name: facts[key] for key, name in names.items() if facts.get(key) is not None}
    if facts.get("best") is None or facts["best"] > max(before.values()):
        return ""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in {"tuned": facts["best"], **before}.items())
    over = " nor over ".join(name for name, value in before.items() if facts["best"] <= value)
    return f"{facts['measure']} of the development queries: {figures}; nothing is gained over {over}"


def _changed(recipe: Path, settings: list[str] | None, out: Path | None) -> tuple[Path, list[Path] | None]:
    """The folder with the recipe as ``--set`` changes it; and what folders were made for it, None if it was there.

    :raises CommandError: If it is not said where, or something else is there that was begun.
    :raises RecipeError: If the recipe has faults; then it is not written.
    """
    import yaml

    from rankpipe import disk
    from rankpipe.recipe import load
    from rankpipe.train.processes import first
    from rankpipe.train.tuning import Tuning

    if not settings or out is None:
        raise CommandError(
            ["--set and --out go together: what is changed in the recipe, and the folder of the new one"]
        )
    tuning, path = Tuning(recipe), out / "recipe.yaml"
    tuning.tree = options.merged(tuning.tree, settings)
    refuse(tuning.check(), f"{recipe}, as it is changed")
    if not first():  # which makes it
        _wait(lambda: path.exists() and load(out) == tuning.tree, path)
        return out, None
    if path.exists():
        if load(out) == tuning.tree:
            return out, None
        if (out / "manifest.json").exists() or Tuning(out).begun:
            raise CommandError([f"{out}: has another recipe; take another folder, or tune that: rankpipe train {out}"])
    elif out.exists() and any(out.iterdir()):
        raise CommandError([f"{out}: is no folder of a model, and not empty; name a new one"])
    new = None if path.exists() else [place for place in (out, *out.parents) if not place.exists()]
    with disk.write(path) as f:
        yaml.safe_dump(tuning.tree, f, sort_keys=False, allow_unicode=True)
    return out, new


def _wait(done: Callable[[], bool], path: Path) -> None:
    """For the first of several processes, which the launcher ends all of them with if it fails.

    :raises CommandError: If it takes a minute.
    """
    for _ in range(600):
        if done():
            return
        sleep(0.1)
    raise CommandError([f"{path}: the first process has not written it; can all processes see its folder?"])


@show.verb(app, "teach")
def teach(
    run: Annotated[Path, typer.Argument(help="A TREC run over the queries of --data.")],
    data: options.Data,
    by: By,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that is made of the labels.")],
    split: Annotated[str, typer.Option("--split", help="Whose queries and judgements of --data.")] = "train",
    queries: Annotated[
        int | None, typer.Option("--queries", min=1, metavar="N", help="So many of the judged ones; all of the run.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace labels that were made otherwise.")] = False,
) -> None:
    """Have a reranker label the hits of a run, and what is relevant, to train others on. Killed, it goes on.

    rankpipe teach bm25.trec --data beir/scifact/train --model minilm-l12 --depth 50 --out teachers/scifact
    """
    from rankpipe import recipe, store
    from rankpipe.datasets import rankings
    from rankpipe.measure.identity import identity
    from rankpipe.train import teach as teaching
    from rankpipe.trec import read_run

    node, collection = by.node(), options.collection(data, split=split)
    depth = by.depth or DEPTH
    pool = teaching.pool(read_run(run).run, collection.qrels, depth, queries)
    found = rankings(pool, collection, "the labels'")
    stage = recipe.build(node, Path.cwd())
    with show.going_on(f"what is done is kept in {out}; to go on from there"):
        said_by = identity(node, Path.cwd())
        teaching.teach(found, stage, out, node=node, name=collection.name, identity=said_by, force=force)
    made = store.read_manifest(out)
    told = {"folder": str(out), "data": made.data.name, "seconds": made.seconds, **made.facts}

    def human() -> None:
        show.facts(f"{out}: labels of {made.data.name}", {k: v for k, v in made.facts.items() if k != "identity"})
        show.remark(f"in a recipe: labels: {{use: recorded, path: {out}}}")

    show.emit(told, human)
