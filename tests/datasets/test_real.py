"""The real collections are what the facts say they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rankpipe.datasets import open_dataset, rankings, read_requests, write_requests
from rankpipe.datasets.facts import collections
from rankpipe.errors import DataError
from rankpipe.trec import ordered, read_run

HELD = [(k.folder, split) for k in collections().values() if k.sha256 for split in k.splits or ["test"]]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "split"), HELD)
def test_documents_counts_and_checksum(
    folder: str, split: str, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKPIPE_DATA", str(data_root))
    data = open_dataset(folder, split)
    assert data.known is not None
    assert data.verify()["documents"] == data.known.documents
    if data.known.splits:
        assert data.summary["judged"] == data.known.splits[split].queries
        assert data.summary["judged_without_text"] == 0


@pytest.mark.parametrize(
    "name", ["scifact", "beir/scifact/test", "irds:beir/scifact/test", "beir-v1.0.0-scifact-test", "path"]
)
def test_scifact_in_every_spelling(name: str, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKPIPE_DATA", str(data_root))
    data = open_dataset(data_root / "scifact" if name == "path" else name)
    assert (data.name, data.count, len(data.queries)) == ("beir/scifact/test", 5183, 300)
    assert data.checksum == "dec31c8182f3d744c7d2c09423756fd1d17cbef75808db13ba01cc0aab4d1ac6"


def test_empty_documents_of_cranfield_are_there(data_root: Path) -> None:
    data = open_dataset(data_root / "cranfield")
    assert [d.id for d in data.docs() if not d.contents] == ["471", "995"]
    assert data.verify()["empty"] == 2


def test_a_changed_byte_is_found(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(data_root / "lihua-world", tmp_path / "lihua-world", copy_function=shutil.copyfile)
    content = (copy / "corpus.jsonl").read_bytes()
    Path(copy, "corpus.jsonl").write_bytes(content.replace(b"city", b"town", 1))
    monkeypatch.setenv("RANKPIPE_DATA", str(tmp_path))
    data = open_dataset("lihua-world")
    with pytest.raises(DataError, match=r"its sha256 is .*, but that of lihua-world is a19b044d"):
        data.verify()


def test_a_real_run_finds_its_texts(data_root: Path, tmp_path: Path) -> None:
    run = read_run(data_root / "trec-dl19-pool/runs/BM25.trec").run
    found = rankings(run, open_dataset(data_root / "trec-dl19-pool"))
    assert {r.query.id: [h.doc.id for h in r.hits] for r in found} == {q: ordered(s) for q, s in run.items()}
    assert all(h.doc.text for r in found for h in r.hits)
    write_requests(tmp_path / "r.jsonl", found)
    assert read_requests(tmp_path / "r.jsonl") == found
