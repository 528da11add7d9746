"""Which reranker a model gets: the table's, or what its own files say; never by letters in its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe, weights
from rankpipe.catalog import find
from rankpipe.errors import ModelError, RecipeError
from rankpipe.rerank.model import BY_ARCHITECTURE, BY_KIND, component


def folder(path: Path, **files: Any) -> str:
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("model", "node"),
    [
        ("minilm-l12", {"use": "cross-encoder", "model": "minilm-l12"}),
        ("colbert-small", {"use": "late", "model": "colbert-small"}),
        ("splade-tiny", {"use": "splade", "model": "splade-tiny"}),
        ("smollm2", {"use": "listwise", "lm": {"use": "hf", "model": "smollm2"}}),
        (
            "castorini/rank_zephyr_7b_v1_full",
            {
                "use": "listwise",
                "prompt": "rank_zephyr_paper",
                "lm": {"use": "hf", "model": "castorini/rank_zephyr_7b_v1_full"},
            },
        ),
        (
            "qwen3-reranker-0.6b",
            {"use": "pointwise", "prompt": "qwen3_reranker", "lm": {"use": "hf", "model": "qwen3-reranker-0.6b"}},
        ),
    ],
)
def test_by_the_table(model: str, node: dict[str, Any]) -> None:
    assert component(model) == node


def test_every_model_of_the_table_that_reranks_names_something_that_can_be_built() -> None:
    for model in weights.known():
        if model.rerank or model.kind in BY_KIND:
            assert not recipe.bind(component(model.alias), "")
    for use in {*BY_KIND.values(), *BY_ARCHITECTURE.values()}:
        assert find(use)


@pytest.mark.parametrize(
    ("architecture", "use"),
    [
        ("BertForSequenceClassification", "cross-encoder"),
        ("Qwen3ForCausalLM", "listwise"),
        ("T5ForConditionalGeneration", "monot5"),
        ("UMT5ForConditionalGeneration", "monot5"),
        ("BertForMaskedLM", "splade"),
    ],
)
def test_by_its_own_config(tmp_path: Path, architecture: str, use: str) -> None:
    model = folder(tmp_path / "rank_zephyr_monot5_qwen3-reranker", config={"architectures": [architecture]})
    node = component(model)
    assert node["use"] == use
    assert "prompt" not in node
    assert model in (node.get("model"), node.get("lm", {}).get("model"))


def test_an_adapter_is_put_on_its_base(tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", adapter_config={"base_model_name_or_path": "rank-vicuna"})
    assert component(adapter) == {
        "use": "listwise",
        "prompt": "rank_vicuna_paper",
        "lm": {"use": "hf", "model": "rank-vicuna", "adapter": adapter},
    }
    other = folder(tmp_path / "b", adapter_config={"base_model_name_or_path": "minilm-l12"})
    with pytest.raises(ModelError, match="an adapter, which cross-encoder does not take; merge it"):
        component(other)


def test_another_use_or_engine() -> None:
    assert component("smollm2", "first", "vllm") == {"use": "first", "lm": {"use": "vllm", "model": "smollm2"}}
    url = "http://127.0.0.1:8000/v1"
    served = {"use": "http", "url": url, "model": "whatever/it-calls-it"}
    assert component("whatever/it-calls-it", lm=url) == {"use": "listwise", "lm": served}
    assert component("rank-zephyr", lm=url)["prompt"] == "rank_zephyr_paper"


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of the kind 'encoder', which reranks nothing"):
        component("bge-small")
    with pytest.raises(RecipeError, match="top takes no model"):
        component("smollm2", "top")
    for i, architectures in enumerate(([], ["BertModel"], ["Gemma3ForConditionalGeneration"], ["BartForMaskedLMs"])):
        model = folder(tmp_path / str(i), config={"architectures": architectures})
        with pytest.raises(ModelError, match="names no architecture that reranks"):
            component(model)
