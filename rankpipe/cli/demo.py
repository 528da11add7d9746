"""demo."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which
from typing import Annotated

import typer

from rankpipe.cli import app, show

VECTORS_S, CROSS_S, LLM_S = 60, 40, 140  # of one core
EXPLAINED = (
    "Each system adds a stage to the one before it. These are the smallest models that come without a hub, and the "
    "cross-encoder learned from web questions: on terse docstrings it makes the fused order worse, and an untrained "
    "small LLM changes nothing. What they do on other collections: docs/results.md"
)


@show.verb(app, "demo", bare=True, recipe=True)
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's house is built.")] = Path("rankpipe-demo"),
) -> None:
    """The main job on Python's own documentation: index, retrieve, fuse, rerank, evaluate.

    Writes a small house (recipes, indexes, runs, report) to look at and to copy from.
    """
    from rankpipe.catalog import EXTRAS, installed
    from rankpipe.cli.experiments import experiment
    from rankpipe.measure.experiment import Experiment
    from rankpipe.retrieve import shelf

    with_llm = all(map(installed, EXTRAS["lm"]))
    recipe = _furnish(folder, with_llm)
    if not with_llm:
        show.remark("without the LLM stage: it needs pip install 'rankpipe[lm]'")
    made, (words, vectors, systems) = Experiment(recipe), _parts(with_llm)
    with show.going_on(f"what is done is kept in {folder}; to go on from there"):
        for part, index in zip((words, vectors), made.indexes, strict=True):
            show.remark(part)
            shelf.ensure(index)
    show.remark(systems)
    experiment(made, examples=3, explained=EXPLAINED)
    command = "rankpipe" if which("rankpipe") else sys.argv[0]
    show.remark(f'next: {command} search {folder}/indexes/pydocs-bm25 "run a function every few seconds"')


def _parts(with_llm: bool) -> list[str]:
    """What comes, and how long it takes about, the first time."""
    from rankpipe.onnx import cores

    llm = ", and of six of them by a language model" if with_llm else ""
    parts = {
        "an index of words": 2,
        "an index of vectors, of 4,108 docstrings": VECTORS_S,
        f"the answers to 72 questions, reranked by a cross-encoder{llm}": CROSS_S + LLM_S * with_llm,
    }
    return [
        f"part {i} of {len(parts)}: {part}; about {seconds / cores():.0f} s on {cores()} cores, the first time"
        for i, (part, seconds) in enumerate(parts.items(), 1)
    ]


def _furnish(folder: Path, with_llm: bool) -> Path:
    """Copy the demo's recipes into the folder; gives the experiment's."""
    from importlib.resources import files

    import yaml

    from rankpipe.disk import write

    source = Path(str(files("rankpipe") / "demo"))
    for recipe in source.rglob("recipe.yaml"):
        text = recipe.read_text("utf-8")
        if recipe.parent.name == "pydocs" and not with_llm:
            tree = yaml.safe_load(text)
            tree["systems"] = {name: s for name, s in tree["systems"].items() if "listwise" not in str(s)}
            text = yaml.safe_dump(tree, sort_keys=False)
        target = folder / recipe.relative_to(source)
        if not target.exists() or target.read_text("utf-8") != text:
            with write(target) as f:
                f.write(text)
    return folder / "eval" / "pydocs"
