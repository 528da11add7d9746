"""Late interaction search equals all comparisons; centroids propose nearly all that matters; no text is read twice."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import ArtefactError, ModelError, RecipeError
from rankpipe.measure.ranking import evaluate
from rankpipe.rerank.late import Late
from rankpipe.retrieve import late, living, reads, tokens
from rankpipe.retrieve.index import Change
from rankpipe.retrieve.late import ColBERT
from rankpipe.trec import to_run
from tests.retrieve.models import Directions

FAKE = "tests.retrieve.models:"
WORDS = [f"w{i}" for i in range(400)]
TEXTS = ("w1 w2 w3", "w7", "w7 w7 w8 w20 w30 unheard")


def collection(size: int, seed: int = 0, first: int = 0) -> Dataset:
    """Texts of 12 words, each text from one of 20 parts of the vocabulary."""
    chance = random.Random(seed)
    topics = [WORDS[i : i + 20] for i in range(0, 400, 20)]
    return Dataset.of(
        [Doc(f"d{first + i:04}", " ".join(chance.choices(chance.choice(topics), k=12))) for i in range(size)]
    )


def ranked(ranking: Ranking) -> list[tuple[str, float]]:
    return [(hit.doc.id, hit.score) for hit in ranking.hits]


def truth(docs: list[Doc], text: str, k: int) -> list[tuple[str, float]]:
    """The k best by comparing all vectors, in half precision; ties by id, falling."""
    query, scores = Directions().query(text).vectors, []
    for doc, read in zip(docs, Directions().docs([d.contents for d in docs]), strict=True):
        vectors = read.vectors.astype(np.float16).astype(np.float32)
        scores.append((float((query @ vectors.T).max(axis=1).sum()), doc.id))
    return [(doc, score) for score, doc in sorted(scores, reverse=True)[:k]]


def kept(index: ColBERT, text: str, k: int = 1000) -> list[tuple[str, float]]:
    """The k best by comparing all vectors as the index has them."""
    query, scores = Directions().query(text).vectors, []
    for s in index.segments:
        for place in s.living[s.lengths[s.living] > 0].tolist():
            rows, _ = s.rows(np.array([place]))
            scores.append((float((query @ s.vectors(rows).T).max(axis=1).sum()), s.docs.ids[place]))
    return [(doc, score) for score, doc in sorted(scores, reverse=True)[:k]]


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few vectors are enough to learn from."""
    monkeypatch.setattr(late, "LEAST", 500)


@pytest.mark.parametrize("k", [1, 7, 100, 1000])
def test_equals_comparing_all_with_ties_at_the_cut(k: int, tmp_path: Path) -> None:
    docs = list(collection(150).docs())
    docs += [Doc(f"e{i}", d.text) for i, d in enumerate(docs)]
    ColBERT.build(Dataset.of(docs), tmp_path, model=FAKE + "Directions", bits=16)
    index = ColBERT(tmp_path, k=k)
    for text in TEXTS:
        assert ranked(index.search(text)) == truth(docs, text, k)
    assert [ranked(r) for r in index.run([Query(t, t) for t in TEXTS])] == [truth(docs, t, k) for t in TEXTS]


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ColBERT.build(collection(200), tmp_path, model=FAKE + "Directions", bits=16)
    queries = [Query(t, t) for t in TEXTS]
    before = [ranked(r) for r in index.run(queries)]
    for name in ("SCORES", "PRODUCTS", "TOKENS"):
        monkeypatch.setattr(tokens, name, 50)
    assert [ranked(r) for r in index.run(queries)] == before


@pytest.mark.parametrize("bits", [2, 4])
def test_compressed_vectors_are_compared_as_they_are_kept(bits: int, compressed: None, tmp_path: Path) -> None:
    data = collection(300)
    index = ColBERT.build(data, tmp_path, model=FAKE + "Directions", bits=bits)  # type: ignore[arg-type]
    assert index.segments[0].columns["residuals"].shape == (3600, {2: 3, 4: 5}[bits])
    overlap = 0
    for text in TEXTS:
        found = ranked(index.search(text))
        assert found == kept(index, text)
        best = {doc for doc, _ in truth(list(data.docs()), text, 20)}
        overlap += len(best & {doc for doc, _ in found[:20]})
    assert overlap >= {2: 40, 4: 52}[bits]  # of 60


def test_candidates_are_nearly_all_that_matter(compressed: None, tmp_path: Path) -> None:
    data = collection(2000)
    ColBERT.build(data, tmp_path, model=FAKE + "Directions")
    every, few = ColBERT(tmp_path, k=10), ColBERT(tmp_path, k=10, candidates=100)
    looked: list[int] = []
    [segment] = few.segments
    compared = segment._compared
    segment._compared = lambda query, docs, k: (looked.append(len(docs)), compared(query, docs, k))[1]
    shared = 0
    for i in range(0, 400, 20):
        text = f"w{i} w{i + 3} w{i + 7}"
        best, found = ranked(every.search(text)), ranked(few.search(text))
        shared += len({*best} & {*found})  # with equal scores
    assert shared >= 180  # of 200
    assert max(looked) <= 100
    assert ranked(ColBERT(tmp_path, k=10, candidates=2000, probes=10**6).search("w1 w2")) == ranked(
        every.search("w1 w2")
    )


def changed(index: ColBERT, left: dict[str, Doc], batches: int) -> dict[str, Doc]:
    """After some changes of it, the documents that are left."""
    chance = random.Random(1)
    for seed in range(batches):
        fresh = list(collection(8, seed, first=chance.randrange(90)).docs())
        index.update(fresh)
        gone = chance.sample(sorted(left), 5)
        index.delete(gone)
        left = {i: d for i, d in (left | {d.id: d for d in fresh}).items() if i not in gone}
    return left


def test_after_changes_it_equals_a_fresh_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    data = collection(40)
    index = ColBERT.build(data, tmp_path / "index", model=FAKE + "Directions")
    left = changed(index, {d.id: d for d in data.docs()}, 5)
    assert len(index.segments) > 1
    for text in TEXTS:
        assert ranked(index.search(text)) == truth(list(left.values()), text, 1000)
    before = len(Directions.encoded)
    index.compact()
    assert len(Directions.encoded) == before
    fresh = ColBERT.build(Dataset.of(list(index.documents())), tmp_path / "fresh", model=FAKE + "Directions")
    for name in ("vectors.npy", "lengths.npy", "cut.npy", "ids.bin"):
        [merged], [new] = index.segments, fresh.segments
        assert (merged.folder / name).read_bytes() == (new.folder / name).read_bytes()


def test_compressed_segments_are_merged_as_they_are(
    compressed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    data = collection(90)
    index = ColBERT.build(data, tmp_path / "index", model=FAKE + "Directions", bits=2)
    codec = index.segments[0].codec
    assert codec is not None
    left = changed(index, {d.id: d for d in data.docs()}, 5)
    index.compact()
    [segment] = index.segments
    assert codec.like(segment.codec)
    assert {d.id: d for d in index.documents()} == left
    for text in TEXTS:
        assert ranked(index.search(text)) == kept(index, text)
        proposed = ColBERT(index.folder, candidates=200, probes=10**6)
        assert ranked(proposed.search(text)) == kept(index, text)
    made = np.concatenate([r.vectors for r in Directions().docs([d.contents for d in index.documents()])])
    once = codec.pack(made.astype(np.float16).astype(np.float32))
    same = (once["residuals"] == segment.columns["residuals"]).all(axis=1)
    assert same.mean() > 0.95  # compressed once in their life; the vectors of the sample are rounded before


def test_small_segments_are_whole_until_they_are_many(compressed: None, tmp_path: Path) -> None:
    data = collection(10)
    index = ColBERT.build(data, tmp_path, model=FAKE + "Directions")
    assert index.segments[0].codec is None
    for i in range(7):
        index.add(collection(10, i, first=100 * (i + 1)).docs())
    [segment] = index.segments
    assert segment.codec is not None
    assert segment.codec.tokens == 960
    for i in range(7):
        index.add(collection(40, i, first=100 * (i + 10)).docs())
    [segment] = index.segments
    assert segment.codec is not None
    assert segment.codec.tokens == 4320  # the old centroids were outgrown
    assert len(index) == 360
    assert ranked(index.search(TEXTS[0])) == kept(index, TEXTS[0])


def test_odd_input(tmp_path: Path) -> None:
    docs = [Doc("with space", "fox"), Doc("日本 é", "café"), Doc("empty", ""), Doc("long", "needle " * 100)]
    index = ColBERT.build(Dataset.of(docs), tmp_path, model=FAKE + "Directions")
    assert index.search("").hits == index.search(" \n").hits == ()
    assert index.run([]) == []
    assert index.search("needle").hits[0].doc == docs[3]
    batch = [Query(t, t) for t in ("fox", "", "café")]
    assert [len(r.hits) for r in index.run(batch)] == [3, 0, 3]  # one without a token is not found
    facts = index.manifest.facts
    assert {k: facts[k] for k in ("documents", "empty_texts", "truncated_texts", "tokens", "identity")} == {
        "documents": 4, "empty_texts": 1, "truncated_texts": 1, "tokens": 102, "identity": "directions-1",
    }  # fmt: skip
    index.delete(d.id for d in docs)
    assert index.search("fox").hits == ()
    assert index.add([Doc("a", "fox")]) == Change(added=1)
    assert [h.doc.id for h in index.search("fox").hits] == ["a"]


def test_a_shard_without_a_token(compressed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "SHARD", 2)
    docs = [*collection(50).docs(), *(Doc(f"e{i}", "") for i in range(4)), *collection(5, 1, 100).docs()]
    for bits in (4, 16):
        index = ColBERT.build(Dataset.of(docs), tmp_path / str(bits), model=FAKE + "Directions", bits=bits)  # type: ignore[arg-type]
        assert ranked(index.search("w1")) == kept(index, "w1")
        index.delete([f"d{i:04}" for i in range(50)])
        index.compact()
        assert ranked(index.search("w1")) == kept(index, "w1")


@pytest.mark.parametrize("bits", [4, 16])
def test_an_interrupted_build_goes_on(
    bits: int, compressed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (late, reads):
        monkeypatch.setattr(module, "SHARD", 8)
    monkeypatch.setattr(reads, "SAMPLE", 2)  # 15 documents of 50
    data, options = collection(50), {"model": FAKE + "Broken", "bits": bits}
    for encoded in (25, 20, 9):  # until it is interrupted: in the sample, and twice in the rest
        Directions.encoded[:] = [""] * (30 - encoded)
        with pytest.raises(KeyboardInterrupt):
            ColBERT.build(data, tmp_path / "torn", **options)  # type: ignore[arg-type]
    [work] = (tmp_path / "torn" / "made").iterdir()
    with open(work / "000000" / "cut.npy", "ab") as f:
        f.write(b"half a shard")
    Directions.encoded[:] = [""] * 30
    torn = ColBERT.build(data, tmp_path / "torn", **options)  # type: ignore[arg-type]
    assert len(Directions.encoded) < 30 + 16
    whole = ColBERT.build(data, tmp_path / "whole", **options)  # type: ignore[arg-type]
    assert torn.manifest.files == whole.manifest.files
    assert (torn.segments[0].codec is None) == (bits == 16)
    (tmp_path / "whole" / "manifest.json").unlink()  # killed just before
    before = len(Directions.encoded)
    assert ColBERT.build(data, tmp_path / "whole", **options).manifest.files == torn.manifest.files  # type: ignore[arg-type]
    assert len(Directions.encoded) == before


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = collection(5)
    with pytest.raises(RecipeError, match="bits: 3; expected 2, 4 or 16"):
        ColBERT.build(data, tmp_path, bits=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="document 'b' has a vector that is not of length 1"):
        ColBERT.build(Dataset.of([Doc("a", "x"), Doc("b", "bad")]), tmp_path, model=FAKE + "Awry")
    ColBERT.build(data, tmp_path, model=FAKE + "Directions", bits=16)
    for wrong, said in (({"candidates": 0}, "candidates: 0"), ({"probes": 0}, "probes: 0"), ({"k": 0}, "k: 0")):
        with pytest.raises(RecipeError, match=said):
            ColBERT(tmp_path, **wrong)
    with pytest.raises(RecipeError, match=r"candidates: .* keeps vectors whole and has no centroids"):
        ColBERT(tmp_path, candidates=10)
    monkeypatch.setattr(Directions, "identity", "directions-2")
    with pytest.raises(ArtefactError, match="made with directions-1"):
        ColBERT(tmp_path).search("w1")


def test_scores_are_those_of_the_reranker(tiny: Dataset, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    embedded("colbert-small")
    rankings = list(ColBERT.build(tiny, tmp_path)(tiny.queries))
    every = [Ranking(q, tuple(Hit(d, 0.0) for d in tiny.docs())) for q in tiny.queries]
    for found, scored in zip(rankings, Late().apply(every), strict=True):
        assert dict(ranked(found)) == pytest.approx(dict(ranked(scored)), abs=0.01)


@pytest.mark.slow
def test_scifact(data_root: Path, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    embedded("colbert-small")
    data = open_dataset(data_root / "scifact")
    ColBERT.build(data, tmp_path)
    for candidates in (None, 1000):
        index = ColBERT(tmp_path, 100, candidates)
        [ndcg] = evaluate(to_run(index(data.queries)), data.qrels, ["nDCG@10"]).means.values()
        assert ndcg > 0.7
