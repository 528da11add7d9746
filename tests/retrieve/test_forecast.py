"""What a build will take is foretold near enough, from a part; what cannot be had is refused before the work."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.dataset import Held
from rankpipe.errors import RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import bm25, building, embed, forecast, late, memory, shelf, sparse
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.forecast import Forecast, free_disk, free_memory
from rankpipe.retrieve.grown import Grown
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.sparse import SparseIndex
from tests.heard import Heard
from tests.retrieve.fakes import Interrupted

MANY = Dataset.of([Doc(f"d{i}", f"the fox number{i % 700} sleeps over {i % 50} hedges " * 3) for i in range(5000)])
BESIDE = forecast.beside(5000)
KINDS: dict[str, tuple[type[Living], dict[str, Any]]] = {
    "bm25": (BM25, {}),
    "passages": (BM25, {"passages": {"max": 5}}),
    "dense": (Dense, {"model": "tests.retrieve.fakes:Hashed"}),
    "faiss": (Dense, {"model": "tests.retrieve.fakes:Hashed", "factory": "HNSW16", "recall": 0.1}),
    "sparse": (SparseIndex, {"model": "tests.retrieve.models:Weights"}),
    "colbert": (ColBERT, {"model": "tests.retrieve.models:Directions"}),
}


class Uncounted(Held):
    """Documents that nobody has counted."""

    @property
    def count(self) -> None:  # type: ignore[override]
        """Not known."""


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
    assert told.memory_bytes > BESIDE + 320 * 5000


@pytest.mark.parametrize("name", ["bm25", "dense", "colbert"])
def test_fields_are_foretold(name: str, tmp_path: Path) -> None:
    """What they take on the disk; and in memory, where those that are always new grow as the documents do."""
    kind, how = KINDS[name]
    data = Dataset.of([Doc(d.id, d.text, fields={"url": d.id * 50, "year": len(d.id)}) for d in MANY.docs()])
    plain, told = (forecast.forecast(kind, one, shelf.full(kind, {"use": kind.kind, **how})) for one in (MANY, data))
    assert plain is not None
    assert told is not None
    size = kind.build(data, tmp_path / "index", **how).manifest.size_bytes  # type: ignore[attr-defined]
    assert 0.8 * size < told.size_bytes < 1.3 * size
    more = forecast.WORK * 5000 * (memory.TERM + 250)
    assert 0.9 * more < told.memory_bytes - plain.memory_bytes < 1.3 * more


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


def test_faiss_building_is_foretold_or_said_to_be_left_out(tmp_path: Path) -> None:
    """Its graph or lists may take most of the time; nothing of the kind is said of others."""
    kind, how = KINDS["faiss"]
    for name, said in (("HNSW32", False), ("PQ4x4", True)):
        with listening(heard := Heard()):
            shelf.build(MANY, tmp_path / name, {"use": kind.kind, **how, "factory": name})
        for line in (heard.notices[0], heard.notices[-1]):
            assert bool(re.search(r"about \S+ \w+ \(without FAISS's building\)", line)) is said, line


@pytest.mark.parametrize(("factory", "learns"), [("HNSW32", 0), ("IVF64,Flat", 65_536), ("exact", 0), ("SQ8", 65_536)])
def test_more_documents_take_faiss_longer(factory: str, learns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that says of each piece of work that it took a second."""
    monkeypatch.setattr(building, "perf_counter", iter(range(100)).__next__)
    for documents in (100_000, 200_000):
        said = building.seconds(factory, 32, documents, train=100_000)
        assert said == pytest.approx((documents + learns) / building.TRIED[1])


def test_passages_are_what_faiss_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    monkeypatch.setattr(building, "seconds", lambda *given, **_: asked.append(given[2]) or 1.0)
    how = {"use": "dense", "model": "tests.retrieve.fakes:Hashed", "factory": "HNSW16", "passages": {"max": 5}}
    assert forecast.forecast(Dense, MANY, shelf.full(Dense, how))
    words = len(next(iter(MANY.docs())).text.split())
    assert asked == [5000 * -(-words // 5)]


@pytest.mark.parametrize("factory", ["PQ4x4", "IVF5000,Flat", "IDMap,Flat", "RQ4x8"])
def test_what_takes_too_long_to_try_is_not_foretold(factory: str) -> None:
    assert building.seconds(factory, 32, 100_000, train=100_000) is None


def test_a_limit_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST", 1)
    told = forecast.forecast(BM25, MANY, shelf.full(BM25, {"use": "bm25"}), memory=100_000)
    assert told is not None
    assert told.memory_bytes == BESIDE + 100_000


def test_a_shard_is_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = shelf.full(BM25, {"use": "bm25"})
    whole, cut, one = (forecast.forecast(BM25, MANY, recipe, shard=shard) for shard in (None, 500, 9000))
    assert whole is not None
    assert cut is not None
    assert one is not None
    assert 0.1 <= (cut.memory_bytes - forecast.beside(500)) / (whole.memory_bytes - BESIDE) < 0.35  # words come again
    assert (cut.size_bytes, one.memory_bytes) == (whole.size_bytes, whole.memory_bytes)
    monkeypatch.setattr(shelf, "free_memory", lambda: 1)
    with pytest.raises(RecipeError, match="memory: about"):
        shelf.build(MANY, tmp_path, {"use": "bm25"})
    assert shelf.build(MANY, tmp_path, {"use": "bm25"}, shard=2500), "workers have memory of their own"


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_what_is_held_is_near_enough(count: int, tmp_path: Path) -> None:
    """By the operating system's own count, in a process that does nothing else: not less, and not much more."""
    data = tmp_path / "corpus.jsonl"
    chance = random.Random(0)
    words = [f"{chance.choice('bcdfgh')}{i**3 % 99_991}" for i in range(60_000)]
    with open(data, "w") as f:
        for i in range(count):
            text = " ".join(words[int(len(words) * chance.random() ** 4)] for _ in range(60))
            f.write(json.dumps({"_id": f"d{i}", "text": text}) + "\n")
    program = """
import sys
from pathlib import Path
from rankpipe import BM25, open_dataset
from rankpipe.retrieve import forecast, shelf
def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
data, before = open_dataset(sys.argv[1]), peak()
if sys.argv[2:]:
    BM25.build(data, Path(sys.argv[2]))
    print(peak() - before)
else:
    forecast.SAMPLE = (8, 200, 4000)
    print(forecast.forecast(BM25, data, shelf.full(BM25, {"use": "bm25"})).memory_bytes)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    told, seen = (
        int(subprocess.run([sys.executable, "-c", program, data, *more], check=True, capture_output=True).stdout)
        for more in ((), (tmp_path / "index",))
    )
    assert 0.9 * seen < told < 2.5 * seen


def test_a_stream_is_foretold_by_the_piece(tmp_path: Path) -> None:
    """Nobody knows how many documents come: nothing is refused, and one can multiply."""
    unknown = replace(MANY, corpus=Uncounted(tuple(MANY.docs())))
    told = forecast.forecast(BM25, unknown, shelf.full(BM25, {"use": "bm25"}))
    assert told is not None
    assert str(told).startswith("each 100000 documents: about ")
    told.refuse(1, 1)


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


@pytest.mark.parametrize("shard", [None, 1000])
@pytest.mark.parametrize("name", ["bm25", "passages", "dense", "sparse", "colbert"])
def test_what_is_left_is_foretold_of_a_build_that_goes_on(
    name: str, shard: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of segments that are whole, and of texts that are encoded of the next one."""
    kind, how = KINDS[name]
    for module in (bm25, embed, sparse, late):
        monkeypatch.setattr(module, "SHARD", 500)
    monkeypatch.setattr(BM25, "portion", 2000)
    monkeypatch.setattr(forecast, "perf_counter", count().__next__)  # a second for each sample
    node, append = {"use": kind.kind, **how}, Grown.append
    whole = forecast.forecast(kind, MANY, shelf.full(kind, node), shard=shard)

    def stops(self: Grown, *told: Any, **more: Any) -> None:
        append(self, *told, **more)
        if self.documents == 3000:
            raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Grown, "append", stops)
        torn = replace(MANY, corpus=Interrupted(tuple(MANY.docs()), at=3100))
        read = MANY if name in ("sparse", "colbert") and not shard else torn
        shelf.build(read, tmp_path / "index", node, shard=shard)
    with listening(heard := Heard()):
        shelf.build(MANY, tmp_path / "index", node, shard=shard, told=(told := list[Forecast]()).append)
    assert whole is not None
    assert (told[0].documents, told[0].done) == (5000, 3100 if (name, shard) == ("passages", None) else 3000)
    assert told[0].size_bytes == pytest.approx(whole.size_bytes, rel=0.01)
    assert told[0].disk_bytes < 0.8 * whole.disk_bytes
    assert told[0].seconds == pytest.approx(whole.seconds * (1 - told[0].done / 5000))
    assert f"5000 documents, {told[0].done} of them done: about " in heard.notices[0]
    assert " for the rest, " in heard.notices[0]


def test_a_build_of_other_documents_does_not_go_on(tmp_path: Path) -> None:
    """What is left of another is no part of it."""
    other = Dataset.of([Doc(f"x{i}", "tea") for i in range(500)])
    left = tmp_path / "made" / ".work-0123456789ab" / "000000"
    left.mkdir(parents=True)
    (left / "facts.json").write_text('{"documents": 400}')
    shelf.build(other, tmp_path, {"use": "bm25"}, told=(told := list[Forecast]()).append)
    assert told[0].done == 0
    for torn in ("facts.json", "encoded.json"):
        (left / torn).parent.mkdir(parents=True, exist_ok=True)
        (left / torn).write_text('{"documents"')
        assert forecast._done(left.parent) == (0, 0)
        (left / torn).unlink()
