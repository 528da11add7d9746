"""Reports: well-formed, self-contained, escaped, with every query drawn where it belongs."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rankpipe.data import Doc
from rankpipe.measure import svg
from rankpipe.measure.compare import compare
from rankpipe.measure.ranking import evaluate
from rankpipe.measure.report import Page, report
from rankpipe.measure.results import Cost
from rankpipe.trec import Qrels, Run

NASTY = "a<b> & \"c\" 'd' </script><script>alert(1)</script>"


def case(queries: int) -> tuple[dict[str, Run], Qrels]:
    """Two systems; the second puts the relevant document of query i one rank higher if i is even, lower if odd."""
    qrels = {f"q{i}": {"r": 1, "x": 0} for i in range(queries)}
    old: Run = {q: {"x": 3.0, "r": 2.0, NASTY: 1.0} for q in qrels}
    new: Run = {q: {"x": 2.0, "r": 3.0 if i % 2 == 0 else 1.0, NASTY: 1.5} for i, q in enumerate(qrels)}
    return {"old <run>": old, 'new "run"': new}, qrels


def drawn(path: Path) -> ElementTree.Element:
    """The report parsed as XML, which refuses anything unescaped or unclosed."""
    html = path.read_text("utf-8").removeprefix("<!doctype html>\n")
    return ElementTree.fromstring(re.sub(r"<meta([^>]*)>", r"<meta\1/>", html))


def tips(page: ElementTree.Element) -> list[str]:
    return [t.text or "" for g in page.iter("g") for t in g.findall("title")]


@pytest.mark.parametrize("queries", [1, 2, 7, 500])
def test_a_comparison(tmp_path: Path, queries: int) -> None:
    runs, qrels = case(queries)
    made = compare(runs, qrels, ["RR", "P@1"], resamples=200)
    texts = {q: f"{NASTY} {q}" for q in qrels}
    costs = {name: [Cost("s", 0.1 * 30**i, tokens_in=100 * i)] for i, name in enumerate(runs)}
    path = tmp_path / "report.html"
    docs = {"r": Doc("r", "relevant " * 99, NASTY)}
    report(path, Page(NASTY, made.evaluations, runs, qrels, made, costs, texts, docs, {"commit": "<abc>"}))
    page = drawn(path)
    assert [h.text for h in page.iter("h1")] == [NASTY]
    assert not list(page.iter("script"))
    bars = [t for t in tips(page) if "→" in t]
    assert len(bars) == queries
    assert f"{NASTY} q0\n0.500 → 1.000 (+0.500)" in bars[queries // 2]
    helped = (queries + 1) // 2
    captions = [c.text for c in page.iter("figcaption")]
    assert captions[0] == f'new "run" against old <run>: {helped} better, 0 alike, {queries - helped} worse'
    assert len(captions) == 4  # differences, precision and recall, seconds, tokens
    assert len([s for s in page.iter("svg") if s.get("aria-label")]) == 4


def test_a_report_needs_no_network(tmp_path: Path) -> None:
    runs, qrels = case(3)
    made = compare(runs, qrels, ["RR"], resamples=50)
    report(tmp_path / "r.html", Page("t", made.evaluations, runs, qrels, made))
    assert not re.search(r"https?://|url\(|@import|src=|href=", (tmp_path / "r.html").read_text())


def test_one_system_alone(tmp_path: Path) -> None:
    runs, qrels = case(4)
    name, run = next(iter(runs.items()))
    report(tmp_path / "r.html", Page("alone", {name: evaluate(run, qrels, ["RR"])}, {name: run}, qrels))
    page = drawn(tmp_path / "r.html")
    titles = [h.text for h in page.iter("h2")]
    assert titles == ["Figures", "Query by query", "Precision and recall"]
    assert len([t for t in tips(page) if t.startswith("q")]) == 4


def test_systems_measured_on_different_queries(tmp_path: Path) -> None:
    """A sampled system is compared with the baseline over its sample."""
    runs, qrels = case(6)
    (all_of, first), (some, second) = runs.items()
    sample = {q: qrels[q] for q in ("q0", "q1")}
    made = {all_of: evaluate(first, qrels, ["RR"]), some: evaluate(second, sample, ["RR"])}
    report(tmp_path / "r.html", Page("sampled", made, runs, qrels))
    page = drawn(tmp_path / "r.html")
    assert len([t for t in tips(page) if "→" in t]) == 2


def test_bars_are_as_high_as_their_values() -> None:
    axis = svg.Axis("y", -1, 1)
    root = ElementTree.fromstring(svg.bars([(-0.5, "a"), (0.0, "b"), (1.0, "c")], axis, "x", "bars"))
    heights = [float(r.get("height") or 0) for r in root.iter("rect") if r.get("class") in ("up", "down")]
    full = svg.HEIGHT - svg.TOP - svg.BOTTOM
    assert heights == pytest.approx([full / 4, 0, full / 2], abs=0.02)


def test_many_bars_fit_and_few_are_not_fat() -> None:
    for n in (1, 30, 5000):
        root = ElementTree.fromstring(svg.bars([(1.0, "t")] * n, svg.Axis("y", 0, 1), "x", "bars"))
        boxes = [r for r in root.iter("rect") if r.get("class") == "up"]
        ends = [float(r.get("x") or 0) + float(r.get("width") or 0) for r in boxes]
        assert max(ends) <= svg.WIDTH - svg.RIGHT + 0.1
        assert float(boxes[0].get("width") or 0) <= svg.BAR


def test_names_of_points_do_not_cover_each_other() -> None:
    marks = [svg.Point(f"system {i}", 1 + i / 100, 0.5, "") for i in range(5)]
    root = ElementTree.fromstring(svg.points(marks, svg.Axis("x", 0, 2), svg.Axis("y", 0, 1), "points"))
    texts = [t for g in root.iter("g") for t in g.findall("text")]
    places = [(t.get("text-anchor"), float(t.get("y") or 0)) for t in texts]
    assert len(places) == len(set(places)) == 5


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (svg.Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (svg.Axis("", -0.3, 0.35), [-0.2, 0, 0.2]),
        (svg.Axis("", 0, 1234), [0, 500, 1000]),
        (svg.Axis("", 0.002, 30, log=True), [0.01, 0.1, 1, 10]),
    ],
)
def test_ticks_are_round(axis: svg.Axis, ticks: list[float]) -> None:
    assert axis.ticks == pytest.approx(ticks)


def test_axes_are_never_empty() -> None:
    for values in ([0.0], [0.5], [0.5, 0.5], [-1.0], []):
        axis = svg.from_zero(values, "y")
        assert axis.low <= 0 <= axis.high
        assert axis.low < axis.high
    assert svg.around([0.5], "y").low < 0.5 < svg.around([0.5], "y").high
    assert svg.spread([0.01, 5], "x").log
    assert not svg.spread([0, 5], "x").log
