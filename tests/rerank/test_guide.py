"""The tables of the guide to reranking say all there is, and what they say is so; its consoles could be typed."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer

import rankpipe.cli.rerank  # noqa: F401  registers its verb
from rankpipe import recipe, weights
from rankpipe.catalog import CATALOG, find
from rankpipe.cli import app
from rankpipe.cli.options import merged
from rankpipe.cli.reranking import By
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import MissingExtra
from rankpipe.rerank.plans import Borda, Kemeny
from rankpipe.rerank.prompts import ours, read
from rankpipe.stage import Reranker, Top
from tests.rerank.plans.judges import worths

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guide-reranking.md").read_text("utf-8")
CONSOLES = [
    line
    for guide in ("guide-reranking.md", "guide-models.md", "vllm.md")
    for block in re.findall(r"```console\n(.*?)```", (DOCS / guide).read_text("utf-8"), re.S)
    for line in re.findall(r"^\$ rankpipe (.*)$", block.replace("\\\n", ""), re.M)
]
N = 40  # hits


def table(heading: str) -> list[list[str]]:
    """The cells of the one table below a heading, without the head."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


PLANS = table("How many calls: plans")


def settings(cell: str) -> list[str]:
    return [word for word in shlex.split(cell.strip("`")) if word != "--set"]


def node(cell: str) -> dict[str, Any]:
    return merged({"use": "listwise", "lm": {"use": "fake", "noise": 0, "context": 10**6}}, settings(cell))


def test_every_plan_is_there() -> None:
    known = {name for name, entry in CATALOG.items() if entry.target.startswith("rankpipe.rerank.plans:")}
    told = [node(say)["plan"]["use"] for say, *_ in PLANS]
    assert sorted(told) == sorted(name for name in known if find(name) not in (Borda, Kemeny))


@pytest.mark.parametrize("row", PLANS, ids=lambda row: settings(row[0])[0])
def test_a_plan_is_and_does_what_the_table_says(row: list[str]) -> None:
    """With the fake that counts the query's words, of which every passage has another number."""
    say, calls, finds, how = row
    made = recipe.build(node(say), Path())
    assert made.plan == find(node(say)["plan"]["use"])()
    assert made.plan.calls(100) == int(calls)
    assert how
    words = [f"w{i}" for i in range(N)]
    hits = [Hit(Doc(f"{w:02}", " ".join(words[: w + 1])), -float(i)) for i, w in enumerate(worths(N))]
    [found] = made([Ranking(Query("q", " ".join(words)), tuple(hits))])
    best = sorted((h.doc.id for h in hits), reverse=True)
    promised = N if finds == "all" else int(finds or 0)
    order = [h.doc.id for h in found.hits]
    assert order[:promised] == best[:promised]
    if not promised:  # one window
        assert order == sorted(order[:20], reverse=True) + [h.doc.id for h in hits[20:]]
    assert found.steps[-1].calls <= made.plan.calls(N)


def test_every_reranker_is_there() -> None:
    known = {name for name, e in CATALOG.items() if e.target.startswith(("rankpipe.rerank", "rankpipe.stage"))}
    classes = {name: find(name) for name in known}
    rerankers = {n for n, c in classes.items() if isinstance(c, type) and issubclass(c, Reranker) and c is not Top}
    assert {use.strip("`") for use, *_ in table("By family")} == rerankers
    assert [name for name in rerankers if "budget" not in recipe.spelled(name)] == []


def test_every_prompt_is_there() -> None:
    asks = {
        ("order", "numbers"): "an order of numbers", ("order", "letters"): "an order of letters",
        ("best", "letters"): "the best passage", ("verdict", ""): "yes or no", ("query", ""): "the query",
    }  # fmt: skip
    known: dict[str, list[str]] = {}
    for name, file in ours().items():
        prompt = read(file)
        known.setdefault(asks[prompt.answer, getattr(prompt, "labels", "")], []).append(name)
    assert {asked: re.findall(r"\w+", names) for asked, names, _ in table("Prompts")} == known


def test_models_are_called_as_the_table_calls_them() -> None:
    told = set(re.findall(r"--model ([\w.-]+)", GUIDE)) - {"NAME"}
    assert told <= {m.alias for m in weights.known()}
    sizes_apart = {alias.rpartition("-")[0] for alias in told}
    assert {m.alias.rpartition("-")[0] for m in weights.known() if m.rerank} <= sizes_apart


@pytest.mark.parametrize("line", CONSOLES)
def test_what_needs_a_server_or_more_could_be_typed(line: str) -> None:
    """Its options are the verb's, and its recipe has no fault but for what is not installed here."""
    verb, *words = shlex.split(line)
    assert verb == "rerank"
    given = typer.main.get_command(app).commands[verb].make_context(verb, words).params  # type: ignore[attr-defined]
    with suppress(MissingExtra):
        By(**{name: given[name] for name in By.__dataclass_fields__}).node()
