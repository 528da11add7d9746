"""Which reranker a model gets: the table's, or what its own files say; never by letters in its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe, weights
from rankpipe.catalog import find
from rankpipe.errors import ArtefactError, ModelError, RecipeError
from rankpipe.rerank.model import BY_ARCHITECTURE, BY_KIND, component, guess


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
        (
            "Qwen/Qwen3-Reranker-8B",
            {"use": "pointwise", "prompt": "qwen3_reranker", "lm": {"use": "hf", "model": "Qwen/Qwen3-Reranker-8B"}},
        ),
        ("first-mistral", {"use": "first", "lm": {"use": "hf", "model": "first-mistral"}}),
        ("castorini/monot5-3b-msmarco", {"use": "monot5", "model": "castorini/monot5-3b-msmarco"}),
        ("duot5-base", {"use": "duot5", "model": "duot5-base"}),
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
    ],
)
def test_by_its_own_config(tmp_path: Path, architecture: str, use: str) -> None:
    model = folder(tmp_path / "rank_zephyr_monot5_qwen3-reranker", config={"architectures": [architecture]})
    node = component(model)
    assert node["use"] == use
    assert "prompt" not in node
    assert model in (node.get("model"), node.get("lm", {}).get("model"))


def test_a_sparse_encoder_says_so_itself(tmp_path: Path) -> None:
    made = {
        "config": {"architectures": ["BertForMaskedLM"]},
        "config_sentence_transformers": {"model_type": "SparseEncoder"},
    }
    model = folder(tmp_path / "a", **made)
    assert component(model) == {"use": "splade", "model": model}


def test_an_adapter_is_put_on_its_base(tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", adapter_config={"base_model_name_or_path": "rank-vicuna"})
    assert component(adapter) == {
        "use": "listwise",
        "prompt": "rank_vicuna_2023",
        "lm": {"use": "hf", "model": "rank-vicuna", "adapter": adapter},
    }
    other = folder(tmp_path / "b", adapter_config={"base_model_name_or_path": "minilm-l12"})
    with pytest.raises(ModelError, match="an adapter, which cross-encoder does not take; merge it"):
        component(other)


def test_another_use_or_engine() -> None:
    assert component("qwen3-reranker-0.6b", "pointwise") == component("qwen3-reranker-0.6b")  # with its prompt
    assert component("smollm2", "first", "vllm") == {"use": "first", "lm": {"use": "vllm", "model": "smollm2"}}
    url = "http://127.0.0.1:8000/v1"
    served = {"use": "http", "url": url, "model": "whatever/it-calls-it"}
    assert component("whatever/it-calls-it", lm=url) == {"use": "listwise", "lm": served}
    assert component("rank-zephyr", lm=url)["prompt"] == "rank_zephyr_paper"


def test_what_is_guessed_is_told(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", config={"architectures": ["Qwen3ForCausalLM"]})
    assert guess(model) == "by the architecture in its config.json"
    assert guess("whatever/it-calls-it", "http://127.0.0.1:8000/v1") == "as any model on a server"
    adapter = folder(tmp_path / "a", adapter_config={"base_model_name_or_path": "rank-vicuna"})
    assert [guess(known) for known in ("smollm2", "castorini/rank_zephyr_7b_v1_full", adapter)] == [""] * 3


@pytest.mark.parametrize("lm", ["nonsense", "sliding", "cross-encoder", "fake"])
def test_what_runs_no_model(lm: str) -> None:
    with pytest.raises(RecipeError, match=f"--lm {lm}: expected hf, vllm, ray, or the URL of a server"):
        component("smollm2", lm=lm)


@pytest.mark.parametrize("lm", ["localhost", "localhost:1", "10.0.0.3:8000/v1", "gpu-box:8000", "[::1]:80"])
def test_a_host_without_a_scheme_is_no_wrong_model(lm: str) -> None:
    cure = f"http://{lm}" if lm.endswith("/v1") else f"http://{lm}/v1"
    with pytest.raises(RecipeError, match=re.escape(f"--lm {lm}: a host, whose scheme is missing: --lm {cure}")):
        component("what-the-server-calls-it", lm=lm)


def test_an_engine_that_spreads_another() -> None:
    hf = {"use": "hf", "model": "smollm2"}
    assert component("smollm2", lm="ray") == {"use": "listwise", "lm": {"use": "ray", "lm": hf}}


def test_an_adapter_of_the_hub_is_put_on_its_base(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--o--lora" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    (snapshot / "adapter_config.json").write_text('{"base_model_name_or_path": "castorini/rank_vicuna_7b_v1"}')
    (snapshot / "adapter_model.safetensors").touch()
    code = "import json; from rankpipe.rerank.model import component; print(json.dumps(component('o/lora', 'first')))"
    there = os.environ | {"HF_HOME": str(tmp_path), "RANKPIPE_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lm = {"use": "hf", "model": "castorini/rank_vicuna_7b_v1", "adapter": str(snapshot)}
    assert json.loads(done.stdout) == {"use": "first", "lm": lm}


def test_a_recipe_that_is_not_trained_yet_is_told_its_cure(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    for use in (None, "cross-encoder"):
        with pytest.raises(ArtefactError, match=f"not trained yet; rankpipe train {tmp_path}$"):
            component(str(tmp_path), use)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of the kind 'encoder', which reranks nothing"):
        component("bge-small")
    with pytest.raises(RecipeError, match="top takes no model"):
        component("smollm2", "top")
    for i, architectures in enumerate(([], ["BertModel"], ["Gemma3ForConditionalGeneration"], ["BertForMaskedLM"])):
        model = folder(tmp_path / str(i), config={"architectures": architectures})
        with pytest.raises(ModelError, match="names no architecture that reranks"):
            component(model)
