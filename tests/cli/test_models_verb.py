"""rankpipe models as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankpipe import store
from rankpipe.cli import app, evaluate, models, rerank, show
from rankpipe.datasets import open_dataset
from rankpipe.progress import listening
from rankpipe.train.tuning import Tuning
from rankpipe.weights import rankers
from tests.heard import Heard

for package in ("torch", "transformers", "peft", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
VERBS = (evaluate, models, rerank)  # importing them registers their verbs
MEASURES = ("-m", "nDCG@10", "-m", "RR@10")


@pytest.fixture(scope="module")
def shelf(tiny_path: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and a model on its shelf."""
    house = tmp_path_factory.mktemp("house")
    data = open_dataset(tiny_path)
    ids = sorted(doc.id for doc in data.docs())
    rows = [f"{q.id} Q0 {doc} {i} {-i} x\n" for q in data.queries for i, doc in enumerate(ids[:12], 1)]
    (house / "run.trec").write_text("".join(rows))
    (house / "models" / "it").mkdir(parents=True)
    (house / "models" / "it" / "recipe.yaml").write_text(f"""
model: {tiny_chat}
head: {{use: pointwise-head, context: 1000}}
examples: {{use: lists, data: {tiny_path}, run: {house / "run.trec"}, length: [2, 4]}}
loss: {{use: ranknet}}
adapter: {{use: lora, rank: 2, targets: [q_proj, v_proj]}}
training: {{max_steps: 3, learning_rate: 0.1, use_cpu: true}}
""")
    Tuning(house / "models" / "it").run()
    return house


@pytest.fixture
def rankpipe(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, in this process, beside the shelf."""
    monkeypatch.chdir(shelf)
    monkeypatch.setattr(show, "manner", show.Manner())

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "300"})
        assert done.exit_code == code, (words, done.output)
        return done

    return run


def told(done: Result) -> Any:
    return json.loads(done.stdout)


def test_the_shelf_is_listed(rankpipe: Callable[..., Result], tiny_chat: Path) -> None:
    listed = told(rankpipe("models", "--json"))
    assert listed == told(rankpipe("models", "list", "--json"))
    [it] = [row for row in listed["tuned"] if row["name"] == "it"]
    assert (it["base"], it["head"], it["method"], it["steps"]) == (str(tiny_chat), "pointwise-head", "lora", 3)
    assert it["size_bytes"] == store.read_manifest(Path("models/it")).size_bytes
    assert "smollm2" in {row["name"] for row in listed["aliases"]}
    done = rankpipe("models")
    said = done.stdout
    assert "Tuned (models/)" in said
    assert "nothing is on the shelf" not in done.output
    assert "not here" not in done.output
    assert "minilm-l12" in said


def test_it_is_shown(rankpipe: Callable[..., Result]) -> None:
    said = rankpipe("models", "show", "it").stdout
    assert "rankpipe rerank RUN --data DATA --model models/it --out NEW" in said
    assert "adapter: models/it" in said
    shown = told(rankpipe("models", "show", "models/it", "--json"))
    numbers = 2 * (2 * (16 + 16) + 2 * (16 + 16))  # layers, q_proj and v_proj, rank 2 from 16 to 16
    assert shown["trained"] == numbers
    assert shown["report"].startswith(f"trains {numbers} of ")
    assert f"lora_A {numbers // 2}, lora_B {numbers // 2}" in shown["report"]
    assert "no tuned model 'nothing'. See: rankpipe models" in rankpipe("models", "show", "nothing", code=4).output


def test_a_recipe_that_is_another_by_now_is_told(rankpipe: Callable[..., Result]) -> None:
    path = Path("models/it/recipe.yaml")
    before = path.read_text()
    assert told(rankpipe("models", "show", "it", "--json"))["recipe_changed"] == []
    assert "another by now" not in rankpipe("models", "show", "it").stderr
    path.write_text(before.replace("ranknet", "listnet").replace("0.1", "0.2"))
    try:
        said = " ".join(rankpipe("models", "show", "it").stderr.split())
        assert "another by now (loss, training); rankpipe train models/it goes by that" in said
        assert told(rankpipe("models", "show", "it", "--json"))["recipe_changed"] == ["loss", "training"]
    finally:
        path.write_text(before)


def test_what_is_elsewhere_is_shown_too(rankpipe: Callable[..., Result]) -> None:
    """As in a clone, which has manifests only."""
    made = store.read_manifest(Path("models/it")).path
    away = made.rename(made.with_name("away"))
    try:
        listed = rankpipe("models")
        assert "not here" in next(line for line in listed.stdout.splitlines() if "│it " in line)
        assert "what is not here can be trained: rankpipe train models/it" in listed.stderr
        assert told(rankpipe("models", "show", "it", "--json"))["here"] is False
        assert "its files are not here: rankpipe train models/it" in rankpipe("models", "show", "it").stderr
        assert "is gone" in rankpipe("models", "export", "it", "--out", "exported", code=6).stderr
    finally:
        away.rename(made)


def test_it_is_compared_with_its_base(rankpipe: Callable[..., Result], tiny_path: Path) -> None:
    """The same numbers as by two reruns and ``rankpipe compare``; weights are loaded once, no answer is asked twice."""
    words = ("models", "compare", "it", "--data", tiny_path, "--run", "run.trec", *MEASURES, "--cache", "kept.sqlite")
    with listening(heard := Heard()):
        found = told(rankpipe(*words, "-q", "--json"))
    assert sum(said.endswith("loading") for said in heard.work) == 1
    node = told(rankpipe("models", "show", "it", "--json"))["reranker"]
    base = node | {"lm": {k: v for k, v in node["lm"].items() if k != "adapter"}}
    for out, asked in (("base.trec", base), ("it.trec", node)):
        settings = [f"{key}={json.dumps(value)}" for key, value in asked.items() if key != "use"]
        given = [word for setting in settings for word in ("--set", setting)]
        rankpipe("rerank", "run.trec", "--data", tiny_path, "--use", node["use"], *given, "--out", out)
    wanted = told(rankpipe("compare", "base.trec", "it.trec", "--data", tiny_path, *MEASURES, "--json"))
    for ours, theirs in zip(found["differences"], wanted["differences"], strict=True):
        assert ours | {"system": ""} == theirs | {"system": ""}
    assert any(d["delta"] for d in found["differences"])
    assert found["baseline"] == "base"
    said = rankpipe(*words)
    assert "it against base; p-values Holm-corrected" in said.stdout
    assert "is what it was trained on: its gain says nothing of other queries" in " ".join(said.stderr.split())
    with listening(heard := Heard()):
        rankpipe(*words, "-q")
    assert not [said for said in heard.work if said.endswith("loading")]


def test_a_base_without_a_head_is_no_baseline(
    rankpipe: Callable[..., Result], tiny_path: Path, embedded: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its scores would be random. The recipe lies on no shelf, and not below the working folder."""
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "cross"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"""
model: {embedded("minilm")}
head: {{use: cross-encoder-head, max_length: 32}}
examples: {{use: lists, data: {tiny_path}, run: {Path("run.trec").absolute()}, length: [2, 2]}}
loss: {{use: ranknet}}
training: {{max_steps: 1, per_device_train_batch_size: 1, use_cpu: true}}
""")
    Tuning(folder).run()
    done = rankpipe("models", "compare", folder, "--data", tiny_path, "--run", "run.trec", *MEASURES, "--json")
    found = told(done)
    assert found["baseline"] == "run"
    assert "has no head to score with: the run is what cross is compared with" in " ".join(done.stderr.split())
    rankpipe("rerank", "run.trec", "--data", tiny_path, "--model", folder, "--out", "cross.trec")
    wanted = told(rankpipe("compare", "run.trec", "cross.trec", "--data", tiny_path, *MEASURES, "--json"))
    assert [d["delta"] for d in found["differences"]] == [d["delta"] for d in wanted["differences"]]


def test_a_model_that_is_named_knows_its_reranker(rankpipe: Callable[..., Result], tiny_path: Path) -> None:
    done = told(
        rankpipe("rerank", "run.trec", "--data", tiny_path, "--model", "models/it", "--depth", 3, "-q", "--json")
    )
    assert [step["stage"] for step in done["steps"]] == ["Pointwise"]


def test_it_is_merged_and_exported(rankpipe: Callable[..., Result]) -> None:
    merged = told(rankpipe("models", "merge", "it", "--out", "models/whole", "--dtype", "bfloat16", "--json"))
    assert 0 < merged["lost_of_update"] < 1
    assert Path(merged["files"], "model.safetensors").exists()
    assert "rounding" in rankpipe("models", "merge", "it", "--out", "models/whole", "--dtype", "float32").stdout
    [row] = [row for row in told(rankpipe("models", "--json"))["tuned"] if row["name"] == "whole"]
    assert row["method"] == "lora, merged"
    assert "adapter_model.safetensors" in told(rankpipe("models", "export", "it", "--out", "plain", "--json"))["files"]
    said = rankpipe("models", "export", "it", "--format", "gguf", "--out", "no", code=2).output
    assert "transformers reads GGUF and writes none" in said
    assert "convert_hf_to_gguf.py" in said
    assert not Path("no").exists()
    assert "with any adapter merged" in rankpipe("models", "merge", "whole", "--out", "again", code=2).output


def test_what_the_first_stage_had_is_called_so(shelf: Path) -> None:
    made = store.read_manifest(shelf / "models" / "it")
    measured = {"measure": "nDCG@10", "best": 0.3471, "first_stage": 0.617, "untrained": 0.3741}
    assert models._row(replace(made, facts=made.facts | measured))["best"] == "nDCG@10 0.3471 (first stage 0.6170)"


def test_a_bi_encoder_is_shown_as_what_searches_too(
    rankpipe: Callable[..., Result], shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.read_manifest(shelf / "models" / "it")
    told = "rankpipe index build INDEX --data DATA --use dense --set model="
    assert told not in rankpipe("models", "show", "it").stdout
    bi = replace(made, facts={**made.facts, "reranker": {"use": "bi-encoder"}}, files={})
    monkeypatch.setattr(rankers, "ranker", lambda *_, **__: bi)
    assert told in rankpipe("models", "show", "it").stdout
