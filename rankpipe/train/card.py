"""The card of a tuned model: what it is, of what, how, and how good, by its manifest and its log alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from rankpipe import weights
from rankpipe.catalog import need
from rankpipe.datasets import Dataset
from rankpipe.disk import shown
from rankpipe.errors import several
from rankpipe.measure.results import machine
from rankpipe.store import Manifest
from rankpipe.train.adapters.qlora import BITS
from rankpipe.weights import rankers
from rankpipe.weights.rankers import ADAPTER

COSTS = ("seconds", "peak_bytes", "optimizer_bytes", "tokens_per_s", "cut", "skipped")
LIBRARIES = {ADAPTER: "peft", "modules.json": "sentence-transformers"}  # by a file that is theirs
LOADED = {  # by heads, without rankpipe; of others "" is a whole language model, and PEFT's an adapter
    "bi-encoder-head": ("from sentence_transformers import SentenceTransformer", 'SentenceTransformer("{folder}")'),
    "cross-encoder-head": ("from sentence_transformers import CrossEncoder", 'CrossEncoder("{folder}")'),
    "": ("from transformers import AutoModelForCausalLM", 'AutoModelForCausalLM.from_pretrained("{folder}")'),
    ADAPTER: (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM",
        'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}")',
    ),
}
UNKNOWN = "unknown: look it up before sharing"


def facts_of(trainer: Any, dev: Any) -> dict[str, Any]:
    """What is worth knowing of a training, from its log."""
    state = trainer.state
    costs = [row for row in state.log_history if "peak_bytes" in row]
    facts = {
        "steps": state.global_step,
        "lists": len(trainer.train_dataset),
        "trained": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "seed": trainer.args.seed,
        "device": _device(trainer.args.device),
        **{k: costs[-1][k] for k in COSTS if costs and k in costs[-1]},
    }
    if dev is None:
        return facts
    measure = dev.measures[0]
    found = [row for row in state.log_history if f"eval_{measure}" in row]
    return {
        **facts,
        "measure": measure,
        "first_stage": trainer.held.before[measure],
        "untrained": next((row[f"eval_{measure}"] for row in found if row["step"] == 0), None),
        "best": state.best_metric,
        "best_step": state.best_global_step,
        "dev_queries": len(trainer.held.rankings),
    }


def _device(device: Any) -> str:
    cuda = need("torch", name="training", extra="train").cuda
    return str(cuda.get_device_name(device) if device.type == "cuda" else machine()["cpu"])


def card(name: str, made: Manifest, collections: Sequence[Dataset], history: Sequence[dict[str, Any]]) -> str:
    """As Markdown, with the header that model hubs read."""
    tree, facts = made.recipe, made.facts
    base = weights.find(tree["model"])
    told = base.id or tree["model"] if base else tree["model"]
    licences = {c.name: c.known.licence if c.known and c.known.licence else UNKNOWN for c in collections}
    lines = [
        "---", *_yaml(_header(name, told, made, [*licences])), "---", "", f"# {name}", "",
        f"A reranker tuned by `rankpipe train`: `{tree['head']['use']}` over {told}, {rankers.method(tree)}.", "",
        f"- Base: {told}, licence {base.licence if base else 'unknown'}.",
        f"- Data: {made.data.name} ({made.data.checksum[:12]}), {facts['lists']} lists; licence: "
        + "; ".join(f"{name}: {said}" for name, said in licences.items()) + ".",
        f"- Trained: {facts['trained']:,} of {facts['parameters']:,} numbers, {facts['steps']} steps{_work(facts)}.",
        *_remarks(facts, tree),
        f"- Recipe {made.recipe_hash}, commit {made.commit[:12]}, {made.created[:10]}.", "",
        *_figures(facts, history), "## Use", "", *_block("yaml", _yaml(facts["reranker"])), "", "## Recipe", "",
        *_block("yaml", _yaml(tree)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def for_others(said: str, made: Manifest, folder: str = "FOLDER") -> str:
    """A card of files that lie in another folder, with what loads them there.

    :param said: the card of the model where it was made.
    """
    here, tree = made.facts["reranker"], made.recipe
    node, head = deepcopy(here), tree["head"]["use"]
    node.get("lm", node)["adapter" if rankers.has_adapter(made) else "model"] = folder
    imported, loads = LOADED[ADAPTER if rankers.has_adapter(made) else head if head in LOADED else ""]
    base = weights.find(tree["model"])
    loaded = loads.format(folder=folder, base=base.id or tree["model"] if base else tree["model"])
    told = [*_block("yaml", _yaml(node)), "", f"{folder} is where these files are. Without rankpipe:", ""]
    told += _block("python", [imported, "", f"model = {loaded}"])
    return said.replace("\n".join(_block("yaml", _yaml(here))), "\n".join(told), 1)


def _block(language: str, lines: Sequence[str]) -> list[str]:
    return [f"```{language}", *lines, "```"]


def _header(name: str, base: str, made: Manifest, data: Sequence[str]) -> dict[str, Any]:
    """What hubs read; figures of the development queries, if there are any."""
    tree, facts, bi = made.recipe, made.facts, made.recipe["head"]["use"] == "bi-encoder-head"
    task = "sentence-similarity" if bi else "text-ranking"
    kind = "cross-encoder" if tree["head"]["use"] == "cross-encoder-head" else "reranker"
    told = {
        "base_model": base,
        "library_name": next((lib for file, lib in LIBRARIES.items() if file in made.files), "transformers"),
        "pipeline_tag": task,
        "tags": ["rankpipe", "bi-encoder" if bi else kind],
        "datasets": list(data),
    }
    if facts.get("best") is None:
        return told
    metric = {"type": facts["measure"], "value": round(facts["best"], 4)}
    result = {
        "task": {"type": task},
        "dataset": {"name": "queries held out, by which the step was chosen", "type": made.data.name},
    }
    return {**told, "model-index": [{"name": name, "results": [{**result, "metrics": [metric]}]}]}


def _work(facts: dict[str, Any]) -> str:
    """What the training took, as far as it was written down."""
    seconds = f" in {facts['seconds']:,.0f} s" if "seconds" in facts else ""
    device = f" on {facts['device']}" if "device" in facts else ""
    return f"{seconds}{device}" + (f", seed {facts['seed']}" if "seed" in facts else "")


def _remarks(facts: dict[str, Any], tree: dict[str, Any]) -> Iterator[str]:
    if tree.get("dtype") in BITS:
        yield f"- Figures are over the base in {tree['dtype']}; as it is used below they may be a little different."
    if "merged" in facts:
        yield f"- Merged into the base: {facts['merged']}."
    if cut := facts.get("cut"):
        yield f"- Texts that were not read to their end (`max_words`, `max_length`, the context): {cut:.1%}."
    if skipped := facts.get("skipped"):
        yield f"- Not made, because gradients were not finite: {several(skipped, 'update')}."


def _figures(facts: dict[str, Any], history: Sequence[dict[str, Any]]) -> list[str]:
    """A table of the evaluations, and what it cost."""
    made = []
    if "measure" in facts:
        key = f"eval_{facts['measure']}"
        rows = [(row["step"], row[key]) for row in history if key in row]
        held = several(facts["dev_queries"], "query", "queries")
        made += [
            f"{facts['measure']} of {held} held out; first stage: {facts['first_stage']:.4f}.",
            "They chose the step, so that the best of these is no estimate for other queries.", "",
            f"| step | {facts['measure']} |", "| ---: | ---: |",
            *(f"| {step} | {value:.4f}{' (taken)' if step == facts['best_step'] else ''} |"
              for step, value in dict(rows).items()), "",
        ]  # fmt: skip
    if "peak_bytes" in facts:
        made += [
            f"Peak memory {shown(facts['peak_bytes'])}, optimizer state {shown(facts['optimizer_bytes'])}.", "",
        ]  # fmt: skip
    return made


def _yaml(tree: Any) -> list[str]:
    import yaml

    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).rstrip().split("\n")
