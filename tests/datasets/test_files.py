"""Corpora in files of any layout stream: no more documents are alive than one, however many there are."""

import datetime
import gc
import gzip
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets.tables import plain
from rankpipe.errors import DataError
from rankpipe.retrieve.bm25 import BM25

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXT = "a text of some length, as texts are " * 20


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"_id": f"d{i}", "title": f"t{i}", "text": f"{i} {TEXT}", "url": "x"} for i in range(first, first + count)]


def jsonl(path: Path, count: int, first: int = 0) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count, first)))
    return path


def packed(path: Path, count: int) -> Path:
    with gzip.open(path.with_suffix(".jsonl.gz"), "wt") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows(count))
    return path.with_suffix(".jsonl.gz")


def table(path: Path, count: int, first: int = 0) -> Path:
    path = path.with_suffix(".parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows(count, first)), path, row_group_size=500)
    return path


def folder(path: Path, count: int) -> Path:
    path = path.with_suffix("")
    path.mkdir()
    jsonl(path / "a.jsonl", count // 2)
    table(path / "b", count - count // 2, count // 2)
    return path


LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    "jsonl": jsonl, "jsonl.gz": packed, "parquet": table, "folder": folder
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_documents_are_there(layout: str, tmp_path: Path) -> None:
    data = open_dataset(LAYOUTS[layout](tmp_path / "mine.jsonl", 7))
    assert [*data.docs()] == [*data.docs()] == [Doc(r["_id"], r["text"], r["title"], {"url": "x"}) for r in rows(7)]
    assert (data.name, data.count) == ("mine", 7)
    assert data.checksum == open_dataset(LAYOUTS[layout](tmp_path / "mine2.jsonl", 7)).checksum
    assert data.checksum != open_dataset(LAYOUTS[layout](tmp_path / "mine3.jsonl", 8)).checksum


def alive(data: Dataset) -> tuple[int, int]:
    """Documents, and bytes of Python and Arrow beside the hashes of ids, that were held at once."""
    docs = most = 0
    next(iter(data.docs()))
    gc.collect()
    arrow = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    for i, _ in enumerate(data.docs()):
        if i % 400 == 399:
            docs = max(docs, sum(type(o) is Doc for o in gc.get_objects()))
        most = max(most, pyarrow.total_allocated_bytes() - arrow)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return docs, held + most


@pytest.mark.parametrize("layout", LAYOUTS)
def test_documents_do_not_stay(layout: str, tmp_path: Path) -> None:
    few, many = (open_dataset(LAYOUTS[layout](tmp_path / f"{n}.jsonl", n)) for n in (1000, 4000))
    before = sum(type(o) is Doc for o in gc.get_objects())
    docs, held = alive(many)
    assert docs <= before + 2
    assert held < 1.25 * alive(few)[1] + 16 * 3000  # four times the texts, 2 MB more, would be seen


def test_ids_that_come_twice_in_different_files(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    jsonl(tmp_path / "mine" / "a.jsonl", 3)
    table(tmp_path / "mine" / "b", 3, first=2)
    with pytest.raises(DataError, match=r"b\.parquet: row 1: the id 'd2' is there already, at .*a\.jsonl:3;"):
        [*open_dataset(tmp_path / "mine").docs()]


def test_columns_that_are_no_json(tmp_path: Path) -> None:
    """Dates, times and UUIDs become text, decimals and durations numbers; an index can be made of them."""
    tea = UUID(int=7)
    columns = {
        "day": datetime.date(2024, 1, 2),
        "when": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "hour": datetime.time(3, 4),
        "price": Decimal("1.50"),
        "whole": Decimal("2.00"),
        "long": datetime.timedelta(minutes=1, milliseconds=500),
        "seen": [{"on": datetime.date(2025, 1, 1)}],
        "ok": True,
        "none": None,
    }
    path = tmp_path / "mine.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"id": str(tea), "text": "tea", **columns}]), path)
    data = open_dataset(path)
    [doc] = data.docs()
    fields = {
        "day": "2024-01-02",
        "when": "2024-01-02T03:04:05",
        "hour": "03:04:00",
        "price": 1.5,
        "whole": 2,
        "long": 60.5,
        "seen": [{"on": "2025-01-01"}],
        "ok": True,
        "none": None,
    }
    assert doc.fields == fields == plain({**columns}, lambda *_: None)
    assert plain({"id": tea}, lambda *_: None) == {"id": str(tea)}
    index = BM25.build(data, tmp_path / "index")
    assert [h.doc.fields for h in index.filtered("day >= 2024-01-02 and price > 1").search("tea").hits] == [fields]


def test_a_column_that_cannot_be_kept(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "tea", "raw": None}, {"id": "b", "text": "tea", "raw": [b"x"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=r"raw\.parquet: row 2: the column 'raw' has bytes, which JSON has nothing for"):
        [*open_dataset(tmp_path / "raw.parquet").docs()]


def test_what_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as Parquet"):
        open_dataset(tmp_path / "bad.parquet")
    parquet.write_table(pyarrow.table({"name": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: row 1: no '_id' or .*; it has 'name'"):
        open_dataset(tmp_path / "other.parquet")
    parquet.write_table(pyarrow.table({"id": [1], "text": [None]}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match=r"null\.parquet: row 1: 'text' is null"):
        open_dataset(tmp_path / "null.parquet")
    parquet.write_table(pyarrow.table({"id": [1], "text": ["x"]}).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet: no documents in it"):
        open_dataset(tmp_path / "none.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"corpus\.jsonl"):
        open_dataset(tmp_path / "empty")
