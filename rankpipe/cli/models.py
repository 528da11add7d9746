"""models list, show, merge, export, compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from rankpipe.cli import app, evaluate, options, show
from rankpipe.cli.reranking import Cache, Given, cached
from rankpipe.data import Ranking
from rankpipe.errors import CommandError
from rankpipe.store import Manifest
from rankpipe.train.heads.head import Dtype


class Listing(TyperGroup):
    """Lists, if nothing else is asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With the name of a verb first."""
        asked = args and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if asked else ["list", *args])


models = typer.Typer(help="The tuned models of the shelf models/, and those known by alias.", cls=Listing)
app.add_typer(models, name="models")
Name = Annotated[str, typer.Argument(help="A model of the shelf, or its folder.")]
NewFolder = Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")]


@dataclass(frozen=True)
class Run(Given):
    """What is reranked, beside the model that is named first."""

    run: Annotated[Path, typer.Option("--run", help="A TREC run, or .jsonl with texts.")]


@show.verb(models, "list", bare=True)
def listed() -> None:
    """List what is on the shelf models/, and the models that are known by alias.

    rankpipe models
    """
    from rankpipe.disk import shown
    from rankpipe.weights import rankers

    tuned, known = [_row(made) for made in rankers.shelf()], aliases()

    def human() -> None:
        rows = [(*list(row.values())[:-2], shown(row["size_bytes"]) if row["here"] else "not here") for row in tuned]
        if rows:
            show.table("Tuned (models/)", [*list(tuned[0])[:-2], "size"], rows, text=("base", "head", "method"))
        else:
            show.remark("nothing is on the shelf models/ here; rankpipe train RECIPE puts it there")
        if gone := [row["name"] for row in tuned if not row["here"]]:
            show.remark(f"what is not here can be trained: rankpipe train models/{gone[0]}")
        tell_aliases(known)

    show.emit({"tuned": tuned, "aliases": known}, human)


def aliases() -> list[dict[str, str]]:
    """The models of the table."""
    from rankpipe import weights

    return [
        {"name": m.alias, "kind": m.kind, "id": m.id, "licence": m.licence, "state": weights.state(m.alias)}
        for m in weights.known()
    ]


def tell_aliases(known: list[dict[str, str]]) -> None:
    """As a table."""
    columns = ("name", "kind", "Hugging Face id", "licence", "state")
    show.table("Models", columns, [tuple(m.values()) for m in known], text=columns)


@show.verb(models, "show")
def shows(name: Name) -> None:
    """Tell of a tuned model what its card does: base, data, what was trained, how good it is; and how it is used.

    rankpipe models show listwise-smollm2-lora
    """
    import yaml

    from rankpipe import weights
    from rankpipe.weights import rankers

    made = rankers.ranker(name, gone=True)
    base = weights.find(made.recipe["model"])
    told = {
        **_row(made),
        "base id": base.id if base else made.recipe["model"], "base licence": base.licence if base else "unknown",
        "data": f"{made.data.name} ({made.data.checksum[:12]})", "recipe": made.recipe_hash, "commit": made.commit,
        "created": made.created,
        **{k.replace("_", " "): v for k, v in made.facts.items() if k not in ("reranker", "merged", "base")},
        **_merged(made.facts.get("merged", {})),
    }  # fmt: skip
    node, changed = rankers.reranker(made), _changed(made)

    def human() -> None:
        show.facts(str(made.folder), told)
        searches = f"rankpipe index build INDEX --data DATA --use dense --set model={made.folder}\n"
        show.out.print(
            f"rankpipe rerank RUN --data DATA --model {made.folder} --out NEW\n"
            + (searches if node["use"] == "bi-encoder" else "")
            + "\nor in a recipe:\n\n"
            + yaml.safe_dump(node, sort_keys=False),
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        if not told["here"]:
            show.remark(f"its files are not here: rankpipe train {made.folder} makes it again")
        elif changed:
            show.warn(
                f"its recipe.yaml is another by now ({', '.join(changed)}); rankpipe train {made.folder} goes by that"
            )

    show.emit({**told, "recipe_changed": changed, "reranker": node}, human)


def _changed(made: Manifest) -> list[str]:
    """In what its recipe is another than the one it was made by."""
    from rankpipe.train.tuning import Tuning

    return list(made.unlike(Tuning(made.folder).tree)) if (made.folder / "recipe.yaml").exists() else []


def _merged(told: str | dict[str, Any]) -> dict[str, Any]:
    """What a merge lost: in words, of one that training made, or by what it was made of."""
    if isinstance(told, str):
        return {"merged": told}
    return {f"merged, {k.replace('_', ' ')}": v for k, v in told.items()}


def _row(made: Manifest) -> dict[str, Any]:
    """A tuned model in short."""
    from rankpipe.weights import rankers

    tree, facts = made.recipe, made.facts
    method = rankers.method(tree)
    best = (
        f"{facts['measure']} {facts['best']:.4f} (first stage {facts['first_stage']:.4f})"
        if facts.get("best") is not None
        else ""
    )
    return {
        "name": made.folder.name, "base": tree["model"], "head": tree["head"]["use"],
        "method": method if rankers.has_adapter(made) or not tree.get("adapter") else f"{method}, merged",
        "steps": facts["steps"], "best": best, "size_bytes": made.size_bytes, "here": made.path.exists(),
    }  # fmt: skip


@show.verb(models, "merge")
def merges(
    name: Name,
    out: NewFolder,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of what is made; the one it was evaluated in by default.")
    ] = None,
) -> None:
    """Write the whole model, its adapter in its weights, and say what rounding loses of the adapter.

    rankpipe models merge listwise-smollm2-lora --out models/listwise-smollm2 --dtype bfloat16
    """
    from rankpipe.train.release import merged
    from rankpipe.weights import rankers

    made = rankers.ranker(name)
    dtype = dtype or rankers.reranker(made).get("lm", {}).get("dtype", "float32")
    loss = merged(made, out, dtype)
    done = rankers.ranker(str(out))
    told = {
        "folder": str(out), "files": str(done.path), "dtype": dtype, "size_bytes": done.size_bytes,
        "lost_of_update": loss.of_update, "largest_error": loss.largest, "worst": loss.worst and asdict(loss.worst),
    }  # fmt: skip

    def human() -> None:
        show.out.print(f"{out}: the whole model in {dtype}: {loss}", highlight=False, soft_wrap=True)
        show.remark(f"rankpipe rerank RUN --model {out}; for transformers and vLLM it is {done.path}")

    show.emit(told, human)


@show.verb(models, "export")
def exports(
    name: Name,
    out: NewFolder,
    form: Annotated[
        Literal["safetensors", "lora", "gguf"],
        typer.Option("--format", help="safetensors: as it is; lora: as one plain LoRA; gguf: says who writes it."),
    ] = "safetensors",
) -> None:
    """Write plain files for others: PEFT, vLLM, a hub.

    rankpipe models export listwise-smollm2-lora --out for-others
    """
    from rankpipe.train.release import exported
    from rankpipe.weights import rankers

    if form == "gguf":
        cure = "write the whole model (rankpipe models merge), and give its files to llama.cpp's convert_hf_to_gguf.py"
        raise CommandError([f"--format gguf: transformers reads GGUF and writes none: {cure}"])
    exported(rankers.ranker(name), out, as_lora=form == "lora")
    files = sorted(path.name for path in out.iterdir())
    show.emit({"folder": str(out), "files": files}, lambda: show.out.print(f"{out}: {', '.join(files)}"))


@show.verb(models, "compare")
def compares(
    name: Name,
    given: Run,
    measures: options.Measures = None,
    depth: options.Depth = None,
    cache: Cache = None,
) -> None:
    """Rerank a run with the base and with the tuned model, and test the difference, query by query. Where the base
    has no head to score with, the run itself is what it is compared with.

    rankpipe models compare listwise-smollm2-lora --data beir/scifact/test --run bm25.trec
    """
    from rankpipe import recipe, trec
    from rankpipe.measure import compare
    from rankpipe.rerank.cross import has_head
    from rankpipe.weights import rankers, resolve

    made, opened = rankers.ranker(name), options.judged(given.data, given.topics, split=given.split)
    rankings, name = given.rankings(), made.folder.name
    if opened.name in made.data.name.split(" + "):
        show.warn(f"{opened.name} is what {name} was trained on: its gain says nothing of other queries")
    nodes = {"base": rankers.reranker(made, base=True), name: rankers.reranker(made)}
    found: dict[str, Iterable[Ranking]] = {}
    if nodes["base"]["use"] == "cross-encoder" and not has_head(resolve(nodes["base"]["model"])):
        base = nodes.pop("base")["model"]
        show.remark(f"{base} has no head to score with: the run is what {name} is compared with")
        found["run"] = rankings
    stages = {}  # together, so that they share weights
    for system, node in nodes.items():
        node = cached(node | ({"depth": depth} if depth else {}), cache)
        stages[system] = recipe.build(options.checked(node), Path.cwd())
    found |= {system: stage.through(rankings, f"rerank with {system}") for system, stage in stages.items()}
    runs = {system: opened.without_self_matches(trec.to_run(hits))[0] for system, hits in found.items()}
    asked = options.measured(measures)
    evaluate.tell(compare(runs, opened.qrels, asked), asked, {q.id: q.text for q in opened.queries})
