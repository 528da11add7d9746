"""train and teach as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from shutil import rmtree
from threading import current_thread, main_thread

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankpipe import store
from rankpipe.cli import app, recipes, show, train
from rankpipe.datasets import open_dataset
from rankpipe.errors import RecipeError
from rankpipe.train import processes
from rankpipe.train.labels import Recorded
from rankpipe.trec import read_run

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft still asks for it
VERBS = (recipes, train)  # importing them registers their verbs
Rankpipe = Callable[..., Result]


@pytest.fixture
def rankpipe(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rankpipe:
    """The command, in this process, beside a run of the tiny collection: six documents by id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(show, "manner", show.Manner())
    data = open_dataset(tiny_path)
    ids = sorted(doc.id for doc in data.docs())[:6]
    rows = [f"{q.id} Q0 {doc} {i} {-i} x\n" for q in data.queries for i, doc in enumerate(ids, 1)]
    Path("run.trec").write_text("".join(rows))

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == code, (words, done.output)
        return done

    return run


def test_a_teacher_labels(rankpipe: Rankpipe, tiny_path: Path, embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    told = rankpipe(
        "teach", "run.trec", "--data", tiny_path, "--split", "test", "--model", "minilm-l12", "--depth", 3,
        "--out", "said", "--json",
    )  # fmt: skip
    facts = json.loads(told.stdout)
    data = open_dataset(tiny_path)
    said = read_run(store.open_artefact(Path("said"), kind="labels").path / "labels.trec").run
    assert facts["labels"] == sum(map(len, said.values()))
    for query in data.queries:
        good = {d for d, grade in data.qrels.get(query.id, {}).items() if grade > 0}
        assert good <= said[query.id].keys()
        assert 3 <= len(said[query.id]) <= 3 + len(good)
    assert Recorded(Path("said"))._said == said


def test_a_teacher_replaces_nothing(rankpipe: Rankpipe, tiny_path: Path, embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")

    def teach(out: str, depth: int, *words: str, code: int = 0) -> str:
        told = ("--data", tiny_path, "--split", "test", "--model", "minilm-l12", "--depth", depth, "--out", out)
        return " ".join(rankpipe("teach", "run.trec", *told, *words, code=code).output.split())

    for folder, file in (("models/t", "recipe.yaml"), ("full", "x")):
        Path(folder).mkdir(parents=True)
        (Path(folder) / file).touch()
        assert f"{folder}: holds {file}, and nothing that was built; name another" in teach(folder, 3, code=6)
        assert [path.name for path in Path(folder).iterdir()] == [file]
    for _ in range(2):
        teach("said", 3)
    manifest = Path("said/manifest.json").read_bytes()
    assert "by another reranker or another setting of it; name another folder, or --force" in teach("said", 2, code=6)
    assert Path("said/manifest.json").read_bytes() == manifest
    teach("said", 2, "--force")
    assert store.read_manifest(Path("said")).recipe["stage"]["depth"] == 2
    Path("said/manifest.json").unlink()
    rmtree("said/made")  # as a killed one leaves it
    teach("said", 3)


def recipe(model: Path, data: Path, more: str = "") -> Path:
    """The folder of one, that is trained in two steps."""
    folder = Path("models/it")
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"""
model: {model}
head: {{use: first-head, context: 1000}}
examples: {{use: lists, data: {data}, run: run.trec, length: [2, 4]}}
loss: {{use: ranknet}}
training: {{max_steps: 2, learning_rate: 0.01, use_cpu: true}}
{more}
""")
    return folder


def test_a_recipe_is_checked_and_trained(rankpipe: Rankpipe, tiny_path: Path, tiny_chat: Path) -> None:
    pytest.importorskip("peft")
    folder = recipe(tiny_chat, tiny_path, "adapter: lora")
    assert "no faults" in rankpipe("check", folder).stdout
    told = rankpipe("train", folder)
    assert "2 steps" in (folder / "card.md").read_text()
    assert "rankpipe rerank RUN --data DATA --model models/it --out NEW" in " ".join(told.stderr.split())
    assert "peak bytes" in told.stdout  # of two steps, where every tenth is logged
    assert not [*folder.glob("made/*/README.md")]  # PEFT's own says nothing
    other = Path("models/other")
    rankpipe("train", folder, "--set", "training.seed=1", "--set", "adapter.rank=2", "--out", other)
    made = store.read_manifest(other).recipe
    assert (made["training"]["seed"], made["adapter"], made["loss"]) == (
        1,
        {"use": "lora", "rank": 2},
        {"use": "ranknet"},
    )
    assert "has another recipe" in rankpipe("train", folder, "--set", "training.seed=2", "--out", other, code=2).output
    new = Path("models/new")
    wrong = rankpipe("train", folder, "--set", "training.sed=2", "--out", new, code=3).output
    assert "1 fault in models/it, as it is changed:" in wrong
    assert "no argument 'sed'" in wrong
    assert not new.exists()
    rankpipe("train", folder, "--set", "training.seed=2", "--out", new, "--dry-run")
    told = ("optimizer={use: adamw}", "optimizer.lr=1e-4", "training={max_steps: 2, use_cpu: true}")
    rankpipe("train", folder, *chain.from_iterable(("--set", one) for one in told), "--out", new, "--dry-run")
    assert "lr: 0.0001" in (new / "recipe.yaml").read_text()
    lost = rankpipe("train", folder, "--set", "examples.split=tst", "--out", "models/deep/er", code=4).output
    assert "DataError: " in lost
    assert "no split 'tst'; did you mean test? It has test" in " ".join(lost.split())
    assert not Path("models/deep").exists()
    (Path("data") / "x").mkdir(parents=True)
    other = rankpipe("train", folder, "--set", "training.seed=2", "--out", "data", code=2)
    assert "is no folder of a model" in other.output
    assert "go together" in rankpipe("train", folder, "--set", "training.seed=2", code=2).output
    (folder / "recipe.yaml").write_text("model: x\nhead: first-head\n")
    faults = rankpipe("check", folder, code=3).output
    assert "2 faults in models/it:" in faults
    assert "examples is missing" in faults


def test_of_several_processes_the_first_one_writes_the_changed_recipe(
    rankpipe: Rankpipe, tiny_path: Path, tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others begin when it is there: what they see before may be anything."""
    pytest.importorskip("peft")
    folder = recipe(tiny_chat, tiny_path)
    out = Path("models/other")
    monkeypatch.setattr(processes, "first", lambda: current_thread() is main_thread())
    changed = partial(train._changed, folder, ["training.seed=3"], out)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(changed)
        with pytest.raises(TimeoutError):
            second.result(timeout=1)
        assert changed()[0] == second.result(timeout=10)[0] == out


@pytest.mark.parametrize(
    ("best", "untrained", "over"),
    [
        (0.3471, 0.3741, "the first stage nor over the model before tuning"),
        (0.5, 0.3741, "the first stage"),
        (0.617, None, "the first stage"),
        (0.7, 0.3741, None),
        (None, None, None),
    ],
)
def test_what_is_not_gained_is_told_by_its_name(best: float | None, untrained: float | None, over: str | None) -> None:
    facts = {"measure": "nDCG@10", "best": best, "first_stage": 0.617, "untrained": untrained}
    said = train._not_gained(facts)
    if over is None:
        assert not said
        return
    assert f"tuned {best:.4f}, the first stage 0.6170" in said
    assert ("the model before tuning 0.3741" in said) is (untrained is not None)
    assert said.endswith(f"; nothing is gained over {over}")


def test_a_late_fault_is_told_with_its_recipe() -> None:
    for raised, told in (
        (RecipeError(["dev: x"]), "1 fault in models/it:"),
        (RecipeError(["dev: x"], "mine"), "1 fault in mine:"),
    ):
        with pytest.raises(RecipeError, match=told), train._refusals(Path("models/it"), None):
            raise raised
