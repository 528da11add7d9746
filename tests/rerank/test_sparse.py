"""Learned sparse reranking: against the formula, text by text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.sparse import Sparse

torch: Any = pytest.importorskip("torch")
pytest.importorskip("transformers")

PASSAGES = [
    "Bananas are yellow when they are ripe.",
    "Paris is the capital of France.",
    "",
    "France has many large cities. " * 200,
    "The skin of a ripe banana is yellow; of an unripe one, green.",
]


def ranking(texts: Sequence[str], question: str) -> Ranking:
    docs = [Doc(f"d{i}", t) for i, t in enumerate(texts)]
    return Ranking(Query(question, question), tuple(Hit(d, -float(i)) for i, d in enumerate(docs)))


def scores(made: Ranking) -> dict[str, float]:
    return {h.doc.id: h.score for h in made.hits}


@pytest.fixture(scope="module")
def splade(embedded: Callable[[str], Path], one_thread: None) -> Path:
    return embedded("splade-tiny")


@cache
def opened(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)


@cache
def vector(folder: Path, text: str) -> Any:
    """The formula as the paper has it, one text at a time."""
    tokenizer, model = opened(folder)
    ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
    with torch.inference_mode():
        return torch.log(1 + torch.relu(model(**ids).logits[0])).max(0).values


def test_scores_are_the_formulas(splade: Path) -> None:
    asked = [ranking(PASSAGES, q) for q in ("capital of France", "What colour is a ripe banana?", "")]
    for made in Sparse().apply(asked):
        query = vector(splade, made.query.text)
        expected = {f"d{i}": float(query @ vector(splade, text)) for i, text in enumerate(PASSAGES)}
        assert scores(made) == pytest.approx(expected, rel=1e-4)
        [step] = made.steps
        assert (step.stage, step.calls, step.cut) == ("Sparse", 5, 1)
        assert step.tokens_in > 512 + 2


def test_the_passage_that_answers_comes_first(splade: Path) -> None:
    [made] = Sparse().apply([ranking(PASSAGES, "What is the capital of France?")])
    assert made.hits[0].doc.id == "d1"


def test_long_passages_are_cut_and_counted(splade: Path) -> None:
    [made] = Sparse(max_length=16).apply([ranking(["fox " * 1000, "fox"], "fox")])
    assert (made.steps[-1].cut, made.steps[-1].tokens_in) == (1, 16 + 3)


def test_hits_below_the_depth_stay_in_their_order(splade: Path) -> None:
    first, none = Sparse(depth=2).apply([ranking(PASSAGES, "capital of France"), ranking([], "q")])
    assert [h.doc.id for h in first.hits] == ["d1", "d0", "d2", "d3", "d4"]
    last = first.hits[1].score
    assert [h.score for h in first.hits[2:]] == [last - 1, last - 2, last - 3]
    assert (first.steps[-1].calls, none.hits, none.steps[-1].calls) == (2, (), 0)


def test_budgets(splade: Path) -> None:
    """What is scored has the score that it has without one, and the rest stays below."""
    given = [ranking(PASSAGES, "capital of France"), ranking(PASSAGES[:2], "ripe")]
    whole = [scores(made) for made in Sparse(max_length=16).apply(given)]
    limits = {Budget(): (5, 2), Budget(calls=3): (3, 2), Budget(tokens=33): (2, 2), Budget(seconds=1e-9): (1, 1),
              Budget(seconds=1e9): (5, 2), Budget(calls=0): (0, 0)}  # fmt: skip
    for budget, calls in limits.items():
        for made, all_of_it, n in zip(Sparse(max_length=16, budget=budget).apply(given), whole, calls, strict=True):
            [step] = made.steps
            assert (step.calls, step.skipped) == (n, len(all_of_it) - n)
            known = {f"d{i}": all_of_it[f"d{i}"] for i in range(n)}
            assert {h.doc.id: h.score for h in made.hits[:n]} == pytest.approx(known, rel=1e-5)
            assert [h.doc.id for h in made.hits[n:]] == [f"d{i}" for i in range(n, len(all_of_it))]
            assert budget.tokens is None or step.tokens_in <= budget.tokens
    with pytest.raises(RecipeError, match=r"budget\.tokens: say with max_length how many a passage may have"):
        Sparse(budget=Budget(tokens=9))


def test_nothing_to_rank_loads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path))
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    assert Sparse().apply([ranking([], "q")])[0].hits == ()


def test_what_is_no_sparse_model(tiny_lm: Path) -> None:
    with pytest.raises(RecipeError, match="depth: 0"):
        Sparse(depth=0)
    with pytest.raises(ModelError, match="AutoModelForMaskedLM cannot load it"):
        Sparse(str(tiny_lm)).apply([ranking(["a"], "a")])


def test_construction_imports_nothing() -> None:
    code = "import sys; from rankpipe.rerank.sparse import Sparse; Sparse(); assert not {'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
