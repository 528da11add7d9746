"""The card of a tuned model: what it is, of what, how, and how good, by its manifest and its log alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rankpipe import weights
from rankpipe.datasets import Dataset
from rankpipe.errors import several
from rankpipe.store import Manifest

COSTS = ("peak_bytes", "optimizer_bytes", "tokens_per_s", "cut", "skipped")
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


def card(name: str, made: Manifest, collections: Sequence[Dataset], history: Sequence[dict[str, Any]]) -> str:
    """As Markdown, with the header that model hubs read."""
    tree, facts = made.recipe, made.facts
    base = weights.find(tree["model"])
    told = base.id or tree["model"] if base else tree["model"]
    licences = {c.name: c.known.licence if c.known and c.known.licence else UNKNOWN for c in collections}
    lines = [
        "---", f"base_model: {told}", "library_name: peft" if tree.get("adapter") else "library_name: transformers",
        "tags: [reranking, rankpipe]", "---", "", f"# {name}", "",
        f"A reranker tuned by `rankpipe train`: `{tree['head']['use']}` over {told}"
        + (f", `{tree['adapter']['use']}`." if tree.get("adapter") else ", all weights."), "",
        f"- Base: {told}, licence {base.licence if base else 'unknown'}.",
        f"- Data: {made.data.name} ({made.data.checksum[:12]}), {facts['lists']} lists; licence: "
        + "; ".join(f"{name}: {said}" for name, said in licences.items()) + ".",
        f"- Trained: {facts['trained']:,} of {facts['parameters']:,} numbers, {facts['steps']} steps.",
        *_remarks(facts),
        f"- Recipe {made.recipe_hash}, commit {made.commit[:12]}, {made.created[:10]}.", "",
        *_figures(facts, history), "## Use", "", "```yaml", *_yaml(facts["reranker"]), "```", "", "## Recipe", "",
        "```yaml", *_yaml(tree), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _remarks(facts: dict[str, Any]) -> Iterator[str]:
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
        made += [
            f"{facts['measure']} of {facts['dev_queries']} queries held out; first stage: {facts['first_stage']:.4f}.",
            "They chose the step, so that the best of these is no estimate for other queries.", "",
            f"| step | {facts['measure']} |", "| ---: | ---: |",
            *(f"| {step} | {value:.4f}{' (taken)' if step == facts['best_step'] else ''} |"
              for step, value in dict(rows).items()), "",
        ]  # fmt: skip
    if "peak_bytes" in facts:
        made += [
            f"Peak memory {_mib(facts['peak_bytes'])}, optimizer state {_mib(facts['optimizer_bytes'])}.", "",
        ]  # fmt: skip
    return made


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _yaml(tree: Any) -> list[str]:
    import yaml

    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).rstrip().split("\n")
