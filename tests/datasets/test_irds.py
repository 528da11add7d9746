"""The ir_datasets adapter, on a small collection registered with the real library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets.facts import collections
from rankpipe.datasets.irds import IrdsCorpus
from rankpipe.errors import DataError

ir_datasets = pytest.importorskip("ir_datasets")


class Abstract(NamedTuple):
    doc_id: str
    title: str
    abstract: str

    def default_text(self) -> str:
        return f"{self.title} {self.abstract}"


class Titled(NamedTuple):
    doc_id: str
    text: str
    title: str | None


def register(name: str, docs: list[NamedTuple], folder: Path) -> None:
    class Docs(ir_datasets.formats.BaseDocs):  # type: ignore[misc, name-defined]
        def docs_iter(self):  # type: ignore[no-untyped-def]
            return iter(docs)

    (folder / "q.tsv").write_text("1\twhat lifts the sea\n2\tfog\n")
    (folder / "r.txt").write_text("1 0 a 2\n1 0 b -1\n2 0 b 0\n")
    made = ir_datasets.create_dataset(queries_tsv=folder / "q.tsv", qrels_trec=folder / "r.txt")
    ir_datasets.registry._registered.pop(name, None)
    ir_datasets.registry.register(name, ir_datasets.Dataset(Docs(), made))


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    register("rankpipe-tests/small", [Titled("a", "tides", "Sea"), Titled("b", "", None)], tmp_path)
    return open_dataset("rankpipe-tests/small")


def test_documents_queries_judgements(small: Dataset) -> None:
    assert small.name == "rankpipe-tests/small"
    assert list(small.docs()) == list(small.docs()) == [Doc("a", "tides", "Sea"), Doc("b", "")]
    assert small.queries == (Query("1", "what lifts the sea"), Query("2", "fog"))
    assert small.qrels == {"1": {"a": 2, "b": -1}, "2": {"b": 0}}
    assert small.count is None
    assert small.checksum == Dataset.of(list(small.docs())).checksum


def test_count_is_what_the_library_says() -> None:
    assert IrdsCorpus("beir/scifact/test").count == 5183


def test_prefix(small: Dataset) -> None:
    assert open_dataset("irds:rankpipe-tests/small").name == small.name


def test_documents_without_a_text_field(tmp_path: Path) -> None:
    register("rankpipe-tests/abstracts", [Abstract("a", "Sea", "tides rise")], tmp_path)
    assert list(open_dataset("rankpipe-tests/abstracts").docs()) == [
        Doc("a", "Sea tides rise", fields={"title": "Sea", "abstract": "tides rise"})
    ]


def test_doubled_document(tmp_path: Path) -> None:
    register("rankpipe-tests/doubled", [Titled("a", "x", ""), Titled("a", "y", "")], tmp_path)
    with pytest.raises(DataError, match="irds:rankpipe-tests/doubled, document 2: the id 'a' is there already"):
        list(open_dataset("rankpipe-tests/doubled").docs())


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    register("rankpipe-tests/lost", [], tmp_path)
    (tmp_path / "q.tsv").unlink()
    with pytest.raises(DataError, match="irds:rankpipe-tests/lost: ir_datasets could not fetch or read it: "):
        open_dataset("rankpipe-tests/lost")


def test_near_names_of_the_library() -> None:
    with pytest.raises(DataError, match=r"did you mean .*antique/test"):
        open_dataset("antique/tets")


def test_facts_have_the_counts_of_ir_datasets() -> None:
    metadata = json.loads((Path(ir_datasets.__file__).parent / "etc" / "metadata.json").read_text("utf-8"))
    told = {id: metadata[id]["docs"]["count"] for id in collections() if id.startswith(("beir/", "msmarco-"))}
    assert told == {id: collections()[id].documents for id in told}
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")
    assert f"MS MARCO v2.1: {told['msmarco-segment-v2.1']:,} segments" in page
