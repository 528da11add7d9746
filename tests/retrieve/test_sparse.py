"""Learned sparse search equals all products; merging encodes nothing; a stopped build goes on to the same bytes."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import ArtefactError, DataError, ModelError, RecipeError
from rankpipe.measure.ranking import evaluate
from rankpipe.rerank.sparse import Sparse
from rankpipe.retrieve import living, sparse
from rankpipe.retrieve.index import Change
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.trec import to_run
from tests.retrieve.models import Stopped, Weights

FAKE = "tests.retrieve.models:"
WORDS = [f"w{i}" for i in range(40)]


def collection(size: int, seed: int = 0, first: int = 0) -> Dataset:
    chance = random.Random(seed)
    return Dataset.of([Doc(f"d{first + i:04}", " ".join(chance.choices(WORDS, k=12))) for i in range(size)])


def ranked(ranking: Ranking) -> list[tuple[str, float]]:
    return [(hit.doc.id, hit.score) for hit in ranking.hits]


def truth(docs: list[Doc], text: str, k: int, steps: int | None = None) -> list[tuple[str, float]]:
    """The k best by all products, summed from the query's heaviest word on; ties by id, falling."""
    model = Weights()
    [query] = model.queries([text])
    asked = sorted(zip(query.words.tolist(), query.weights, strict=True), key=lambda w: (-w[1], w[0]))
    found = []
    for doc in docs:
        [made] = model.queries([doc.contents])
        kept = made.weights if steps is None else np.rint(made.weights * steps).astype(np.float32)
        weights = dict(zip(made.words.tolist(), kept, strict=True))
        score = sum(float(w / np.float32(steps or 1) * weights.get(word, np.float32(0))) for word, w in asked)
        found.append((float(np.float32(score)), doc.id))
    return [(doc, score) for score, doc in sorted(found, reverse=True)[:k] if score]


@pytest.mark.parametrize("steps", [None, 100, 7])
def test_equals_all_products_with_ties_at_the_cut(steps: int | None, tmp_path: Path) -> None:
    data = collection(300)
    SparseIndex.build(data, tmp_path, model=FAKE + "Weights", steps=steps)
    for k in (1, 7, 100, 300, 1000):
        index = SparseIndex(tmp_path, k=k)
        for text in ("w1 w2 w3", "w7", "w7 w7 w8 w20 w30 unheard"):
            assert ranked(index.search(text)) == truth(list(data.docs()), text, k, steps)


@pytest.mark.parametrize(("steps", "kind"), [(None, np.float32), (100, np.uint8), (1000, np.uint16)])
def test_weights_are_as_narrow_as_they_can(steps: int | None, kind: type, tmp_path: Path) -> None:
    index = SparseIndex.build(collection(20), tmp_path, model=FAKE + "Weights", steps=steps)
    [segment] = index.segments
    assert segment.postings.values.dtype == kind
    assert segment.postings.values.min() > 0
    assert len(segment.postings.docs) == index.manifest.facts["postings"]


@pytest.mark.parametrize("steps", [None, 100])
def test_after_changes_it_equals_a_fresh_one(
    steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    chance, left = random.Random(1), {d.id: d for d in collection(30).docs()}
    index = SparseIndex.build(Dataset.of(list(left.values())), tmp_path / "index", model=FAKE + "Weights", steps=steps)
    for seed in range(5):
        fresh = list(collection(5, seed, first=chance.randrange(60)).docs())
        index.update(fresh)
        gone = chance.sample(sorted(left), 4)
        index.delete(gone)
        left = {i: d for i, d in (left | {d.id: d for d in fresh}).items() if i not in gone}
        for text in ("w1 w2 w3", "w7 w8 w20 w30"):
            assert ranked(index.search(text)) == truth(list(left.values()), text, 1000, steps)
    before = len(Weights.encoded)
    index.compact()
    assert len(Weights.encoded) == before
    again = SparseIndex.build(
        Dataset.of(list(index.documents())), tmp_path / "fresh", model=FAKE + "Weights", steps=steps
    )
    names = [n for n in again.manifest.files if n.startswith("000000/") and n.endswith((".npy", ".bin"))]
    assert len(names) > 6
    [merged] = index.segments
    for name in names:
        assert (merged.folder / Path(name).name).read_bytes() == (again.manifest.path / name).read_bytes(), name


def test_odd_input(tmp_path: Path) -> None:
    docs = [Doc("with space", "fox"), Doc("日本 é", "café"), Doc("empty", ""), Doc("long", "needle " * 100)]
    index = SparseIndex.build(Dataset.of(docs), tmp_path, model=FAKE + "Weights")
    assert index.search("").hits == index.search(" \n").hits == ()
    assert index.run([]) == []
    assert index.search("needle").hits[0].doc == docs[3]
    batch = [Query(t, t) for t in ("fox", "", "café")]
    assert [bool(r.hits) for r in index.run(batch)] == [True, False, True]
    facts = index.manifest.facts
    assert {k: facts[k] for k in ("documents", "empty_texts", "truncated_texts", "identity")} == {
        "documents": 4, "empty_texts": 1, "truncated_texts": 1, "identity": "weights-1",
    }  # fmt: skip
    index.delete(d.id for d in docs)
    assert index.search("fox").hits == ()
    assert index.add([Doc("a", "fox")]) == Change(added=1)
    assert index.manifest.facts["truncated_texts"] == 0


def test_a_shard_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "SHARD", 2)
    docs = [Doc(f"d{i}", text) for i, text in enumerate(("", "", "w1 w2", "w2", "", "", "w3 w1", "w2"))]
    index = SparseIndex.build(Dataset.of(docs), tmp_path, model=FAKE + "Weights")
    for text in ("w1", "w2", "w3"):
        assert ranked(index.search(text)) == truth(docs, text, 10)


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "SHARD", 8)
    data, Stopped.calls = collection(50), 0
    with pytest.raises(KeyboardInterrupt):
        SparseIndex.build(data, tmp_path / "torn", model=FAKE + "Stopped")
    [work] = (tmp_path / "torn" / "made").iterdir()
    with open(work / "000000" / "weights.npy", "ab") as f:
        f.write(b"half a shard")
    before = len(Weights.encoded)
    torn = SparseIndex.build(data, tmp_path / "torn", model=FAKE + "Stopped")
    assert Weights.encoded[before:] == [d.contents for d in data.docs()][16:]  # two shards were saved
    whole = SparseIndex.build(data, tmp_path / "whole", model=FAKE + "Stopped")
    assert torn.manifest.files == whole.manifest.files


def test_a_build_killed_just_before_its_manifest_loses_nothing(tmp_path: Path) -> None:
    made = SparseIndex.build(collection(50), tmp_path, model=FAKE + "Weights").manifest.files
    (tmp_path / "manifest.json").unlink()
    before = len(Weights.encoded)
    assert SparseIndex.build(collection(50), tmp_path, model=FAKE + "Weights").manifest.files == made
    assert len(Weights.encoded) == before


def test_the_model_must_be_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = SparseIndex.build(collection(5), tmp_path, model=FAKE + "Weights")
    monkeypatch.setattr(Weights, "identity", "weights-2")
    for change in (lambda: SparseIndex(tmp_path).search("w1"), lambda: SparseIndex(tmp_path).add([Doc("a", "w1")])):
        with pytest.raises(ArtefactError, match=r"made with weights-1, but .*:Weights' is now weights-2"):
            change()
    assert index.delete(["d0001"]) == Change(deleted=1)  # needs no model


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="steps: 0"):
        SparseIndex.build(collection(5), tmp_path, steps=0)
    for word in ("bad", "worse"):
        docs = [Doc("a", "x"), Doc("b", word)]
        with pytest.raises(ModelError, match="document 'b' has a weight that is not finite, or not above 0"):
            SparseIndex.build(Dataset.of(docs), tmp_path, model=FAKE + "Odd")
    index = SparseIndex.build(collection(5), tmp_path, model=FAKE + "Odd")
    with pytest.raises(ModelError, match="query 'q' has a weight that is not finite"):
        index.search("bad")
    with pytest.raises(DataError, match="1 of 1 documents are there already"):
        index.add([Doc("d0001", "w1")])


def test_scores_are_those_of_the_reranker(tiny: Dataset, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    embedded("splade-tiny")
    index = SparseIndex.build(tiny, tmp_path)
    rankings = list(index(tiny.queries))
    every = [Ranking(q, tuple(Hit(d, 0.0) for d in tiny.docs())) for q in tiny.queries]
    for found, scored in zip(rankings, Sparse().apply(every), strict=True):
        expected = {h.doc.id: h.score for h in scored.hits if h.score > 0}
        assert dict(ranked(found)) == pytest.approx(expected, rel=1e-4)
    assert all(token in index.model.encoder.vocabulary for token in ("fox", "##s", "[CLS]"))


@pytest.mark.slow  # sentence-transformers takes a while to import
def test_a_sparse_encoder_of_sentence_transformers(
    tiny: Dataset, embedded: Callable[[str], Path], tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = library.SparseEncoder(str(embedded("splade-tiny")), local_files_only=True)
    model.max_seq_length = 16
    model.save_pretrained(str(tmp_path / "model"))
    docs = [*tiny.docs(), Doc("long", "fox " * 1000)]
    index = SparseIndex.build(Dataset.of(docs), tmp_path / "index", model=str(tmp_path / "model"))
    vectors = model.encode_document([d.contents for d in docs], convert_to_sparse_tensor=False)
    for query, found in zip(tiny.queries, index(tiny.queries), strict=True):
        scores = (vectors @ model.encode_query(query.text, convert_to_sparse_tensor=False)).tolist()
        expected = {d.id: s for d, s in zip(docs, scores, strict=True) if s > 0}
        assert dict(ranked(found)) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    cut = sum(len(model.tokenizer(d.contents)["input_ids"]) > 16 for d in docs)
    assert 0 < cut == index.manifest.facts["truncated_texts"]


@pytest.mark.slow
def test_scifact(data_root: Path, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    embedded("splade-tiny")
    data = open_dataset(data_root / "scifact")
    for steps in (None, 100):
        index = SparseIndex.build(data, tmp_path, steps=steps)
        [ndcg] = evaluate(to_run(index(data.queries)), data.qrels, ["nDCG@10"]).means.values()
        assert ndcg == pytest.approx(0.6466, abs=0.005)
