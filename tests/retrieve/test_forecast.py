"""What a build will take is foretold near enough, from a part; what cannot be had is refused before the work."""

import re
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import forecast, memory, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.forecast import Forecast, free_disk, free_memory
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.sparse import SparseIndex
from tests.heard import Heard

MANY = Dataset.of([Doc(f"d{i}", f"the fox number{i % 700} sleeps over {i % 50} hedges " * 3) for i in range(5000)])
KINDS: dict[str, tuple[type[Living], dict[str, Any]]] = {
    "bm25": (BM25, {}),
    "passages": (BM25, {"passages": {"max": 5}}),
    "dense": (Dense, {"model": "tests.retrieve.fakes:Hashed"}),
    "faiss": (Dense, {"model": "tests.retrieve.fakes:Hashed", "factory": "HNSW16", "recall": 0.1}),
    "sparse": (SparseIndex, {"model": "tests.retrieve.models:Weights"}),
    "colbert": (ColBERT, {"model": "tests.retrieve.models:Directions"}),
}


@pytest.fixture(autouse=True)
def few_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "WORTH", 100)
    monkeypatch.setattr(forecast, "SAMPLE", (8, 200))


@pytest.mark.parametrize("name", KINDS)
def test_near_enough(name: str, tmp_path: Path) -> None:
    kind, how = KINDS[name]
    told = forecast.forecast(kind, MANY, shelf.full(kind, {"use": kind.kind, **how}))
    assert told is not None
    assert (told.documents, told.sample) == (5000, 200)
    size = kind.build(MANY, tmp_path / "index", **how).manifest.size_bytes  # type: ignore[attr-defined]
    assert 0.8 * size < told.size_bytes < 1.3 * size
    assert told.seconds > 0
    assert told.memory_bytes > forecast.BESIDE + 2 * 320 * 5000


def test_the_trial_is_one_piece_of_work() -> None:
    """What is tried is not told as if it were the index."""
    with listening(heard := Heard()):
        assert forecast.forecast(BM25, MANY, shelf.full(BM25, {"use": "bm25"}))
    [label] = heard.work
    assert label.endswith("to foretell what their index takes")
    assert heard.counts == []


def test_what_was_foretold_stands_beside_what_came(tmp_path: Path) -> None:
    with listening(heard := Heard()):
        shelf.build(MANY, tmp_path, {"use": "bm25"})
    assert f"{tmp_path}: 5000 documents: about " in heard.notices[0]
    assert re.search("foretold were about .* s and .* MB; it took .* s and .* MB$", heard.notices[-1])


def test_a_limit_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST", 1)
    told = forecast.forecast(BM25, MANY, shelf.full(BM25, {"use": "bm25"}), memory=100_000)
    assert told is not None
    assert told.memory_bytes == forecast.BESIDE + 100_000


def test_a_shard_is_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = shelf.full(BM25, {"use": "bm25"})
    whole, cut, one = (forecast.forecast(BM25, MANY, recipe, shard=shard) for shard in (None, 500, 9000))
    assert whole is not None
    assert cut is not None
    assert one is not None
    assert cut.memory_bytes - forecast.BESIDE == pytest.approx((whole.memory_bytes - forecast.BESIDE) / 10, abs=2)
    assert (cut.size_bytes, one.memory_bytes) == (whole.size_bytes, whole.memory_bytes)
    monkeypatch.setattr(shelf, "free_memory", lambda: 1)
    with pytest.raises(RecipeError, match="memory: about"):
        shelf.build(MANY, tmp_path, {"use": "bm25"})
    assert shelf.build(MANY, tmp_path, {"use": "bm25"}, shard=2500), "workers have memory of their own"


def test_of_few_documents_nothing_is_said(tiny: Dataset) -> None:
    assert forecast.forecast(BM25, tiny, shelf.full(BM25, {"use": "bm25"})) is None


def test_what_cannot_be_had_is_refused() -> None:
    told = Forecast(1000, 3.0, 5 << 30, 3 << 30, 1 << 30, 200)
    told.refuse(6 << 30, 4 << 30)
    with pytest.raises(RecipeError) as error:
        told.refuse(2 << 30, 1 << 30)
    assert error.value.faults == [
        "memory: about 5 GB are needed, 2 GB are free; build it in less, for example --memory 1GB",
        "disk: about 3 GB are needed, 1 GB are free; free some",
    ]


def test_nothing_is_built_that_cannot_come_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "free_disk", lambda _: 1024.0)
    with pytest.raises(RecipeError, match=r"disk: about .* are needed, 1 KB are free"):
        shelf.build(MANY, tmp_path / "index", {"use": "bm25"})
    assert not (tmp_path / "index").exists()


def test_what_is_free() -> None:
    assert 1 << 20 < free_memory() < 1 << 50
    assert free_disk(Path("/")) == free_disk(Path("/no/such/folder"))
