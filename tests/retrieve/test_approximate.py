"""FAISS's indexes keep the recall that was asked for, never bring back the dead, and score as exact search does."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG

from rankpipe import to_run
from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import MissingExtra, RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import approximate, embedded, living
from rankpipe.retrieve.approximate import Faiss, build, gpu
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.nearest import Exact, Field
from rankpipe.retrieve.shards import Search
from tests.heard import Heard
from tests.retrieve.fakes import Aside
from tests.retrieve.fields import drawn, field
from tests.retrieve.test_dense import FAKE, checksums, collection, ranked

FACTORIES = ["Flat", "HNSW16", "IVF16,Flat", "IVF16_HNSW8,SQ8", "IVF8,PQ16x4", "PCA28,SQ8", "HNSW16,SQ8"]


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of OpenMP that wait for a core spin, and take it from those they wait for."""
    monkeypatch.setattr(approximate, "cores", lambda: 1)


def made(searched: Field, folder: Path, factory: str, recall: float | None = None, train: int = 10**6) -> Faiss:
    build(searched, folder, factory=factory, recall=recall, train=train, device="cpu")
    return Faiss.opened(searched, folder, "cpu")


def shared(searched: Field, found: Faiss, k: int) -> float:
    """Recall for queries that are no documents."""
    queries = drawn(60, searched.kept.vectors.shape[1], seed=9)
    pairs = zip(found.search(queries, k), Exact(searched).search(queries, k), strict=True)
    return float(np.mean([len(set(a[0].tolist()) & set(b[0].tolist())) / k for a, b in pairs]))


@pytest.mark.parametrize("factory", FACTORIES)
def test_any_factory(factory: str, tmp_path: Path) -> None:
    searched, queries = field(tmp_path, drawn(2000)), drawn(10, seed=1)
    found = made(searched, tmp_path, factory, train=500)
    told = json.loads((tmp_path / "faiss.json").read_text())
    assert told["factory"] == factory
    assert told["recall_at_10"] >= (approximate.RECALL if {*told} & {*approximate.KNOBS} else 0.8)
    assert told["recall_at_100"] > 0.6
    assert shared(searched, found, 10) > 0.85
    for query, (places, scores) in zip(queries, found.search(queries, 10), strict=True):
        assert scores.tolist() == searched.scores(query, places).tolist()
        assert len(places) == 10
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_dead_stay_dead(factory: str, tmp_path: Path) -> None:
    vectors, queries = drawn(1000, tight=2), drawn(20, seed=1, tight=2)
    found = made(field(tmp_path, vectors), tmp_path, factory, train=500)
    alive = np.random.default_rng(2).random(1000) < 0.6
    alive[[place for places, _ in found.search(queries, 5) for place in places.tolist()]] = False
    left = field(tmp_path, vectors, alive=alive)
    again = Faiss.opened(left, tmp_path, "cpu")
    for k in (1, 10, 100):
        seen = [places for places, _ in again.search(queries, k)]
        assert all(alive[places].all() for places in seen)
        wanted = [places for places, _ in Exact(left).search(queries, k)]
        assert sum(len(np.intersect1d(a, b)) for a, b in zip(seen, wanted, strict=True)) >= 0.85 * k * len(queries)
    none = Faiss.opened(field(tmp_path, vectors, alive=np.zeros(1000, bool)), tmp_path, "cpu")
    assert [len(places) for places, _ in none.search(queries, 5)] == [0] * 20


def test_flat_is_exact(tmp_path: Path) -> None:
    vectors, queries = drawn(900), drawn(6, seed=1)
    vectors[400:800] = vectors[3]  # more ties than are fetched at first
    alive = np.random.default_rng(0).random(900) < 0.7
    searched = field(tmp_path, vectors, alive=alive)
    found = made(searched, tmp_path, "Flat")
    for k in (1, 5, 200, 2000):
        for a, b in zip(found.search(vectors[:5], k), Exact(searched).search(vectors[:5], k), strict=True):
            assert (a[0].tolist(), a[1].tolist()) == (b[0].tolist(), b[1].tolist())
    assert len(found.search(queries, 2000)[0][0]) == alive.sum()


@pytest.mark.parametrize("factory", ["HNSW8", "IVF64,Flat"])
def test_a_higher_recall_turns_the_knob(factory: str, tmp_path: Path) -> None:
    searched, told = field(tmp_path, drawn(4000, tight=3)), []
    for recall in (0.2, 0.99):
        found = made(searched, tmp_path, factory, recall)
        told.append(json.loads((tmp_path / "faiss.json").read_text()))
        assert told[-1]["recall_at_10"] >= recall
        assert shared(searched, found, 10) > recall - 0.1
    [knob] = {*told[0]} & {*approximate.KNOBS}
    assert told[0][knob] < told[1][knob]


@pytest.mark.parametrize(("least", "found"), [(1, 1), (2, 2), (11, 11), (33, 36), (64, 64)])
def test_the_knob_is_turned_no_further_than_is_enough(
    least: int, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for an eighth of what is too little."""
    search, turned = Faiss.search, list[int]()
    monkeypatch.setattr(Faiss, "search", lambda self, *how: turned.append(self.knobs["nprobe"]) or search(self, *how))
    monkeypatch.setattr(approximate, "recall", lambda *_: float(turned[-1] >= least))
    index = made(field(tmp_path, drawn(4000)), tmp_path, "IVF64,Flat", recall=0.99)
    assert index.knobs["nprobe"] == json.loads((tmp_path / "faiss.json").read_text())["nprobe"] == found


def test_measured_recall_is_that_of_other_documents(tmp_path: Path) -> None:
    """An index of one list in 64 finds a document itself, and few of its neighbours."""
    searched = field(tmp_path, drawn(4000, tight=30))
    _ = made(searched, tmp_path, "IVF64,Flat", recall=0.01)
    told = json.loads((tmp_path / "faiss.json").read_text())
    assert told["nprobe"] == 1
    assert told["recall_at_10"] < 0.5


@pytest.mark.parametrize("factory", ["HNSW8", "IVF64,Flat"])
def test_the_recall_is_that_of_questions(factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie elsewhere than documents; also after a merge, which encodes nothing, and puts documents elsewhere."""
    monkeypatch.setattr(Faiss, "fetch", lambda self, k: k)  # so that the knob counts
    monkeypatch.setattr(embedded, "LEAST", 1000)
    data = collection(1500)
    index = Dense.build(data, tmp_path, model=FAKE + "Aside", factory=factory, recall=0.9)
    asked = Aside().encode_queries([doc.text for doc in collection(300, seed=3).docs()])
    for compacted in (False, True):
        [s] = index.segments
        hits = zip(s.nearest.search(asked, 10), Exact(s.field).search(asked, 10), strict=True)
        found = np.mean([len(np.intersect1d(mine, theirs)) / 10 for (mine, _), (theirs, _) in hits])
        assert found == pytest.approx(index.manifest.facts["recall_at_10"], abs=0.04)
        assert found > 0.87
        assert "recall_of" not in index.manifest.facts
        if not compacted:
            index.delete([f"d{i:04}" for i in range(400)])
            with monkeypatch.context() as m:
                m.setattr(Aside, "_vector", None)  # nothing is encoded
                index.compact()


@pytest.mark.parametrize("before", [60, 1200])
def test_an_index_that_grew_is_asked_what_it_has_grown_to(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From few documents, or from many of another kind, whose neighbours lie in a few lists."""
    monkeypatch.setattr(Faiss, "fetch", lambda self, k: k)
    monkeypatch.setattr(embedded, "LEAST", 1000)
    words = [f"w{i}" for i in range(9)] if before > 1000 else [f"v{i}" for i in range(400)]
    chance = random.Random(2)
    first = [Doc(f"old{i}", " ".join(chance.choices(words, k=9))) for i in range(before)]
    later = [Doc(f"new{i}", " ".join(chance.choices([f"v{i}" for i in range(400)], k=9))) for i in range(1500)]
    index = Dense.build(Dataset.of(first), tmp_path, model=FAKE + "Drawn", factory="IVF32,Flat", recall=0.9, train=900)
    index.add(later)
    index.compact()
    [s] = index.segments
    asked = index.model.encoder.encode_queries([doc.text[:12] for doc in later[:200]])
    hits = zip(s.nearest.search(asked, 10), Exact(s.field).search(asked, 10), strict=True)
    found = np.mean([len(np.intersect1d(mine, theirs)) / 10 for (mine, _), (theirs, _) in hits])
    assert index.manifest.facts["recall_at_10"] >= 0.9
    assert found > 0.8, index.manifest.facts
    with np.load(s.folder / "asked.npz") as told:
        own = told["own"]
    assert sum(own >= before) / len(own) == pytest.approx(1500 / (1500 + before), abs=0.03)
    assert all(s.docs[place].id.startswith("old") == (place < before) for place in own.tolist())


def test_trained_on_a_sample(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    searched = field(tmp_path, drawn(2000))
    made(searched, tmp_path, "IVF16,Flat", train=300)
    assert "300" in capfd.readouterr().err  # FAISS says that these are few
    with pytest.raises(RecipeError, match="FAISS cannot make 'IVF16,Flat' of 2000 documents"):
        made(searched, tmp_path, "IVF16,Flat", train=15)


@pytest.mark.parametrize(
    ("graph_most", "recall", "picked"),
    [(10**6, 0.9, "HNSW32"), (1000, 0.9, "IVF256,Flat"), (10**6, 1.0, "IVF256,Flat")],
)
def test_a_factory_is_picked(
    graph_most: int, recall: float, picked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "GRAPH_MOST", graph_most)
    if recall == 1:  # the graph cannot be tuned, and does not reach that by itself
        monkeypatch.setattr(approximate, "KNOBS", ("nprobe",))
    searched = field(tmp_path, drawn(3000, tight=4))
    made(searched, tmp_path, "exact", recall)
    told = json.loads((tmp_path / "faiss.json").read_text())
    assert told["factory"] == picked
    assert told["recall_at_10"] >= recall


def test_a_gpu_is_refused_where_there_is_none() -> None:
    assert gpu("cpu") is None
    for name in ("tpu", "cuda:x", "cuda:-1", ""):
        with pytest.raises(RecipeError, match="expected cpu, cuda or cuda:NUMBER"):
            gpu(name)
    if hasattr(faiss, "StandardGpuResources"):
        with pytest.raises(RecipeError, match="FAISS sees"):
            gpu("cuda:99")
    else:
        with pytest.raises(MissingExtra, match=r"device=cuda needs 'faiss-gpu'.*rankpipe\[gpu\]"):
            Dense.build(collection(5), Path("nowhere"), model=FAKE + "Hashed", device="cuda")


@pytest.mark.skipif(not getattr(faiss, "get_num_gpus", int)(), reason="no GPU that FAISS can use")
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF8,PQ16x4"])
def test_on_a_gpu(factory: str, tmp_path: Path) -> None:
    searched, queries = field(tmp_path, drawn(2000)), drawn(10, seed=1)
    told = build(searched, tmp_path, factory=factory, recall=None, train=10**6, device="cuda")
    assert told["recall_at_10"] >= approximate.RECALL
    for device in ("cuda", "cpu"):
        found = Faiss.opened(searched, tmp_path, device).search(queries, 10)
        assert all(searched.scores(q, p).tolist() == s.tolist() for q, (p, s) in zip(queries, found, strict=True))


def indexed(index: Dense) -> list[bool]:
    return [(s.folder / "faiss.index").exists() for s in index.segments]


@pytest.mark.parametrize("options", [{"factory": "HNSW8"}, {"recall": 0.9}])
def test_small_segments_are_searched_exactly(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LEAST", 300)
    monkeypatch.setattr(living, "FAN", 3)
    index = Dense.build(collection(250), tmp_path / "index", model=FAKE + "Drawn", **options)
    exact = Dense.build(collection(250), tmp_path / "exact", model=FAKE + "Drawn")
    assert indexed(index) == ["factory" in options]
    for i in range(3):
        more = [Doc(f"new{i}-{d.id}", d.text) for d in collection(40, seed=i + 1).docs()]
        assert index.add(more) == exact.add(more)
    assert indexed(index) == [True, False]  # the first three are one, and large enough now
    facts = index.manifest.facts
    assert (facts["documents"], facts["factory"][:4]) == (370, "HNSW")
    assert facts["recall_at_10"] >= 0.9
    assert "recall_of" not in facts
    index.k = exact.k = 10
    asked = ("w1 w2", "w30 w31 w32", "w8 w9")
    pairs = [(ranked(index.search(text)), ranked(exact.search(text))) for text in asked]
    assert sum(len({*found} & {*wanted}) for found, wanted in pairs) >= 24  # of 30, with their scores
    gone = [doc for doc, _ in ranked(index.search("w1 w2"))]
    index.delete(gone)
    assert not {*gone} & {doc for doc, _ in ranked(index.search("w1 w2"))}
    assert len(index.search("w1 w2").hits) == 10


def test_what_is_too_little_for_a_factory_is_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left over at the end of a long build, or comes later; only a first segment can be too small at once."""
    monkeypatch.setattr(embedded, "LEAST", 20)
    monkeypatch.setattr(Dense, "portion", 200)
    monkeypatch.setattr(Dense, "_settled", lambda self: self)  # memory allows one segment
    options: dict[str, Any] = {"model": FAKE + "Drawn", "factory": "IVF32,Flat"}
    heard = Heard()
    with listening(heard):
        index = Dense.build(collection(430), tmp_path / "index", **options)
        index.add([Doc(f"new-{d.id}", d.text) for d in collection(25, seed=1).docs()])
    assert indexed(index) == [True, True, False, False]
    assert [said.rpartition("; ")[2] for said in heard.notices] == ["they are searched exactly"] * 2
    exact = Dense.build(Dataset.of([*index.documents()]), tmp_path / "exact", model=FAKE + "Drawn")
    index = Dense(tmp_path / "index", 500, nprobe=32)
    assert ranked(index.search("w1 w2")) == ranked(Dense(exact.folder, 500).search("w1 w2"))
    with pytest.raises(RecipeError, match="IVF32"):
        Dense.build(collection(30), tmp_path / "small", **options)
    assert not (tmp_path / "small" / "made").exists()  # nothing could go on from it


def test_a_killed_build_makes_no_index_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall is measured once; after a kill before the manifest the index is taken as it is."""
    data, options = Dataset.of(list(collection(200).docs())), {"model": FAKE + "Drawn", "factory": "HNSW8"}
    Dense.build(data, tmp_path, **options)  # type: ignore[arg-type]
    made = checksums(tmp_path)
    (tmp_path / "manifest.json").unlink()
    monkeypatch.setattr(approximate, "build", None)
    Dense.build(data, tmp_path, **options)  # type: ignore[arg-type]
    assert checksums(tmp_path) == made


def test_knobs_are_turned_at_the_search(tmp_path: Path) -> None:
    lists = Dense.build(collection(400), tmp_path / "lists", model=FAKE + "Drawn", factory="IVF32,Flat", recall=0.1)
    lists.add([Doc(f"new-{d.id}", d.text) for d in collection(20, seed=1).docs()])  # which no FAISS searches
    exact = Dense.build(Dataset.of(list(lists.documents())), tmp_path / "exact", model=FAKE + "Drawn")
    asked = [Query(str(i), f"w{i} w{i + 7} w{i + 9}") for i in range(20)]
    wanted = [ranked(r) for r in exact(asked)]
    few, all_ = ([ranked(r) for r in Dense(tmp_path / "lists", nprobe=n)(asked)] for n in (1, 32))
    assert all_ == wanted
    assert sum(map(len, few)) < sum(map(len, wanted))
    worker = Search.of(Dense(tmp_path / "lists", nprobe=1), [0, 1])  # of a cluster
    assert [[(h.doc.id, h.score) for h in r.hits] for r in worker(asked)] == few
    assert {type(s.nearest).__name__ for s in lists.segments} == {"Faiss", "Exact"}
    graph = Dense.build(collection(400), tmp_path / "graph", model=FAKE + "Drawn", factory="HNSW8")
    turned = Dense(tmp_path / "graph", efSearch=399)
    assert [turned.segments[0].nearest.knobs, graph.segments[0].nearest.knobs] == [{"efSearch": 399}, {"efSearch": 4}]
    for folder, knobs, said in (
        ("graph", {"nprobe": 3}, "nprobe: not of this index; it has efSearch"),
        ("lists", {"efSearch": 3}, "efSearch: not of this index; it has nprobe"),
        ("exact", {"nprobe": 3}, "nprobe: not of this index; it has none of the kind"),
        ("lists", {"nprobe": 0}, "nprobe: 0; expected 1 or more"),
    ):
        with pytest.raises(RecipeError, match=said):
            Dense(tmp_path / folder, **knobs)  # type: ignore[arg-type]


@pytest.mark.slow  # encodes SciFact once; every other index takes its vectors from the one before
def test_scifact(data_root: Path, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    embedded("bge-small")
    data, found = open_dataset(data_root / "scifact"), {}
    for factory in ("exact", "Flat", "HNSW32", "IVF64,Flat"):
        tuned: dict[str, float] = {} if factory in ("exact", "Flat") else {"recall": 0.999}
        index = Dense.build(data, tmp_path, max_length=128, factory=factory, **tuned)  # type: ignore[arg-type]
        assert ("documents_per_second" in index.manifest.facts) == (factory == "exact")
        [found[factory]] = ir_measures.calc_aggregate([nDCG @ 10], data.qrels, to_run(index(data.queries))).values()
    assert found["Flat"] == found["exact"] == pytest.approx(0.6787, abs=0.005)  # most abstracts are longer than 128
    assert abs(found["HNSW32"] - found["exact"]) < 0.005
    assert abs(found["IVF64,Flat"] - found["exact"]) < 0.005
