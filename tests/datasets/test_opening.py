"""A name is understood in one fixed order, in every spelling, and is a claim that is checked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset, open_dataset, open_to_learn
from rankpipe.datasets.facts import Collection, Split, collections, spellings
from rankpipe.datasets.known import claimed
from rankpipe.errors import DataError
from rankpipe.progress import listening
from tests.heard import Heard

SIZES = {  # documents and test queries as BEIR's paper and the field's tables give them
    "scifact": (5183, 300), "nfcorpus": (3633, 323), "arguana": (8674, 1406), "scidocs": (25657, 1000),
    "fiqa": (57638, 648), "trec-covid": (171332, 50), "webis-touche2020": (382545, 49), "quora": (522931, 10000),
    "nq": (2681468, 3452), "dbpedia-entity": (4635922, 400), "hotpotqa": (5233329, 7405), "fever": (5416568, 6666),
    "climate-fever": (5416593, 1535),
}  # fmt: skip


def test_sizes_of_beir() -> None:
    facts = {n: collections()[f"beir/{n}"] for n in SIZES}
    assert {n: (f.documents, f.splits["test"].queries) for n, f in facts.items()} == SIZES
    assert collections()["beir/msmarco"].splits["dev"].queries == 6980


def test_policies_are_facts() -> None:
    assert [k.id for k in collections().values() if k.self_match == "drop"] == ["beir/arguana", "beir/quora"]
    assert all(k.licence and k.titles == "join" for k in collections().values())


@pytest.mark.parametrize(
    ("spelling", "collection", "split"),
    [
        ("beir/scifact/test", "beir/scifact", "test"),
        ("irds:beir/scifact/test", "beir/scifact", "test"),
        ("beir-v1.0.0-scifact-test", "beir/scifact", "test"),
        ("beir/scifact/train", "beir/scifact", "train"),
        ("beir/scifact", "beir/scifact", None),
        ("scifact", "beir/scifact", None),
        ("beir-v1.0.0-scifact.flat", "beir/scifact", None),
        ("beir/arguana", "beir/arguana", "test"),
        ("beir-v1.0.0-cqadupstack-android-test", "beir/cqadupstack/android", "test"),
        ("msmarco-passage/trec-dl-2019/judged", "msmarco-passage", "trec-dl-2019/judged"),
        ("trec-dl19-pool", "trec-dl19-pool", None),
        ("trec-dl19-pool/test_pool", "trec-dl19-pool", "test_pool"),
    ],
)
def test_spellings(spelling: str, collection: str, split: str | None) -> None:
    known, said = spellings()[spelling]
    assert (known.id, said) == (collection, split)


def test_no_spelling_means_two_collections() -> None:
    assert len(spellings()) == sum(len(k.names) for k in collections().values())


def test_ids_that_ir_datasets_has_no_such_collection_for_are_not_claimed() -> None:
    assert "irds:cranfield" not in spellings()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("scifacts", r"did you mean scifact or .*\? Accepted are"),
        ("beir/scifact/tset", "did you mean .*beir/scifact/test"),
        ("irds:beir/no/such", "no such path, and no collection of this name"),
        ("", r"corpus\.jsonl: no such file"),
        ("nothing like it", r"of this name\. Accepted are a BEIR folder, a corpus .*, pydocs, a Hugging Face id"),
    ],
)
def test_unknown(spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec.startswith("irds:"):
        pytest.importorskip("ir_datasets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        open_dataset(spec)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such file or folder"):
        open_dataset(tmp_path / "gone")


def test_a_file_that_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"a\.csv: a corpus file ends in \.jsonl, \.jsonl\.gz, \.parquet"):
        open_dataset(tmp_path / "a.csv")


def test_pydocs_is_built_in() -> None:
    data = open_dataset("pydocs")
    assert data.name == "pydocs"
    assert data.queries
    assert {q.id for q in data.queries} == set(data.qrels)


@pytest.mark.slow
def test_documents_of_pydocs_are_the_same_each_time() -> None:
    data = open_dataset("pydocs")
    docs = list(data.docs())
    assert "threading.Thread" in {d.id for d in docs}
    assert len(docs) == data.count
    assert data.checksum == open_dataset("pydocs").checksum


@pytest.fixture
def root(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with another collection under the name scifact."""
    shutil.copytree(tiny_path, tmp_path / "scifact")
    monkeypatch.setenv("RANKPIPE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["scifact", "beir/scifact/test", "irds:beir/scifact/test"])
def test_a_name_is_a_claim(root: Path, name: str) -> None:
    with pytest.raises(
        DataError, match=r"not beir/scifact as it is known: .* bytes, expected 8106566; 8 judged queries"
    ):
        open_dataset(name)


def test_a_path_is_taken_as_it_is_with_a_note(root: Path) -> None:
    data = open_dataset(root / "scifact")
    assert (data.name, data.known, data.count) == ("scifact/test", None, 20)
    [note] = data.summary["notes"]
    assert "named as beir/scifact, but another collection" in note
    assert "21 judgements, expected 339" in note


def test_a_split_said_twice(root: Path) -> None:
    with pytest.raises(DataError, match="beir/scifact/test is the split 'test', but 'train' is asked for"):
        open_dataset("beir/scifact/test", split="train")


def test_what_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKPIPE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"cranfield: not here; looked for a BEIR folder at {tmp_path}/cranfield"):
        open_dataset("cranfield")
    with pytest.raises(DataError, match="beir/scifact: no split 'dev'; it has train, test"):
        open_dataset("scifact", split="dev")
    monkeypatch.delenv("RANKPIPE_DATA")
    with pytest.raises(DataError, match="RANKPIPE_DATA is not set"):
        open_dataset("cranfield")


MINE = Collection(
    "mine", 3, "MIT", {"test": Split("mine/test", 1, 2)}, self_match="drop", titles="drop", sha256="0" * 64
)


def test_claims_give_the_policies_and_the_canonical_name() -> None:
    data = claimed(Dataset.of([Doc("a", "x", "t")], (), {"q": {"a": 1, "b": 0}}), MINE, "test")
    assert (data.name, data.self_match, data.titles, data.count) == ("mine/test", "drop", "drop", 3)
    assert data.summary["licence"] == "MIT"


def test_documents_are_counted_as_they_stream() -> None:
    data = claimed(Dataset.of([Doc("a", "x")], (), {"q": {"a": 1, "b": 0}}), MINE, "test")
    with pytest.raises(DataError, match="docs: 1 documents, but mine has 3; get it again"):
        list(data.docs())


def test_the_checksum_is_compared(tiny: Dataset) -> None:
    with pytest.raises(DataError, match=f"its sha256 is 59d229.*, but that of mine is {'0' * 64}"):
        _ = replace(tiny, known=MINE).checksum


def test_what_is_learned_from_is_no_test_where_there_is_another_split(tiny_path: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(tiny_path, tmp_path / "mine")
    with listening(heard := Heard()):
        assert open_to_learn(str(mine)).name == "mine/test"
    assert heard.notices == [f"{mine} has no split train: mine/test is learned from"]
    shutil.copy(mine / "qrels" / "test.tsv", mine / "qrels" / "train.tsv")
    with listening(heard := Heard()):
        assert open_to_learn(str(mine)).name == "mine/train"
    assert not heard.notices
