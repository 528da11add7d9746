"""Labels that are scores: of a reranker, or on record."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import DataError
from rankpipe.stage import Top
from rankpipe.train.labels import Recorded, Teacher


def test_a_teachers_scores_are_standardised(tmp_path: Path) -> None:
    """Of each query, over the documents that are asked about, as numpy does it."""
    scores = {"q": {"a": 9.5, "d": 8.0, "c": 1.25, "b": -3.0}, "same": {"a": 0.1, "b": 0.1, "c": 0.1}, "none": {}}
    asked = [Ranking(Query(q, "?"), tuple(Hit(Doc(d, ""), s) for d, s in said.items())) for q, said in scores.items()]
    record = tmp_path / "said.trec"
    record.write_text("".join(f"{q} Q0 {d} 1 {s} x\n" for q in scores for d, s in (*scores[q].items(), ("z", 99.0))))
    values = np.array([*scores["q"].values()])
    expected = dict(zip("adcb", ((values - values.mean()) / values.std()).tolist(), strict=True))
    for labels in (Recorded(record, standardise=True), Teacher(Top(4), standardise=True)):
        first, same, none = labels.of(asked, [{}] * 3)
        assert first == pytest.approx(expected)
        assert same == dict.fromkeys("abc", 0.0)
        assert none == {}
    assert Recorded(record).of(asked, [{}] * 3) == Teacher(Top(4)).of(asked, [{}] * 3) == [*scores.values()]


def test_requests_of_rankllm_are_a_record(tmp_path: Path) -> None:
    def told(query: str, **scores: float) -> str:
        candidates = [{"docid": d, "score": s, "doc": {"contents": "x"}} for d, s in scores.items()]
        return json.dumps({"query": {"qid": query, "text": "?"}, "candidates": candidates}) + "\n"

    file, packed = tmp_path / "said.jsonl", tmp_path / "said.jsonl.gz"
    file.write_text(told("q", b=7.5, z=1.5) + told("p", a=3.0))
    packed.write_bytes(gzip.compress(file.read_bytes()))
    asked = [Ranking(Query(q, "?"), (Hit(Doc("a", ""), 2.0), Hit(Doc("b", ""), 1.0))) for q in "qp"]
    for record in (file, packed):
        assert Recorded(record).of(asked, [{}, {}]) == [{"b": 7.5}, {"a": 3.0}]
    assert Recorded(file).checksum != Recorded(packed).checksum != ""


def test_a_record_that_is_not_there_is_named_with_what_makes_it(tmp_path: Path) -> None:
    for name in ("nothere", "nothere.jsonl", "nothere.trec"):
        with pytest.raises(DataError, match=f"{name}: no such file; make it with: rankpipe teach RUN .*{name}$"):
            _ = Recorded(tmp_path / name).checksum
