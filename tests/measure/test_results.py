"""Results: filed whole, read back as they were, held against bounds."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe.data import Query, Ranking, Step
from rankpipe.errors import ArtefactError, DataError
from rankpipe.measure.compare import interval
from rankpipe.measure.ranking import evaluate
from rankpipe.measure.results import Cost, Result, SystemResult, costs, expected, file, latest, machine, read
from rankpipe.store import Data

QRELS = {"1": {"a": 1}, "2": {"b": 2}, "3": {"c": 1}}
RUN = {"1": {"a": 2.0, "b": 1.0}, "2": {"a": 2.0, "b": 1.0}, "9": {"a": 1.0}}


def ranking(*steps: Step) -> Ranking:
    return Ranking(Query("1", "?"), steps=steps)


RANKINGS = [
    ranking(Step("BM25", 0.1), Step("Listwise", 2, calls=1, tokens_in=90, tokens_out=9, repaired=1, cut=2)),
    ranking(Step("BM25", 0.2), Step("Listwise", 1, calls=2, tokens_in=110, tokens_out=12, repaired=1)),
    ranking(Step("BM25", 0.3)),  # nothing to rerank
]


def result(created: str = "2026-01-02T03:04:05Z", commit: str = "0123456789ab") -> Result:
    system = SystemResult.of(evaluate(RUN, QRELS, ["nDCG@10", "RR"]), RANKINGS, seed=3)
    return Result("mine", "feed", Data("tiny", "c0ffee"), 3, {"bm25": system}, commit=commit, created=created)


def test_what_is_recorded_of_a_system() -> None:
    system = result().systems["bm25"]
    assert system.values["RR"].mean == 0.5
    assert (system.values["RR"].low, system.values["RR"].high) == interval([1, 0.5, 0], seed=3)
    assert (system.queries, system.judged, system.missing, system.unjudged_queries) == (3, 3, 1, 1)
    assert system.judged_at_10 == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert system.policy.startswith("mean over all 3 judged queries; 1 of them (3) missing")
    assert system.seconds == pytest.approx(1.2)


def test_intervals_are_those_of_the_seed() -> None:
    grades = {f"q{i}": {f"d{j}": int(j == i) for j in range(30)} for i in range(30)}
    evaluation = evaluate({q: {f"d{j}": -float(j) for j in range(30)} for q in grades}, grades, ["RR"])
    values = [1 / (i + 1) for i in range(30)]
    for told, seed in (({}, 0), ({"seed": 3}, 3)):
        of = SystemResult.of(evaluation, **told).values["RR"]
        assert (of.low, of.high) == interval(values, seed=seed) != interval(values, seed=seed + 1)


def test_costs_are_means_of_a_query_but_faults_are_counted() -> None:
    assert costs(RANKINGS) == (
        Cost("BM25", 0.2),
        Cost("Listwise", 1.0, calls=1.0, tokens_in=66.666667, tokens_out=7.0, repaired=2, cut=2),
    )
    assert costs([]) == ()


def test_a_stage_gone_through_twice_is_summed() -> None:
    assert costs([ranking(Step("Top", 1, calls=2), Step("Top", 3))]) == (Cost("Top", 4.0, calls=2.0),)


def test_filed_and_read_back(tmp_path: Path) -> None:
    path = file(result(), tmp_path)
    assert path == tmp_path / "results" / "0123456789ab.json"
    assert read(path) == result()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert set(json.loads(path.read_text())["machine"]) == set(machine()) == {"cpu", "cores"}
    assert machine()["cores"] == os.cpu_count()
    if Path("/proc/cpuinfo").exists() and (
        named := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    ):
        assert machine()["cpu"] == named[1].strip()
    told = result().systems["bm25"]
    path = file(replace(result(), systems={"é": told}), tmp_path)
    assert '\n "systems": {\n  "é": {\n' in path.read_text("utf-8")  # a line a figure: differences can be read


def test_a_commit_has_one_result(tmp_path: Path) -> None:
    file(result(), tmp_path)
    again = replace(result(), seed=4)
    assert read(file(again, tmp_path)) == again
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_the_latest_is_the_youngest_not_the_last_by_name(tmp_path: Path) -> None:
    file(result("2026-01-01T00:00:00Z", "ffff"), tmp_path)
    file(result("2026-03-01T00:00:00Z", "0000"), tmp_path)
    assert latest(tmp_path).name == "0000.json"


def test_no_result_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(ArtefactError, match=f"no results here; make one with: rankpipe run {tmp_path}$"):
        latest(tmp_path)
    with pytest.raises(ArtefactError, match=r"no results here$"):
        latest(tmp_path / "elsewhere")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"created": "2026"}', '{"created": "2026", "systems": {"a": {}}}'])
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=r"x\.json"):
        read(path)


def test_a_single_query_has_no_interval(tmp_path: Path) -> None:
    system = SystemResult.of(evaluate({"1": {"a": 1.0}}, {"1": {"a": 1}}, ["RR"]))
    path = file(replace(result(), systems={"one": system}), tmp_path)
    assert read(path).systems["one"].values["RR"].low is None


def test_bounds() -> None:
    assert expected(result(), {"bm25": {"RR": [0.4, 0.6]}}) == []
    assert expected(result(), {"bm25": {"RR": [0.6, 1]}}) == ["bm25: RR is 0.5000, expected 0.6 to 1"]
    assert expected(result(), {"bm25": {"RR": [0.5, 0.5]}}) == []


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"bm52": {"RR": [0, 1]}}, "expect.bm52: no such system; did you mean bm25"),
        ({"bm25": {"nDCG@1": [0, 1]}}, "not measured; did you mean nDCG@10"),
        ({"bm25": {"RR": 0.5}}, r"expect.bm25.RR: 0.5 is not \[least, most\]"),
    ],
)
def test_bad_bounds_are_named(bounds: dict[str, dict[str, list[float]]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        expected(result(), bounds)
