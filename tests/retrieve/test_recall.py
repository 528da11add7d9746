"""What is said of rounded and compressed vectors is what a search finds, counted by hand."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from rankpipe.catalog import find
from rankpipe.cli import app
from rankpipe.cli import index as verbs
from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset
from rankpipe.retrieve import approximate, embed, embedded, grown, late, living, parts, recall, shelf
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from tests.retrieve.fakes import Aside
from tests.retrieve.models import Directions

assert verbs.build  # registers them
chance = random.Random(0)
DOCS = [Doc(f"d{i}", " ".join([*chance.choices("abcdefghijklmnop", k=12), f"w{i}"])) for i in range(600)]
DATA, FAKE = Dataset.of(DOCS), "tests.retrieve."


@pytest.fixture(autouse=True)
def few_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "WORTH", 500)
    monkeypatch.setattr(embed, "SHARD", 100)


def counted(index: Living, asked: NDArray[np.intp], texts: Sequence[str], scores: NDArray[np.float32], k: int) -> float:
    """The share of the ``k`` with the highest scores, (queries, documents), that a search finds."""
    found = type(index)(index.folder, k=k + 1).run([Query(f"{i}", text) for i, text in enumerate(texts)])
    shares = []
    for i, ranking, row in zip(asked, found, scores, strict=True):
        nearest = [f"d{place}" for place in np.argsort(-row) if place != i][:k]
        shares.append(len({*nearest} & {*[h.doc.id for h in ranking.hits if h.doc.id != f"d{i}"][:k]}) / k)
    return float(np.mean(shares))


@pytest.mark.parametrize("store", ["int8", "binary"])
@pytest.mark.parametrize("dimension", [None, 8])
def test_rounded_vectors(store: Any, dimension: int | None, tmp_path: Path) -> None:
    """Counted with pieces of documents, as questions."""
    index = Dense.build(DATA, tmp_path, model=FAKE + "fakes:Aside", store=store, dimension=dimension)
    asked = recall.for_pieces(100)  # of the first shard
    assert len(asked) == recall.FEW
    texts = recall.pieces(DOCS[i].text for i in asked)
    assert all(len(text.split()) == recall.WORDS and text in DOCS[i].text for i, text in zip(asked, texts, strict=True))
    assert index.manifest.facts["recall_of"] == "pieces of the first documents"
    model, made = Aside(), list[NDArray[np.float32]]()
    for vectors in (model.encode_docs([doc.text for doc in DOCS]), model.encode_queries(texts)):
        short = vectors[:, :dimension]
        made.append(short / np.linalg.norm(short, axis=1, keepdims=True))
    for k in recall.AT:
        said = index.manifest.facts[f"recall_at_{k}"]
        assert said == pytest.approx(counted(index, asked, texts, made[1] @ made[0].T, k), abs=0.002)
        assert 0.3 < said < 0.9999


def test_the_document_itself_does_not_count() -> None:
    truth = [(np.array([5, 1, 2, 3]), np.array([9.0, 3, 2, 1], np.float32))]
    for found, share in (([5, 1, 2], 1), ([5, 1], 0.5), ([5, 3], 0), ([1, 2, 5], 1)):
        scores = np.array([truth[0][1][truth[0][0].tolist().index(place)] for place in found], np.float32)
        assert recall.recall([(np.array(found), scores)], truth, np.array([5]), 2) == share


def test_what_a_merge_asks(tmp_path: Path) -> None:
    """Where a document has no word, another one is asked; nothing, where a segment that has documents was not asked."""

    class Part(list[Doc]):
        def __init__(self, name: str, docs: int) -> None:
            super().__init__(DOCS[:docs])
            self.folder = tmp_path / name
            self.folder.mkdir()

    way = embed.Embedding(Aside(), {"model": "aside", "dimension": None, "store": "float32"})
    asked = recall.Asked.of(way, np.arange(4), [Doc("a", " "), DOCS[1], Doc("b", ""), DOCS[3]])
    assert asked.own.tolist() == [1, 3]
    assert asked.queries.tolist() == way.queries(recall.pieces([" ", DOCS[1].text, "", DOCS[3].text])[1::2]).tolist()
    some, none, empty = Part("some", 4), Part("none", 2), Part("empty", 0)
    asked.keep(some.folder)
    places = [np.array([-1, 7, -1, 9]), np.arange(2), np.arange(0)]
    moved = recall.Asked.moved([some, empty], [places[0], places[2]])  # type: ignore[list-item]
    assert moved is not None
    assert moved.own.tolist() == [7, 9]
    assert recall.Asked.moved([some, none], places[:2]) is None  # type: ignore[list-item]
    assert recall.Asked.moved([empty], places[2:]) is None  # type: ignore[list-item]


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_of_whole_vectors_nothing_is_said(store: Any, tmp_path: Path) -> None:
    assert "recall_at_10" not in Dense.build(DATA, tmp_path, model=FAKE + "fakes:Drawn", store=store).manifest.facts


def test_of_vectors_that_were_not_all_seen_nothing_is_said(tmp_path: Path) -> None:
    """The index before has the vectors of most, rounded."""
    how: dict[str, Any] = {"model": FAKE + "fakes:Drawn", "store": "int8"}
    Dense.build(Dataset.of(DOCS[:550]), tmp_path, **how)
    facts = Dense.build(DATA, tmp_path, **how).manifest.facts
    assert facts["reused_vectors"] == 550
    assert "recall_at_10" not in facts


def test_compressed_token_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LEAST", 500)
    model = FAKE + "models:Directions"
    index = ColBERT.build(DATA, tmp_path / "index", model=model, bits=2)
    assert "recall_at_10" not in ColBERT.build(DATA, tmp_path / "whole", model=model, bits=16).manifest.facts
    reads = [read.vectors for read in Directions().docs([doc.text for doc in DOCS])]
    asked = np.sort(np.random.default_rng(5).choice(600, 32, replace=False))
    scores = np.array([[(reads[i] @ doc.T).max(axis=1).sum() for doc in reads] for i in asked], np.float32)
    for k in recall.AT:
        said = index.manifest.facts[f"recall_at_{k}"]
        texts = [DOCS[i].text for i in asked]
        assert said == pytest.approx(counted(index, asked, texts, scores, k), abs=0.1)  # of other documents


@pytest.mark.parametrize("node", [
    {"use": "dense", "model": FAKE + "fakes:Drawn", "store": "int8"},
    {"use": "dense", "model": FAKE + "fakes:Drawn", "store": "binary", "dimension": 8},
    {"use": "colbert", "model": FAKE + "models:Directions", "bits": 2},
])  # fmt: skip
def test_a_build_that_goes_on_says_it_as_if_it_had_not_been_killed(
    node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "LEAST", 500)
    said = recalls(build(node, tmp_path / "whole"))
    kills = [(grown.Grown, "append"), (grown.Grown, "_keep"), (grown.Grown, "note_recall"), (parts, "_sums")]
    for where, what in kills:
        for after in (False, True):
            for nth in (1, 2, 4):
                folder = tmp_path / f"{what} {after} {nth}"
                with monkeypatch.context() as m:
                    killing(m, where, what, nth if where is grown.Grown and what != "note_recall" else 1, after)
                    with pytest.raises(KeyboardInterrupt):
                        build(node, folder)
                index = build(node, folder)
                assert recalls(index) == said, folder
                assert not [*folder.rglob("nearest-*")]


def test_a_kill_while_the_sample_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LEAST", 500)
    node = {"use": "colbert", "model": FAKE + "models:Directions", "bits": 2}
    said, whole = recalls(build(node, tmp_path / "whole")), shutil.rmtree

    def killed(folder: Path, **how: Any) -> None:
        if Path(folder).name == late.SAMPLED:
            (Path(folder) / "hashes.npy").unlink()
            raise KeyboardInterrupt
        whole(folder, **how)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(shutil, "rmtree", killed)
        build(node, tmp_path / "killed")
    assert recalls(build(node, tmp_path / "killed")) == said


def test_what_was_seen_of_a_segment_that_is_made_again_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after 400, harmed, killed after 200 of the new one."""
    node = {"use": "dense", "model": FAKE + "fakes:Drawn", "store": "int8"}
    said = recalls(build(node, tmp_path / "whole"))
    for nth in (4, 2):
        with monkeypatch.context() as m:
            killing(m, grown.Grown, "append", nth, True)
            with pytest.raises(KeyboardInterrupt):
                build(node, tmp_path / "again")
        if nth == 4:
            [path] = (tmp_path / "again").rglob("vectors.npy")
            told = bytearray(path.read_bytes())
            told[-5] ^= 1
            path.write_bytes(told)
    assert recalls(build(node, tmp_path / "again")) == said


def test_what_was_kept_of_it_is_not_trusted_if_harmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"use": "dense", "model": FAKE + "fakes:Drawn", "store": "int8"}
    for number, harm in enumerate((lambda whole: whole[:-9], lambda whole: whole[:900] + b"!!" + whole[902:])):
        folder = tmp_path / f"{number}"
        with monkeypatch.context() as m:
            killing(m, grown.Grown, "append", 4, False)
            with pytest.raises(KeyboardInterrupt):
                build(node, folder)
        [*kept] = folder.rglob("nearest-*")
        assert len(kept) == 2
        for path in kept:
            path.write_bytes(harm(path.read_bytes()))
        assert recalls(build(node, folder)) == {}


def build(node: dict[str, Any], folder: Path) -> Living:
    shelf.build(DATA, folder, node)
    made: Living = find(node["use"])(folder)
    return made


def recalls(index: Living) -> dict[str, float]:
    return {k: v for k, v in index.manifest.facts.items() if k.startswith("recall_at_")}


def killing(patched: pytest.MonkeyPatch, where: Any, what: str, nth: int, after: bool) -> None:
    """Raise where a function is called for the nth time, before it or after."""
    whole, calls = getattr(where, what), iter(range(1, 1000))

    def last(*given: Any, **told: Any) -> Any:
        if (number := next(calls)) == nth and not after:
            raise KeyboardInterrupt
        made = whole(*given, **told)
        if number == nth:
            raise KeyboardInterrupt
        return made

    patched.setattr(where, what, last)


def test_merged_rows_are_found_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "WORTH", 200)
    node = {"use": "dense", "model": FAKE + "fakes:Drawn", "store": "int8"}
    shelf.build(DATA, tmp_path, node, shard=300)
    index = Dense(tmp_path)
    said = recalls(index)
    index.compact()
    assert [len(s) for s in index.segments] == [600]
    assert recalls(index) == said != {}


def test_of_several_segments_it_is_the_mean_of_their_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is small, and finds nearly all; what is added, and what dies, changes the shares."""
    monkeypatch.setattr(approximate, "cores", lambda: 1)
    monkeypatch.setattr(recall, "WORTH", 60)
    monkeypatch.setattr(late, "LEAST", 400)
    monkeypatch.setattr(embedded, "LEAST", 40)
    drawn = {"use": "dense", "model": FAKE + "fakes:Drawn"}
    nodes: list[dict[str, Any]] = [
        {**drawn, "factory": "PQ4x4", "recall": 0.9},
        {**drawn, "store": "int8"},
        {**drawn, "store": "binary"},
        {"use": "colbert", "model": FAKE + "models:Directions", "bits": 2},
    ]
    for number, node in enumerate(nodes):
        shelf.build(DATA, tmp_path / f"{number}", node, shard=520)
        index = find(node["use"])(tmp_path / f"{number}")
        assert [len(s) for s in index.segments] == [520, 80]
        said = weighed(index)
        assert min(said) < index.manifest.facts["recall_at_10"] < max(said)
        index.add([Doc(f"new{i}", DOCS[i].text) for i in range(50)])
        index.delete([f"d{i}" for i in range(200)])
        assert [len(s) for s in index.segments] == [320, 80, 50]
        assert len(weighed(index)) == (3 if number == 0 else 2), "FAISS's are measured whenever they come"


@pytest.mark.parametrize(
    ("kind", "told", "exact"),
    [
        (Dense, {"factory": "HNSW8", "recall": 0.95}, {"factory": "exact"}),
        (Dense, {"factory": "IVF16,Flat", "recall": 0.95}, {"factory": "exact"}),
        (Dense, {"factory": "IVF16,SQ4", "recall": 0.95}, {"factory": "exact"}),
        (ColBERT, {"bits": 4}, {"bits": 16}),
    ],
)  # fmt: skip
def test_after_any_changes_as_much_is_found(
    kind: Any, told: dict[str, Any], exact: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an index that is built of what is left, and about as much as was asked for."""
    for module, name, value in (
        (approximate, "cores", lambda: 1), (approximate.Faiss, "fetch", lambda self, k: k),  # so that the knob counts
        (embedded, "LEAST", 200), (late, "LEAST", 2000), (living, "FAN", 3),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    chance, state = random.Random(5), {doc.id: doc for doc in DOCS}
    model = FAKE + ("fakes:Drawn" if kind is Dense else "models:Directions")
    index = kind.build(DATA, tmp_path / "index", model=model, **told)
    for step in range(10):
        some = [f"d{i}" for i in chance.sample(range(900), 60)]
        if step == 5:
            index.compact()
        elif chance.random() < 0.3:
            index.delete(some)
            state = {i: doc for i, doc in state.items() if i not in some}
        else:
            new = {i: Doc(i, " ".join([*chance.choices("abcdefghijklmnop", k=12), i])) for i in some}
            index.update(new.values())
            state |= new
    queries = [Query(f"{i}", " ".join(chance.choices("abcdefghijklmnop", k=6))) for i in range(60)]

    def found(folder: str, **how: Any) -> float:
        built = index if folder == "index" else kind.build(left, tmp_path / folder, model=model, **how)
        pairs = zip(built.run(queries), truth, strict=True)
        return float(np.mean([len({h.doc.id for h in r.hits[:10]} & best) / 10 for r, best in pairs]))

    left = Dataset.of([*state.values()])
    whole = kind.build(left, tmp_path / "exact", model=model, **exact)
    truth = [{h.doc.id for h in r.hits[:10]} for r in whole.run(queries)]
    assert len(index) == len(state)
    assert min(len(s) for s in index.segments) < len(index), "it has lived"
    lived, fresh = found("index"), found("fresh", **told)
    assert lived > 0.85
    assert lived > fresh - 0.05


def weighed(index: Living) -> list[float]:
    """The recall at 10 of the segments that say one, of which the index says the mean."""
    told = [(json.loads((s.folder / "facts.json").read_text()), len(s)) for s in index.segments]
    for k in recall.AT:
        shares, weights = zip(*((one[f"recall_at_{k}"], n) for one, n in told if f"recall_at_{k}" in one), strict=True)
        assert index.manifest.facts[f"recall_at_{k}"] == pytest.approx(np.average(shares, weights=weights), abs=1e-4)
    return [one["recall_at_10"] for one, _ in told if "recall_at_10" in one]


def test_the_command_line_says_it(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": doc.id, "text": doc.text}) + "\n" for doc in DOCS))
    build = ["index", "build", str(tmp_path / "index"), "--data", str(corpus), "--use", "dense", "--set", "store=int8"]
    made = CliRunner().invoke(app, [*build, "--set", f"model={FAKE}fakes:Drawn"])
    facts = json.loads((tmp_path / "index" / "manifest.json").read_text())["facts"]
    assert f"recall, against exact search: {facts['recall_at_10']:.3f} of the 10 nearest" in made.stdout
