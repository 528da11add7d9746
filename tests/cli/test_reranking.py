"""What --model, --use, --lm and --set make of each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankpipe.cli.reranking import By
from rankpipe.errors import RecipeError


def test_short_for_a_component() -> None:
    short = By(use="listwise", settings=["lm=fake", "lm.noise=0", "plan=tournament", "plan.size=8", "plan.keep=4"])
    whole = By(use="listwise", settings=["lm={use: fake, noise: 0}", "plan={use: tournament, size: 8, keep: 4}"])
    assert short.node() == whole.node()


def test_a_prompt_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text('passage: "{label} {passage}"\nmessages: [{user: "{query}{passages}"}]')
    node = By(use="listwise", settings=["lm=fake", "prompt=mine.yaml"]).node()
    assert node["prompt"] == {"use": "prompt", "file": "mine.yaml"}
    with pytest.raises(RecipeError, match=r"none\.yaml: no such prompt file"):
        By(use="listwise", settings=["lm=fake", "prompt=none.yaml"]).node()


@pytest.mark.parametrize(
    ("by", "told"),
    [
        (By(use="listwise"), "listwise asks a language model: name one with --model, or with --set lm="),
        (By(use="icr"), "icr asks a language model"),
        (By(use="listwise", settings=["lm=nonsense"]), "'nonsense' is no language model"),
        (By(use="listwise", settings=["lm=fake", "plan=nonsense"]), "'nonsense' is no plan"),
        (By(model="smollm2", lm="nonsense"), "--lm nonsense: expected hf, vllm, ray, or the URL of a server"),
        (By(model="smollm2", settings=["lm=fake"]), "--model and --set lm=...: give one of them"),
        (By(model="smollm2", settings=["lm=nonsense"]), "--model and --set lm=...: give one of them"),
    ],
)
def test_what_does_not_go_together(by: By, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        by.node()


def test_a_guess_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    assert By(model=str(model)).node()["use"] == "listwise"
    said = f"{model} is not in the table of models: listwise, by the architecture in its config.json; --use says"
    assert said in capsys.readouterr().err.replace("\n", "")
    By(model=str(model), use="listwise").node()
    By(model="rank-zephyr").node()
    assert capsys.readouterr().err == ""
