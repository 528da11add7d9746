"""The Hugging Face adapter, on a local folder through the real library, which takes seconds to import and start."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets import hub as hub_room
from rankpipe.datasets.opening import open_documents
from rankpipe.errors import DataError

pytestmark = pytest.mark.slow
pytest.importorskip("datasets")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def layout(folder: Path, tables: dict[str, dict[str, list[str]]]) -> None:
    """A repository: configuration -> split -> lines of JSON."""
    card = "---\nconfigs:\n"
    for config, splits in tables.items():
        card += f"- config_name: {config}\n  data_files:\n"
        for split, lines in splits.items():
            file = folder / config / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
            card += f"  - split: {split}\n    path: {config}/{split}.jsonl\n"
    (folder / "README.md").write_text(card + "---\n")


def tables(tiny_path: Path, tiny: Dataset) -> dict[str, dict[str, list[str]]]:
    judged = [
        json.dumps({"query-id": q, "corpus-id": d, "score": g}) for q, of in tiny.qrels.items() for d, g in of.items()
    ]
    return {
        "corpus": {"corpus": (tiny_path / "corpus.jsonl").read_text().splitlines()},
        "queries": {"queries": (tiny_path / "queries.jsonl").read_text().splitlines()},
        "default": {"test": judged, "dev": judged[:1]},
    }


def test_beir_layout_with_judgements_inside(hub: Path, tiny_path: Path, tiny: Dataset) -> None:
    layout(hub, tables(tiny_path, tiny))
    data = open_dataset(f"hf:{hub}")
    assert data.name == f"hf:{hub}/test"
    assert list(data.docs()) == list(data.docs()) == list(tiny.docs())
    assert (data.queries, data.qrels, data.count) == (tiny.queries, tiny.qrels, None)
    assert data.checksum == Dataset.of(list(tiny.docs())).checksum
    assert [q.id for q in open_dataset(f"hf:{hub}", split="dev").queries] == ["q1"]
    with pytest.raises(DataError, match="no split 'train'; it has test, dev"):
        open_dataset(f"hf:{hub}", split="train")
    assert list(open_documents(f"hf:{hub}", split="train").docs()) == list(tiny.docs())


def test_judgements_in_the_repository_beside(hub: Path, tiny_path: Path, tiny: Dataset) -> None:
    whole = tables(tiny_path, tiny)
    layout(Path(f"{hub}-qrels"), {"default": {"test": whole.pop("default")["test"]}})
    layout(hub, whole)
    data = open_dataset(f"hf:{hub}")
    assert (data.queries, data.qrels) == (tiny.queries, tiny.qrels)


def test_a_single_table_is_a_corpus(hub: Path) -> None:
    layout(hub, {"default": {"train": ['{"id": 1, "contents": "x"}', '{"id": 2, "contents": "y"}']}})
    data = open_dataset(f"hf:{hub}")
    assert [(d.id, d.text) for d in data.docs()] == [("1", "x"), ("2", "y")]


def test_other_columns_are_fields() -> None:
    row = {"id": 1, "text": "x", "day": datetime.date(2024, 2, 29), "raw": b"x", "tags": ["a"], "url": None}
    assert hub_room._json(row) == {"id": 1, "text": "x", "day": "2024-02-29", "tags": ["a"], "url": None}


def test_what_is_laid_out_otherwise(hub: Path) -> None:
    layout(hub, {"default": {"train": ['{"id": 1, "name": "x"}'], "test": ['{"id": 1, "name": "x"}']}})
    with pytest.raises(DataError, match="default: has the splits train, test; expected the BEIR layout"):
        open_dataset(f"hf:{hub}")


def test_row_that_is_no_document(hub: Path) -> None:
    layout(hub, {"default": {"train": ['{"id": 1, "name": "x"}']}})
    with pytest.raises(DataError, match=r"default/train, row 1: no 'text' or .*; it has 'id', 'name'"):
        list(open_dataset(f"hf:{hub}").docs())


def test_out_of_reach(hub: Path) -> None:
    with pytest.raises(DataError, match=r"hf:.*: `datasets` could not fetch or read it"):
        open_dataset(f"hf:{hub}/nothing")
