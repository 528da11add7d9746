"""BEIR folders: the layout, its splits, and what is wrong in one."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from rankpipe.data import Query
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, tiny_path: Path) -> Path:
    return Path(shutil.copytree(tiny_path, tmp_path / "mine"))


def with_splits(folder: Path) -> None:
    rows = (folder / "qrels/test.tsv").read_text().splitlines()
    for split, queries in {"train": ("q1", "q2"), "test": ("q3",)}.items():
        kept = [rows[0], *(r for r in rows[1:] if r.split("\t")[0] in queries)]
        (folder / f"qrels/{split}.tsv").write_text("\n".join(kept) + "\n")


def test_tiny_is_what_it_says(tiny: Dataset) -> None:
    docs = list(tiny.docs())
    lines = [json.loads(line) for line in (tiny.corpus.path).read_text().splitlines()]  # type: ignore[union-attr]
    assert [(d.id, d.title, d.text) for d in docs] == [(r["_id"], r["title"], r["text"]) for r in lines]
    assert tiny.name == "tiny/test"
    assert tiny.queries[2] == Query("q3", "knot to moor a boat that will not slip")
    assert tiny.qrels["q3"] == {"knot-1": 3, "knot-2": 1, "knot-3": 1}
    assert list(tiny.docs()) == docs


def test_every_judged_document_of_tiny_exists(tiny: Dataset) -> None:
    assert tiny.verify() == {"documents": 20, "empty": 0, "titled": 18, "characters": 2205, "judged_missing": 0}


def test_several_splits_give_the_queries_they_judge(folder: Path) -> None:
    with_splits(folder)
    train, test = open_dataset(folder, split="train"), open_dataset(folder)
    assert [q.id for q in train.queries] == ["q1", "q2"]
    assert [q.id for q in test.queries] == ["q3"]
    assert test.summary["other_queries"] == 7
    assert train.name == "mine/train"
    assert train.checksum == test.checksum


def test_one_split_gives_every_query(folder: Path) -> None:
    with open(folder / "queries.jsonl", "a") as f:
        f.write('{"_id": "q9", "text": "not judged"}\n')
    with open(folder / "qrels/test.tsv", "a") as f:
        f.write("q0\ttide-1\t1\n")
    summary = open_dataset(folder).summary
    assert (summary["queries"], summary["judged"], summary["unjudged"], summary["judged_without_text"]) == (9, 8, 1, 1)
    assert summary["grades"] == {0: 3, 1: 8, 2: 3, 3: 8}


def test_missing_split_names_those_there_are(folder: Path) -> None:
    with_splits(folder)
    with pytest.raises(DataError, match=r"qrels: no split 'dev'; it has test, train"):
        open_dataset(folder, split="dev")


def test_nested_split(folder: Path) -> None:
    (folder / "qrels/dev").mkdir()
    (folder / "qrels/test.tsv").rename(folder / "qrels/dev/small.tsv")
    assert len(open_dataset(folder, split="dev/small").qrels) == 8


def test_without_judgements_and_without_queries(folder: Path) -> None:
    shutil.rmtree(folder / "qrels")
    assert (len(open_dataset(folder).queries), open_dataset(folder).qrels) == (8, {})
    (folder / "queries.jsonl").unlink()
    assert open_dataset(folder).queries == ()


def test_packed_folder(folder: Path) -> None:
    plain = open_dataset(folder)
    checksum = plain.checksum
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels/test.tsv"):
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = open_dataset(folder)
    assert (packed.queries, packed.qrels, packed.checksum) == (plain.queries, plain.qrels, checksum)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", "", r"corpus\.jsonl: no documents in it"),
        ("corpus.jsonl", "x\n", r"corpus\.jsonl:1: not JSON"),
        ("queries.jsonl", '{"_id": "q1"}\n', r"queries\.jsonl:1: no 'text'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", r"test\.tsv: no judgements in it"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ttide-1\n", r"test\.tsv:2: 2 fields, expected 3"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ttide-1\tyes\n", r"test\.tsv:2: the relevance 'yes'"),
    ],
)
def test_malformed_file(folder: Path, file: str, content: str, said: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=said):
        open_dataset(folder)


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.jsonl: no such file"):
        open_dataset(tmp_path)


def test_trec_judgements_in_the_folder(folder: Path) -> None:
    before = open_dataset(folder).qrels
    lines = [f"{q} 0 {d} {g}" for q, grades in before.items() for d, g in grades.items()]
    (folder / "qrels/test.tsv").write_text("\n".join(lines))
    assert open_dataset(folder).qrels == before
