"""What leaves the shelf answers as the adapter did: merged, exported, or as one plain LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("datasets")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),  # PEFT of any AdaLoRA; it does use them
]

from rankpipe import recipe, store  # noqa: E402
from rankpipe.datasets import open_dataset, rankings  # noqa: E402
from rankpipe.errors import ArtefactError, DataError, RecipeError  # noqa: E402
from rankpipe.rerank.model import component  # noqa: E402
from rankpipe.store import Manifest  # noqa: E402
from rankpipe.train.release import exported, merged  # noqa: E402
from rankpipe.train.tuning import Tuning  # noqa: E402
from rankpipe.trec import read_run  # noqa: E402
from rankpipe.weights import rankers  # noqa: E402

ADALORA = {"use": "adalora", "rank": 2, "begin_rank": 4, "every": 1}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"use": "lora", "rank": 2}, "dora": {"use": "dora", "rank": 2}, "adalora": ADALORA,
    "randlora": {"use": "randlora", "rank": 4, "alpha": 80}, "relora": {"use": "relora", "every": 2, "stages": 2},
}  # fmt: skip


@pytest.fixture
def trained(written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains a model of some method in the folder that it is run from."""
    monkeypatch.chdir(tmp_path)

    def train(name: str = "it", **more: Any) -> Manifest:
        Tuning(written(name, head={"use": "pointwise-head"}, loss={"use": "ranknet"}, **more)).run()
        return rankers.ranker(name)

    return train


@pytest.fixture
def scores(tiny_path: Path, first_stage: Path) -> Any:
    """The scores that a reranker gives."""
    given = rankings(read_run(first_stage).run, open_dataset(tiny_path))[:3]

    def score(node: dict[str, Any]) -> list[dict[str, float]]:
        return [{h.doc.id: h.score for h in r.hits} for r in recipe.build(node, Path.cwd()).run(given)]

    return score


def near(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return [pytest.approx(row, abs=1e-4) for row in one] == other


@pytest.mark.parametrize("method", METHODS)
def test_merged_it_ranks_as_before(method: str, trained: Any, scores: Any) -> None:
    made = trained(adapter=METHODS[method])
    before, base = scores(rankers.reranker(made)), scores(rankers.reranker(made, base=True))
    assert not near(base, before)
    loss = merged(made, Path("models/whole"), "float32")
    assert loss.of_update < 1e-5
    whole = rankers.ranker("whole")
    assert rankers.reranker(whole)["lm"]["model"] == "models/whole"
    assert near(scores(rankers.reranker(whole)), before)
    assert near(scores(rankers.reranker(whole, base=True)), base)
    assert near(scores(component("models/whole")), before)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= whole.files.keys()
    assert not {name for name in whole.files if "adapter" in name}


def test_what_rounding_loses_is_kept(trained: Any) -> None:
    made = trained()
    loss = merged(made, Path("whole"), "bfloat16")
    assert 1e-3 < loss.of_update < 0.5
    facts = rankers.ranker("whole").facts
    assert facts["merged"]["of_update"] == loss.of_update
    assert facts["reranker"]["lm"]["dtype"] == "bfloat16"
    model = transformers.AutoModelForCausalLM.from_pretrained(rankers.ranker("whole").path)
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["lora", "adalora", "relora"])
def test_exported_plain_peft_reads_it(method: str, trained: Any, scores: Any, tiny_chat: Path) -> None:
    made = trained(adapter=METHODS[method])
    exported(made, Path("plain"))
    exported(made, Path("as-lora"), as_lora=True)
    before = scores(rankers.reranker(made))
    for folder in ("plain", "as-lora"):
        node = rankers.reranker(made)
        node["lm"]["adapter"] = folder
        assert near(scores(node), before)
        assert Path(folder, "README.md").read_text().startswith("---\nbase_model")
        assert Path(folder, "tokenizer.json").exists()
    assert json.loads(Path("as-lora/adapter_config.json").read_text())["peft_type"] == "LORA"


@pytest.mark.parametrize(
    ("head", "loss", "adapter", "loaded"),
    [
        ("cross-encoder-head", "ranknet", None, "CrossEncoder"),
        ("bi-encoder-head", "infonce", {"use": "lora", "rank": 2}, "SentenceTransformer"),
        ("pointwise-head", "ranknet", {"use": "lora", "rank": 2}, "PeftModelForCausalLM"),
        ("pointwise-head", "ranknet", None, "LlamaForCausalLM"),
    ],
)
def test_an_exported_card_says_what_loads_it_there(
    head: str, loss: str, adapter: Any, loaded: str, written: Any, tiny_bert: Path, tiny_chat: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    model = str(tiny_chat if head == "pointwise-head" else tiny_bert)
    folder = written(model=model, head={"use": head}, loss={"use": loss}, adapter=adapter)
    Tuning(folder).run()
    exported(rankers.ranker(str(folder)), tmp_path / "given")
    card = (tmp_path / "given" / "README.md").read_text()
    assert "models/it" not in card
    use = card.partition("## Use")[2].partition("## Recipe")[0].replace("FOLDER", str(tmp_path / "given"))
    node = yaml.safe_load(use.partition("```yaml\n")[2].partition("```")[0])
    assert recipe.check(node) == []
    names: dict[str, Any] = {}
    exec(use.partition("```python\n")[2].partition("```")[0], names)
    assert type(names["model"]).__name__ == loaded


@pytest.mark.parametrize("method", ["dora", "randlora"])
def test_what_is_no_lora_is_not_written_as_one(method: str, trained: Any) -> None:
    made = trained(adapter=METHODS[method])
    with pytest.raises(RecipeError, match=r"not of low rank; .* or merge it"):
        exported(made, Path("as-lora"), as_lora=True)
    assert not [path for path in Path().iterdir() if "as-lora" in path.name]


def test_the_shelf(trained: Any, tiny_chat: Path, written: Any) -> None:
    one, whole = trained(), trained("all-weights", adapter=None)
    assert [made.folder.name for made in rankers.shelf()] == ["all-weights", "it"]
    assert rankers.has_adapter(one)
    assert not rankers.has_adapter(whole)
    assert rankers.reranker(whole, base=True)["lm"]["model"] == str(tiny_chat)
    assert component("models/it")["lm"] == rankers.reranker(one)["lm"]
    assert component("models/it", lm="ray")["lm"]["lm"]["adapter"] == "models/it"
    with pytest.raises(DataError, match="did you mean all-weights"):
        rankers.ranker("al-weights")
    written("later")
    with pytest.raises(ArtefactError, match="not trained yet; rankpipe train models/later"):
        rankers.ranker("later")
    with pytest.raises(RecipeError, match="a whole model"):
        merged(whole, Path("x"), "float32")
    with pytest.raises(ArtefactError, match="was trained there"):
        merged(one, Path("models/all-weights"), "float32")
    with pytest.raises(ArtefactError, match="is there already"):
        exported(one, Path("models/all-weights"))
    assert store.open_artefact(Path("models/all-weights"), kind="ranker").build == whole.build
