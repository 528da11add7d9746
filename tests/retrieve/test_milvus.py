"""Milvus finds what our own exact indexes find; whole batches or nothing; on a file and on a server.

The server is Milvus Lite's own, in another process: the same calls go over the same wire as to a cluster.
"""

from __future__ import annotations

import json
import math
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rankpipe import catalog, store
from rankpipe.cli import app
from rankpipe.cli import index as verbs
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import ArtefactError, DataError, MissingExtra, ModelError, RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import forecast, living, memory, milvus_sending, shelf
from rankpipe.retrieve.collection import Collection
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.fuse import Fuse
from rankpipe.retrieve.index import Change
from rankpipe.retrieve.milvus import Milvus
from rankpipe.retrieve.recall import for_pieces, pieces
from rankpipe.retrieve.sparse import SparseIndex
from tests.heard import Heard
from tests.retrieve.fakes import Drawn, Hashed, Torn
from tests.retrieve.test_living import refreshing
from tests.walls.test_docs import ROOT, run

pytestmark = pytest.mark.skipif(
    not all(map(catalog.installed, catalog.EXTRAS["milvus"])), reason="needs the extra milvus, which is not installed"
)
assert verbs.build  # registers them
DRAWN, VARIED = "tests.retrieve.fakes:Drawn", "tests.retrieve.models:Varied"
BOTH: dict[str, Any] = {"model": DRAWN, "sparse": VARIED}
WORDS = ["fox", "dog", "sleeps", "runs", "over", "lazy", "quick", "brown", "hedge", "zebra"]
QUERIES = [Query("a", "quick fox"), Query("b", "dog sleeps over hedge"), Query("none", " "), Query("c", "lazy zebra")]


def some(count: int, seed: int = 0, first: int = 0) -> dict[str, Doc]:
    chance = random.Random(seed)
    texts = [" ".join([*chance.choices(WORDS, k=9), f"w{chance.randrange(10**6)}"]) for _ in range(count)]
    docs = [Doc(f"d{first + i}", text) for i, text in enumerate(texts)]
    return {doc.id: doc for doc in docs}


def built(docs: Mapping[str, Doc], folder: Path, **options: Any) -> Milvus:
    return Milvus.build(Dataset.of(list(docs.values())), folder, **options)


def same(ours: Sequence[Ranking], theirs: Sequence[Ranking], within: float = 1e-5) -> None:
    """The same documents with the same scores, and in the same order but for scores that are equal."""
    for a, b in zip(ours, theirs, strict=True):
        scores = {h.doc.id: h.score for h in a.hits}
        assert {h.doc.id: h.score for h in b.hits} == pytest.approx(scores, abs=within)
        assert all(x.doc.id == y.doc.id or abs(x.score - y.score) < within for x, y in zip(a.hits, b.hits, strict=True))
        assert {h.doc for h in a.hits} == {h.doc for h in b.hits}


def test_filters_find_what_our_own_find(tmp_path: Path, uri: str) -> None:
    docs = [Doc(d.id, d.text, fields={"n": n, "odd": bool(n % 2)}) for n, d in enumerate(some(40).values())]
    data = Dataset.of(docs)
    dense = Dense.build(data, tmp_path / "dense", model=DRAWN)
    sparse = SparseIndex.build(data, tmp_path / "sparse", model=VARIED)
    for place, there in (("file", {}), ("server", {"uri": uri})):
        both = Milvus.build(data, tmp_path / place / "both", **BOTH, **there)
        alone = Milvus.build(data, tmp_path / place / "alone", model=DRAWN, **there)
        for where in ("n < 3", "n < 30", "n in (2, 3, 5, 7, 31)", "odd == true", "not exists(n)", "exists(odd)"):
            for ours, theirs in ((alone, dense), (both, Fuse(dense, sparse))):
                same(theirs.filtered(where).run(QUERIES), ours.filtered(where).run(QUERIES))
            few = Milvus(alone.folder, k=4, where=where)
            assert [len(r.hits) for r in few.run(QUERIES)] == [
                min(4, len(r.hits)) for r in dense.filtered(where).run(QUERIES)
            ]
        alone.update([Doc("d1", "fox", fields={"n": 100}), Doc("new", "dog", fields={"n": 101})])
        alone.delete(["d0"])
        late = alone.filtered("n >= 100 or n < 3")
        assert {h.doc.id for h in late.search("fox").hits} == {"d1", "d2", "new"}
        alone.compact()
        assert {h.doc.id for h in late.refresh().search("fox").hits} == {"d1", "d2", "new"}
        assert {h.doc.id for h in alone.filtered("not n < 3").search("fox").hits} == {
            d.id for d in alone.documents() if d.id != "d2"
        }
    assert alone.told("year > 3") == ["no document has a field 'year'"]
    assert alone.known_fields["n"]["number"] > 2


@pytest.mark.parametrize("options", [{"index": "HNSW"}, {"index": "IVF_FLAT", "params": {"nlist": 64}}])
def test_few_that_meet_a_filter_are_all_found(options: dict[str, Any], tmp_path: Path) -> None:
    docs = [Doc(d.id, d.text, fields={"n": n}) for n, d in enumerate(some(1500).values())]
    index = Milvus.build(Dataset.of(docs), tmp_path, model=DRAWN, **options)
    index.k = 10
    for where, most in (("n < 5", 5), ("1000 <= n < 1020", 10), ("n >= 5", 10)):
        assert [len(r.hits) for r in index.filtered(where).run(QUERIES)] == [most, most, 0, most]


@pytest.mark.slow
def test_scifact_is_found_as_by_our_own(data_root: Path, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    embedded("bge-small"), embedded("splade-tiny")
    pytest.importorskip("torch")
    whole = open_dataset(data_root / "scifact")
    docs = {doc.id: doc for doc, _ in zip(whole.docs(), range(60), strict=False)}
    queries = whole.queries[:8]
    data = Dataset.of(list(docs.values()))
    dense = Dense.build(data, tmp_path / "dense", model="bge-small", max_length=48)
    sparse = SparseIndex.build(data, tmp_path / "sparse", model="splade-tiny", max_length=48)
    hybrid = built(docs, tmp_path / "milvus", model="bge-small", sparse="splade-tiny", max_length=48)
    same(Fuse(dense, sparse).run(queries), hybrid.run(queries))
    alone = built(docs, tmp_path / "alone", model="bge-small", max_length=48)
    same(dense.run(queries), alone.run(queries))
    words = built(docs, tmp_path / "words", model=None, sparse="splade-tiny", max_length=48)
    same(sparse.run(queries), words.run(queries))


def test_it_finds_what_our_own_find(tmp_path: Path) -> None:
    docs = some(40)
    data = Dataset.of(list(docs.values()))
    dense = Dense.build(data, tmp_path / "dense", model=DRAWN)
    sparse = SparseIndex.build(data, tmp_path / "sparse", model=VARIED)
    built(docs, tmp_path / "both", **BOTH)
    for constant in (60, 3):
        fused = Milvus(tmp_path / "both", rank_constant=constant).run(QUERIES)
        same(Fuse(dense, sparse, rank_constant=constant).run(QUERIES), fused)
    same(dense.run(QUERIES), built(docs, tmp_path / "alone", model=DRAWN).run(QUERIES))
    same(sparse.run(QUERIES), built(docs, tmp_path / "words", model=None, sparse=VARIED).run(QUERIES))
    best = Milvus(tmp_path / "alone", k=3).run(QUERIES)
    assert [[h.doc for h in r.hits] for r in best] == [[h.doc for h in r.hits[:3]] for r in dense.run(QUERIES)]


def test_weights_are_milvus_own_of_squashed_scores(tmp_path: Path) -> None:
    docs = some(40)
    data = Dataset.of(list(docs.values()))
    lists = [
        Dense.build(data, tmp_path / "dense", model=DRAWN).run(QUERIES),
        SparseIndex.build(data, tmp_path / "sparse", model=VARIED).run(QUERIES),
    ]
    built(docs, tmp_path / "both", **BOTH)
    for ranking, *parts in zip(Milvus(tmp_path / "both", weights=[0.3, 0.9]).run(QUERIES), *lists, strict=True):
        truth: dict[str, float] = dict.fromkeys((h.doc.id for part in parts for h in part.hits), 0.0)
        for part, weight in zip(parts, (0.3, 0.9), strict=True):
            for hit in part.hits:
                truth[hit.doc.id] += weight * (0.5 + math.atan(hit.score) / math.pi)
        assert {h.doc.id: h.score for h in ranking.hits} == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize(
    ("index", "params", "search"),
    [
        ("FLAT", None, None),
        ("HNSW", {"M": 16, "efConstruction": 100}, None),
        ("IVF_FLAT", {"nlist": 4}, {"nprobe": 4}),
        ("AUTOINDEX", None, None),
    ],
)
@pytest.mark.parametrize("metric", ["IP", "COSINE", "L2"])
def test_indexes_and_metrics(
    index: str, params: dict[str, int] | None, search: dict[str, int] | None, metric: str, tmp_path: Path
) -> None:
    docs = some(90)
    built(docs, tmp_path, model="tests.retrieve.fakes:Hashed", metric=metric, index=index, params=params)
    encoder = Hashed()
    rows = encoder.encode_docs([d.text for d in docs.values()])
    [query] = encoder.encode_queries(["quick fox runs"])
    scores = {
        "IP": rows @ query,
        "COSINE": rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query),
        "L2": -((rows - query) ** 2).sum(1),
    }[metric]
    found = Milvus(tmp_path, search=search).search("quick fox runs").hits
    assert {h.doc.id: h.score for h in found} == pytest.approx(dict(zip(docs, scores.tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize("where", ["file", "server"])
def test_after_any_changes_it_is_the_index_of_what_is_left(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(living, "FAN", 2)
    monkeypatch.setattr(living, "SMALL", 8)
    there = {} if where == "file" else {"uri": request.getfixturevalue("uri")}
    chance, left = random.Random(3), some(20)
    index = built(left, tmp_path / "index", **BOTH, **there)
    for seed in range(1, 4):
        fresh = some(6, seed, first=chance.randrange(30))
        old = sum(i in left for i in fresh)
        assert index.update(fresh.values()) == Change(added=6 - old, replaced=old)
        left |= fresh
        gone = chance.sample(sorted(left), 4)
        assert index.delete([*gone, "absent"]) == Change(deleted=4, absent=("absent",))
        left = {i: d for i, d in left.items() if i not in gone}
    assert {d.id: d for d in index.documents()} == left
    again = built(left, tmp_path / "fresh", **BOTH, **there)
    same(again.run(QUERIES), index.run(QUERIES))
    with pytest.raises(DataError, match="1 of 2 documents are there already"):
        index.add([Doc("brand new", "fox"), Doc(next(iter(left)), "dog")])
    index.compact()
    same(again.run(QUERIES), index.run(QUERIES))
    index.delete(left)
    assert index.search("fox").hits == ()
    assert index.add([Doc("a", "fox")]) == Change(added=1)
    assert [h.doc for h in index.search("fox").hits] == [Doc("a", "fox")]


def test_ids_and_texts_of_any_kind(tmp_path: Path) -> None:
    ids = [
        " ",
        "a b",
        "it's",
        '"',
        "\\",
        "\n\t",
        "\0",
        "日本 é",
        "🦊",
        '"] or serial >= 0 or serial in ["',
        "%_*",
        "x" * 70_000,
    ]
    docs = {i: Doc(i, f"fox {n} " * 20_000 if n == 3 else f"fox {n}", "t" * n) for n, i in enumerate(ids)}
    assert len(docs['"'].text) > 100_000
    index = built(docs, tmp_path, **BOTH)
    assert {h.doc.id: (h.doc.title, h.doc.text) for h in index.search("fox").hits} == {
        i: (d.title, d.text) for i, d in docs.items()
    }
    assert index.manifest.facts["truncated_texts"] == 1
    for i in (ids[0], ids[6], ids[9]):
        assert index.delete([i]) == Change(deleted=1)
        del docs[i]
        assert {h.doc for h in index.search("fox").hits} == {*docs.values()}


def test_texts_and_queries_without_a_word(tmp_path: Path) -> None:
    docs = {"e": Doc("e", ""), "f": Doc("f", "fox")}
    words = built(docs, tmp_path / "words", model=None, sparse=VARIED)
    assert [h.doc.id for h in words.search("fox").hits] == ["f"]
    assert words.search("").hits == words.search("zebra").hits == ()
    assert words.run([]) == []
    assert words.manifest.facts["empty_texts"] == 1


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    docs = some(10)
    writer = built(docs, tmp_path, **BOTH)
    readers = [Milvus(tmp_path), Milvus(tmp_path)]
    before = writer.run(QUERIES)
    readers.append(writer.filtered("not exists(year)"))
    writer.update(some(10, 1).values())
    writer.delete(["d1", "d2"])
    for reader in readers:
        same(before, reader.run(QUERIES), 1e-9)
    assert len(readers[0].refresh()) == 8
    same(writer.run(QUERIES), readers[0].run(QUERIES), 1e-9)
    same(writer.run(QUERIES), writer.filtered("not exists(year)").refresh().run(QUERIES), 1e-9)
    readers[1].search("fox")
    assert store.damages(readers[0].manifest) == []  # reading writes nothing
    copies = [Path(reader.collection.where).parent for reader in readers]
    del reader, readers[:]
    assert not any(copy.exists() for copy in copies)


def test_a_batch_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = some(10)
    index = built(docs, tmp_path, model="tests.retrieve.fakes:Broken")
    with pytest.raises(ModelError, match="document 'x' is not finite"):
        index.update([Doc("d1", "new"), Doc("x", "bad")])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(store._Known, "commit", killed)  # the last moment before it happens
        index.update([Doc("d1", "new")])
    again = Milvus(tmp_path)
    assert store.damages(again.manifest) == []
    assert {d.id: d for d in again.documents()} == docs
    assert {h.doc for h in again.search("fox").hits} == {*docs.values()}


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_sending, "SHARD", 4)
    monkeypatch.setattr(Torn, "calls", 0)
    docs = some(14)
    Torn.encoded.clear()
    with pytest.raises(KeyboardInterrupt):
        built(docs, tmp_path, model="tests.retrieve.fakes:Torn")
    index = built(docs, tmp_path, model="tests.retrieve.fakes:Torn")
    assert Torn.encoded == [d.text for d in docs.values()]
    assert {h.doc for h in index.search("fox").hits} == {*docs.values()}


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("options", [{"model": DRAWN}, BOTH])
def test_long_documents_are_found_by_their_passages(
    options: dict[str, Any], server: bool, uri: str, tmp_path: Path
) -> None:
    """As our own find them, and none twice, though there are more passages than are looked up at first."""
    docs = {f"d{i}": Doc(f"d{i}", f"{WORDS[i % 10]} fox " * (4 + i), fields={"n": i}) for i in range(30)}
    cut = {"passages": {"max": 6}, **({"uri": uri} if server else {})}
    index = built(docs, tmp_path / "milvus", **options, **cut)
    parts = index.manifest.facts["passages"]
    assert parts > 3 * len(docs) == 3 * len(index)
    index.update([docs["d3"], Doc("new", "quick zebra " * 20)])
    index.delete(["d7"])
    del docs["d7"]
    assert {d.id: d.text for d in index.documents()} == {i: d.text for i, d in docs.items()} | {
        "new": "quick zebra " * 20
    }
    index.compact()
    for k in (3, 100):
        index.k = k
        for ranking in index.run(QUERIES):
            assert (
                len({h.doc.id for h in ranking.hits})
                == len(ranking.hits)
                == (k if k < 30 else 30) * bool(ranking.query.text.strip())
            )
    found = Milvus(tmp_path / "milvus", k=100, where="n >= 20")
    assert {h.doc.id for h in found.search("fox").hits} == {f"d{i}" for i in range(20, 30)}
    if options == {"model": DRAWN}:
        dense = Dense.build(Dataset.of([*index.documents()]), tmp_path / "dense", model=DRAWN, passages=cut["passages"])
        same(dense.run(QUERIES), Milvus(tmp_path / "milvus").run(QUERIES))


def test_memory_is_kept_to_where_a_server_has_the_vectors(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST", 1)
    monkeypatch.setattr(milvus_sending, "SHARD", 4)
    docs = some(60)
    for told in (lambda: built(docs, tmp_path / "file", model=DRAWN, memory=20_000),
                 lambda: shelf.build(Dataset.of([*docs.values()]), tmp_path / "file",
                                     {"use": "milvus", "model": DRAWN}, memory="1GB")):  # fmt: skip
        with pytest.raises(RecipeError, match="memory: Milvus Lite holds all vectors in it"):
            told()
    monkeypatch.setattr(Torn, "calls", 0)
    Torn.encoded.clear()
    how: dict[str, Any] = {"model": "tests.retrieve.fakes:Torn", "memory": 6000, "uri": uri}
    with pytest.raises(KeyboardInterrupt):
        built(docs, tmp_path / "index", **how)
    index = built(docs, tmp_path / "index", **how)
    assert Torn.encoded == [d.text for d in docs.values()]
    assert 3 < len(index.segments) < 40
    same(built(docs, tmp_path / "whole", model="tests.retrieve.fakes:Hashed").run(QUERIES), index.run(QUERIES))
    index.update(some(20, seed=1, first=50).values())
    assert len(index) == 70
    assert index.collection.count(first=0) == 70


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({}, None, None), ({"index": "HNSW", "metric": "COSINE"}, 0.95, 1),
        ({"index": "HNSW", "metric": "L2"}, 0.95, 1),
        ({"index": "IVF_FLAT", "params": {"nlist": 200}, "metric": "L2"}, 0.1, 0.9),
    ],
)  # fmt: skip
def test_the_recall_of_an_index_is_measured(
    options: dict[str, Any], least: float | None, most: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankpipe.retrieve.milvus_recall.WORTH", 500)
    monkeypatch.setattr("rankpipe.retrieve.recall.WORTH", 500)
    docs = some(500)
    facts = built(docs, tmp_path / "index", model=DRAWN, **options).manifest.facts
    assert ("recall_at_10" in facts) == ("recall_at_100" in facts) == (least is not None)
    if least is not None and most is not None:
        assert least <= facts["recall_at_100"] <= most
        built(docs, tmp_path / "exact", model=DRAWN, metric=options["metric"])
        asked = [[*docs.values()][place] for place in for_pieces(len(docs)).tolist()]
        queries = [Query(doc.id, text) for doc, text in zip(asked, pieces(d.contents for d in asked), strict=True)]
        for k in (10, 100):
            some_of, all_of = (
                [
                    [h.doc.id for h in r.hits if h.doc.id != r.query.id][:k]
                    for r in Milvus(tmp_path / name, k + 1)(queries)
                ]
                for name in ("index", "exact")
            )
            true = sum(len({*a} & {*b}) for a, b in zip(some_of, all_of, strict=True)) / k / len(queries)
            assert facts[f"recall_at_{k}"] == pytest.approx(true, abs=0.002)


def test_what_it_takes_is_tried_aside(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line, of a collection that is large enough: nothing stays, and no server hears of it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    lines = [json.dumps({"_id": doc.id, "text": doc.text}) for doc in some(forecast.WORTH).values()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    made = list[str]()
    anew = Collection.anew
    monkeypatch.setattr(Collection, "anew", lambda self, *how: made.append(self.where) or anew(self, *how))  # type: ignore[func-returns-value]
    build = ["index", "build", str(tmp_path / "index"), "--data", str(tmp_path / "corpus.jsonl"), "--use", "milvus"]
    for where in ([], ["--set", f"uri={uri}", "--force"]):
        done = CliRunner().invoke(app, [*build, "--set", f"model={DRAWN}", *where])
        assert done.exit_code == 0, done.output
        assert f"{forecast.WORTH} documents: about" in done.stderr
        assert not [*(tmp_path / "temporary").glob("**/*.json")]
    assert made.count(uri) == 1
    told = Milvus(tmp_path / "index")
    assert len(told) == forecast.WORTH
    assert told.collection.name in told.collection._client.list_collections()


def test_a_server_shows_a_batch_when_it_has_happened(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = some(10)
    index = built(docs, tmp_path, **BOTH, uri=uri)
    before = index.run(QUERIES)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(store._Known, "commit", killed)
        index.update(some(10, 1).values())
    same(before, Milvus(tmp_path).run(QUERIES), 1e-9)  # the server has 20, 10 of which are of no batch
    assert index.collection.count(first=0, end=100) == 20
    Milvus(tmp_path).compact()
    assert index.collection.count(first=0, end=100) == 10
    index.update([Doc("d1", "zebra")])
    assert index.collection.count(first=0, end=100) == 10
    with monkeypatch.context() as m, pytest.raises(ArtefactError, match="The batch has happened; 1 documents"):
        m.setattr(Collection, "delete", lambda _, serials: _refused() if serials == [2] else None)
        index.delete(["d2"])
    again = Milvus(tmp_path)
    assert len(again) == 9
    assert {h.doc.id for h in again.search("fox").hits} == {*docs} - {"d2"}
    assert again.collection.count(first=0, end=100) == 10
    again.delete(["d3"])
    assert again.collection.count(first=0, end=100) == 8


def test_a_reader_on_a_server_finds_one_state_or_the_next(uri: str, tmp_path: Path) -> None:
    index = built(some(10), tmp_path, **BOTH, uri=uri)
    stale, cut = Milvus(tmp_path), Milvus(tmp_path, where="not exists(n)")
    index.add([Doc("new", "fox")])
    before = stale.run(QUERIES)  # nothing that it needs has gone
    assert "new" not in {h.doc.id for r in before for h in r.hits}
    with listening(heard := Heard()):
        for change in (lambda: index.update([Doc("d1", "zebra"), Doc("d2", "fox")]), lambda: index.delete(["d3"])):
            change()
            same(stale.run(QUERIES), Milvus(tmp_path).run(QUERIES), 1e-9)
        with store.replacing():
            built(some(4), tmp_path, **BOTH, uri=uri)  # the old collection is dropped
        for one in (stale, cut):
            same(one.run(QUERIES), Milvus(tmp_path).run(QUERIES), 1e-9)
    assert len(told := [line for line in heard.notices if "was changed since it was opened" in line]) == 2 + 2, told
    stale.collection.drop()
    with pytest.raises(ArtefactError):
        stale.run(QUERIES)


def test_what_a_server_has_not_yet_deleted_takes_no_places(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(some(12), tmp_path, model=DRAWN, uri=uri)
    top = [h.doc.id for h in index.search("fox").hits]
    index.k = 4
    with monkeypatch.context() as m, pytest.raises(ArtefactError, match="The batch has happened; 3 documents"):
        m.setattr(Collection, "delete", lambda _, serials: _refused() if serials else None)
        index.delete(top[:3])
    left = Milvus(tmp_path, k=4)
    assert left.collection.count(first=0, end=100) == 12
    assert [h.doc.id for h in left.search("fox").hits] == top[3:7]
    assert [h.doc.id for h in left.filtered("not exists(n)").search("fox").hits] == top[3:7]


def test_threads_that_share_a_reader_of_a_server_find_one_state(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(some(12), tmp_path, model=DRAWN, uri=uri)
    shared, whole = Milvus(tmp_path), Collection.search

    def search(self: Collection, *given: Any, **told: Any) -> Any:
        """Between what the server says and what is made of it another thread opens the index again."""
        found = whole(self, *given, **told)
        if threading.current_thread() is not threading.main_thread() and len(index) == 12:
            index.update([Doc("d1", "zebra"), Doc("new", "fox")])
            shared.refresh()
        return found

    found: list[Ranking] = []
    with monkeypatch.context() as m:
        m.setattr(Collection, "search", search)
        asks = threading.Thread(target=lambda: found.append(shared.search("fox")))
        asks.start()
        asks.join()
    same(found, [Milvus(tmp_path).search("fox")], 1e-9)


def test_a_batch_is_searched_in_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = built(some(12), tmp_path, model=DRAWN)
    reader = Milvus(tmp_path)
    before = reader.run(QUERIES)
    writer.delete(["d1", "d2"])
    with monkeypatch.context() as m:
        refreshing(m, Drawn, "encode_queries", reader)
        same(before, reader.run(QUERIES), 1e-9)
    same(writer.run(QUERIES), reader.run(QUERIES), 1e-9)


def _refused() -> None:
    raise ArtefactError("no")


def test_a_build_takes_the_place_of_the_one_before_on_a_server(uri: str, tmp_path: Path) -> None:
    first = built(some(5), tmp_path, **BOTH, uri=uri).collection.name
    second = built(some(6), tmp_path, **BOTH, uri=uri)
    client = second.collection._client
    assert client.has_collection(second.collection.name)
    assert not client.has_collection(first)
    second.collection.drop()
    with pytest.raises(ArtefactError, match=second.collection.name):
        Milvus(tmp_path)


def test_a_server_that_lacks_documents_is_refused(uri: str, tmp_path: Path) -> None:
    index = built(some(5), tmp_path, **BOTH, uri=uri)
    index.collection.delete([0, 1])
    with pytest.raises(ArtefactError, match="has 3 of the 5 documents"):
        Milvus(tmp_path)


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ArtefactError, match=f"{uri}: Milvus did not open.*; is a Milvus running there"):
            built(some(2), tmp_path, **BOTH, uri=uri, timeout_s=1)
        assert time.monotonic() - start < 30
    with pytest.raises(ArtefactError, match="is a Milvus running there"):  # nobody listens
        built(some(2), tmp_path, **BOTH, uri=uri, timeout_s=1)
    assert not (tmp_path / "manifest.json").exists()


def test_what_cannot_be_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset.of([Doc("a", "fox")])
    with pytest.raises(RecipeError) as told:
        Milvus.build(data, tmp_path, model=None, metric="DOT", index="DISKANN", sparse_index="SPARSE_WAND", timeout_s=0)
    assert [fault.split(":")[0] for fault in told.value.faults] == [
        "model", "metric", "index", "sparse_index", "timeout_s",
    ]  # fmt: skip
    assert "not one of Milvus Lite's, FLAT, HNSW, IVF_FLAT, AUTOINDEX" in told.value.faults[2]
    for uri, why in (("my.db", "expected http://"), ("http://me:secret@host:1", "password")):
        with pytest.raises(RecipeError, match=why):
            Milvus.build(data, tmp_path, uri=uri)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    with pytest.raises(RecipeError, match=r"MILVUS_TOKEN is to hold the token of http://127.0.0.1:1"):
        Milvus.build(data, tmp_path, model=DRAWN, uri="http://127.0.0.1:1", key="MILVUS_TOKEN")
    built(some(3), tmp_path / "whole", **BOTH)
    for wrong in ({"k": 16_385}, {"weights": [1.0]}, {"weights": [0.5, 2.0]}, {"rank_constant": 0}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Milvus(tmp_path / "whole", **wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="k: 16385 hits; Milvus gives at most 16384"):
        Milvus(tmp_path / "whole").search("word", k=16_385)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in catalog.EXTRAS["milvus"]:
        with monkeypatch.context() as m:
            m.setattr(catalog, "installed", lambda module, absent=absent: module != absent)
            with pytest.raises(MissingExtra, match=r"pip install 'rankpipe\[milvus\]'"):
                built(some(2), tmp_path, **BOTH)


@pytest.mark.slow
def test_the_page_runs_as_written(embedded: Callable[[str], Path], tmp_path: Path) -> None:
    embedded("bge-small"), embedded("splade-tiny")
    pytest.importorskip("torch")
    run(ROOT / "docs" / "milvus.md", tmp_path, slow=True)
    assert [json.loads(line)["_id"] for line in (tmp_path / "left.jsonl").read_text().splitlines()] == [
        "tea", "bread", "soup",
    ]  # fmt: skip
