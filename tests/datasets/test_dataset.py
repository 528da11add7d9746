"""What a dataset says about itself, its policies and its checksum."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset
from rankpipe.errors import DataError

DOCS = [Doc("d1", "text", "title"), Doc("d2", "", ""), Doc("q1", "itself")]


def test_in_memory() -> None:
    data = Dataset.of(DOCS, [Query("q1", "x")], {"q1": {"d1": 2, "d9": 0}}, name="mine")
    assert list(data.docs()) == DOCS
    assert (data.count, data.data.name, data.qrels["q1"]["d1"]) == (3, "mine", 2)
    assert data.verify() == {"documents": 3, "empty": 1, "titled": 1, "characters": 16, "judged_missing": 1}


def test_checksum_of_a_file_is_the_files(tiny: Dataset, tiny_path: Path) -> None:
    assert tiny.checksum == hashlib.sha256((tiny_path / "corpus.jsonl").read_bytes()).hexdigest()


def test_checksum_in_memory_is_of_canonical_json() -> None:
    line = json.dumps(["d1", "title", "text"], separators=(",", ":")) + "\n"
    assert Dataset.of(DOCS[:1]).checksum == hashlib.sha256(line.encode()).hexdigest()
    years = [Dataset.of([replace(DOCS[0], fields={"year": y})]).checksum for y in (1, 2)]
    assert len({*years, Dataset.of(DOCS[:1]).checksum}) == 3


docs = st.builds(Doc, st.text(min_size=1, max_size=3), st.text(max_size=5), st.text(max_size=5))


@given(st.lists(docs, min_size=1, max_size=4), st.lists(docs, min_size=1, max_size=4))
def test_checksums_are_alike_exactly_for_like_documents(one: list[Doc], other: list[Doc]) -> None:
    assert (Dataset.of(one).checksum == Dataset.of(other).checksum) == (one == other)


def test_titles_dropped() -> None:
    joined = Dataset.of(DOCS)
    dropped = replace(joined, titles="drop")
    assert [d.contents for d in joined.docs()] == ["title text", "", "itself"]
    assert [d.contents for d in dropped.docs()] == ["text", "", "itself"]
    assert dropped.checksum != joined.checksum


def test_self_matches() -> None:
    run = {"q1": {"q1": 3.0, "d1": 2.0}, "d1": {"d2": 1.0}}
    data = Dataset.of(DOCS)
    assert data.without_self_matches(run) == (run, 0)
    assert replace(data, self_match="drop").without_self_matches(run) == ({"q1": {"d1": 2.0}, "d1": {"d2": 1.0}}, 1)


def test_no_documents() -> None:
    with pytest.raises(DataError, match="mine: no documents in it"):
        list(Dataset.of([], name="mine").docs())


def test_summary_names_the_policies(tiny: Dataset) -> None:
    assert tiny.summary | {"notes": []} == {
        "name": "tiny/test", "documents": 20, "queries": 8, "judged": 8, "unjudged": 0, "judged_without_text": 0,
        "other_queries": 0, "judgements": 21, "grades": {0: 3, 1: 7, 2: 3, 3: 8}, "self_match": "keep",
        "titles": "join", "licence": "unknown", "notes": [],
    }  # fmt: skip
