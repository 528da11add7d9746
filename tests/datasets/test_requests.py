"""Rankings with texts go out and come back unchanged; what is no ranking is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import read_requests, write_requests
from rankpipe.errors import DataError

some = st.text(min_size=1, max_size=6)
fields = st.dictionaries(
    some | st.sampled_from(["metadata", "text", "_id"]), st.none() | some | st.lists(some), max_size=2
)
docs = st.builds(Doc, some, st.text(max_size=12), st.text(max_size=6), fields)
hits = st.lists(
    st.builds(Hit, docs, st.floats(allow_nan=False, allow_infinity=False)), unique_by=lambda h: h.doc.id, max_size=5
)
queries = st.builds(Query, some, some.filter(str.strip))
many = st.lists(st.builds(Ranking.scored, queries, hits), min_size=1, max_size=4, unique_by=lambda r: r.query.id)


@given(many, st.sampled_from(["r.jsonl", "r.jsonl.gz"]))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rankings: list[Ranking], name: str) -> None:
    path = tmp_path_factory.mktemp("requests") / name
    write_requests(path, rankings)
    assert read_requests(path) == rankings


def test_order_of_ties_is_kept(tmp_path: Path) -> None:
    tied = Ranking(Query("q", "x"), (Hit(Doc("a", ""), 1.0), Hit(Doc("b", ""), 1.0)))
    write_requests(tmp_path / "r.jsonl", [tied])
    assert read_requests(tmp_path / "r.jsonl") == [tied]


def test_the_same_rankings_make_the_same_bytes(tmp_path: Path) -> None:
    ranking = Ranking(Query("q", "x"), (Hit(Doc("a", "é"), 1.0),))
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_requests(tmp_path / name, [ranking])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_requests(path, [Ranking(Query("old", "x"))])

    def failing() -> Any:
        yield Ranking(Query("new", "x"))
        raise RuntimeError("the model died")

    with pytest.raises(RuntimeError):
        write_requests(path, failing())
    assert [r.query.id for r in read_requests(path)] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def read(tmp_path: Path, *requests: dict[str, Any]) -> list[Ranking]:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    return read_requests(tmp_path / "r.jsonl")


def request(*candidates: dict[str, Any], qid: object = "7") -> dict[str, Any]:
    return {"query": {"qid": qid, "text": "x"}, "candidates": list(candidates)}


def candidate(docid: object, **fields: object) -> dict[str, Any]:
    return {"docid": docid, "doc": {"contents": "text"}, **fields}


def test_other_peoples_files(tmp_path: Path) -> None:
    [ranking] = read(tmp_path, request(candidate(5, score=2), candidate("b", score=1.5), qid=7))
    assert ranking.query == Query("7", "x")
    assert ranking.hits == (Hit(Doc("5", "text"), 2.0), Hit(Doc("b", "text"), 1.5))


def test_without_scores_the_order_is_the_ranking(tmp_path: Path) -> None:
    [ranking] = read(tmp_path, request(candidate("z"), candidate("a")))
    assert [(h.doc.id, h.score) for h in ranking.hits] == [("z", 1.0), ("a", 0.5)]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"candidates": []}, "'query' is null, expected an object"),
        ({"query": {"qid": "8", "text": "x"}}, "'candidates' is no list"),
        ({"query": {"text": "x"}, "candidates": []}, "no '_id' or"),
        ({"query": {"qid": "8", "text": ""}, "candidates": []}, "query '8' has an empty text"),
        (request(), "the query '7' is there already"),
        (request("a", qid="8"), 'candidate 1 is "a", expected an object'),  # type: ignore[arg-type]
        (request(candidate("a", doc=None), qid="8"), "candidate 1: 'doc' is null"),
        (request(candidate("a", doc={}), qid="8"), "candidate 1: no 'text' or"),
        (request(candidate(""), qid="8"), "candidate 1: 'docid' is empty"),
        (request(candidate("a", score="1"), qid="8"), "candidate 1: 'score' is '1', expected a number"),
        (request(candidate("a", score=float("nan")), qid="8"), "has the score nan"),
        (request(candidate("a", score=1), candidate("b"), qid="8"), "1 of 2 candidates have a 'score'"),
        (request(candidate("a", score=1), candidate("b", score=2), qid="8"), "not in the order of their scores"),
        (request(candidate("a"), candidate("a"), qid="8"), "document 'a' is in the ranking twice"),
    ],
)
def test_malformed(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, request(), bad)
    assert f"{tmp_path}/r.jsonl:2: " in str(error.value)
    assert said in str(error.value)


def test_empty_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r\.jsonl: no rankings in it"):
        read(tmp_path)
