"""Reports: well-formed, self-contained, escaped, with every query drawn where it belongs."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rankpipe.data import Doc
from rankpipe.measure import svg
from rankpipe.measure.compare import Comparison, Difference, compare, interval
from rankpipe.measure.ranking import Evaluation, evaluate
from rankpipe.measure.report import Page, report
from rankpipe.measure.results import Cost
from rankpipe.measure.tables import figure
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
    page = ElementTree.fromstring(re.sub(r"<meta([^>]*)>", r"<meta\1/>", html))
    for e in page.iter():  # words stand only where words belong
        if e.tag in ("html", "head", "body", "main", "section", "figure", "details", "div", "ul", "ol", "table", "tr"):
            assert not (e.text or "").strip(), e.tag
        if e.tag not in ("b", "i", "span", "small"):
            assert not (e.tail or "").strip(), e.tag
    return page


def tips(page: ElementTree.Element) -> list[str]:
    return [t.text or "" for g in page.iter("g") for t in g.findall("title")]


def section(page: ElementTree.Element, title: str) -> ElementTree.Element:
    [found] = [s for s in page.iter("section") if s.findtext("h2") == title]
    return found


def words(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def cells(place: ElementTree.Element) -> list[list[str]]:
    """The rows of the table there; heads stand above, and columns of text are marked alike in all rows."""
    [table] = place.iter("table")
    rows = [*table.iterfind("thead/tr"), *table.iterfind("tbody/tr")]
    assert [[c.tag for c in row] for row in rows] == [["th"] * len(rows[0]), *[["td"] * len(rows[0])] * (len(rows) - 1)]
    assert len({tuple(c.get("class") for c in row) for row in rows}) == 1
    assert not [e for e in (table, *table.iter("tr")) if e.text or e.tail]
    return [[words(c) for c in row] for row in rows]


def ends(values: list[float]) -> str:
    low, high = interval(values) or (0, 0)
    return f"[{figure(low)}, {figure(high)}]"


def told(tmp_path: Path) -> tuple[ElementTree.Element, Comparison]:
    """A report of four queries, with everything a report can have."""
    runs, qrels = case(4)
    made = compare(runs, qrels, ["RR", "P@1"], resamples=200)
    costs = {"old <run>": [Cost("s", 0.1)], 'new "run"': [Cost("s", 1, tokens_in=90, tokens_out=9), Cost("t", 0.5)]}
    docs = {"r": Doc("r", "relevant " * 99, NASTY), "x": Doc("x", "x" * 160)}
    facts = {"commit": "<abc>", "seed": "0"}
    texts = {"q0": "what?", "q1": NASTY}
    report(tmp_path / "r.html", Page("Title", made.evaluations, runs, qrels, made, costs, texts, docs, facts))
    return drawn(tmp_path / "r.html"), made


def test_figures_in_tables(tmp_path: Path) -> None:
    page, made = told(tmp_path)
    new = [1, 1 / 3, 1, 1 / 3]
    figures = section(page, "Figures")
    assert cells(figures) == [
        ["system", "RR", "P@1", "Judged@10", "queries", "missing", "s/query", "tokens/query"],
        ["old <run>", ".5000[.5000, .5000]", ".0000[.0000, .0000]", ".6667", "4", "0", "0.1", "0"],
        ['new "run"', f".6667{ends(new)}", f".5000{ends([1, 0, 1, 0])}", ".6667", "4", "0", "1.5", "99"],
    ]
    policy, *warnings = [words(line) for line in figures.findall("p")]
    assert policy == "mean over all 4 judged queries; below each figure its 95 % bootstrap interval"
    assert tuple(warnings) == made.warnings != ()
    rr, p1 = made.differences
    against = section(page, "Against old <run>")
    assert cells(against) == [
        ["system", "measure", "difference", "95 %", "p (t)", "p (rand.)", "wins / ties / losses", "RBO"],
        ['new "run"', "RR", "+.1667", shown(rr), p(rr.t_holm), p(rr.randomisation_holm), "2 / 0 / 2", overlap(made)],
        ['new "run"', "P@1", "+.5000", shown(p1), p(p1.t_holm), p(p1.randomisation_holm), "2 / 2 / 0", overlap(made)],
    ]
    assert [c.get("class") for c in against.iter("th")] == [None, "text", *[None] * 6]
    assert against.findtext("p") == (
        "p-values of the paired t-test and of the randomisation test, Holm-corrected for all rows; RBO: overlap of the "
        "rankings with the baseline's, the top mattering most (p = 0.9)"
    )
    every = page.findall("body/main/section")[-1]
    assert every.findtext("details/summary") == "RR of every query"
    assert cells(every) == [
        ["query", "old <run>", 'new "run"', "text"],
        ["q0", "0.5000", "1.0000", "what?"],
        ["q1", "0.5000", "0.3333", NASTY],
        ["q2", "0.5000", "1.0000", ""],
        ["q3", "0.5000", "0.3333", ""],
    ]
    assert [c.get("class") for c in every.iter("th")] == [None, None, None, "text"]
    assert words(page.findall("body/main/footer")[0]) == "commit <abc> · seed 0"
    assert ".grid" in (page.findtext("head/style") or "")


def shown(d: Difference) -> str:
    low, high = d.interval or (0, 0)
    return f"[{figure(low)}, {figure(high)}]"


def p(value: float | None) -> str:
    return f"{value:.4f}"


def overlap(made: Comparison) -> str:
    [alike] = made.overlap.values()
    return figure(alike)


def test_figures_in_plots(tmp_path: Path) -> None:
    page, _ = told(tmp_path)
    names = ["old <run>", 'new "run"']
    plots = section(page, "Precision and recall")  # one relevant document: precision is 1 / its rank at every recall
    assert tips(plots) == [
        f"{name}: precision {value} at recall {i / 10:g}"
        for name, value in zip(names, ("0.500", "0.667"), strict=True)
        for i in range(11)
    ]
    about = "Interpolated precision at eleven levels of recall; grade 1 and above counts as relevant"
    assert [words(c) for c in plots.iter("figcaption")] == [about]
    assert [s.get("aria-label") for s in plots.iter("svg")] == [f"{about}: {', '.join(names)}"]
    assert [words(li) for li in plots.iter("li")] == names
    assert [li.get("class") for li in plots.iter("li")] == ["c0", "c1"]
    grid = [t.text for t in plots.iter("text") if t.get("class") == "tick"]
    assert grid == ["0", "0.2", "0.4", "0.6", "0.8", "1"] * 2
    plots = section(page, "Cost and quality")
    assert [words(c) for c in plots.iter("figcaption")] == [
        "RR against seconds a query; lines are 95 % bootstrap intervals",
        "RR against tokens a query, in and out; lines are 95 % bootstrap intervals",
    ]
    assert tips(plots) == [
        "old <run>: RR .5000, 0.1 seconds a query, 4 queries",
        'new "run": RR .6667, 1.5 seconds a query, 4 queries',
        "old <run>: RR .5000, 0 tokens a query, in and out, 4 queries",
        'new "run": RR .6667, 99 tokens a query, in and out, 4 queries',
    ]
    assert len([line for line in plots.iter("line") if line.get("class") == "ends"]) == 4
    axes = [t.text for s in page.iter("svg") for t in s.iter("text") if t.get("class") == "name"]
    assert axes == [
        "queries, from most hurt to most helped", "difference of RR", "recall", "precision",
        "seconds a query", "RR", "tokens a query, in and out", "RR",
    ]  # fmt: skip


def test_the_queries_that_decide(tmp_path: Path) -> None:
    page, _ = told(tmp_path)
    decide = section(page, "Queries that decide")
    [details] = decide.findall("details")
    assert (details.get("open"), details.findtext("summary")) == ("open", 'new "run" against old <run>, by RR')
    assert [h.text for h in details.findall("h3")] == ["Most hurt", "Most helped"]
    queries = [q for q in details.findall("div") if q.get("class") == "query"]
    heads = [words(q.findall("b")[0]) + (q.findall("b")[0].tail or "") for q in queries]
    assert heads == [
        f"0.500 → 0.333 q1: {NASTY}", "0.500 → 0.333 q3", "0.500 → 1.000 q2", "0.500 → 1.000 q0: what?",
    ]  # fmt: skip
    before, after = queries[0].findall("div/div")
    assert [span.text for span in queries[0].iter("span") if span.get("class") == "muted"] == ["old <run>", 'new "run"']
    x, r = "grade 0 x " + "x" * 160, "grade 1 r " + f"{NASTY} {'relevant ' * 99}"[:160] + "…"
    assert [words(li) for li in before.iter("li")] == [x, r, f"not judged {NASTY}"]
    assert [words(li) for li in after.iter("li")] == [x, f"not judged {NASTY}", r]
    tags = {words(s): s.get("class") for s in before.iter("span") if "tag" in s.get("class", "")}
    assert tags == {"grade 0": "tag", "grade 1": "tag good", "not judged": "tag"}


def test_what_there_is_nothing_of_is_left_out(tmp_path: Path) -> None:
    """One query, which b did not find and d found late: no interval, no p-value; c does as well as a."""
    qrels = {"q": {"r": 1}}
    runs: dict[str, Run] = {
        "a": {"q": {"r": 1.0}},
        "b": {"q": {}},
        "c": {"q": {"r": 2.0}},
        "d": {"q": {"x": 2.0, "r": 1.0}},
    }
    made = compare({**runs, "b": {"q": {"x": 1.0}}}, qrels, ["RR"])
    report(tmp_path / "r.html", Page("t", made.evaluations, runs, qrels, made, {"a": [], "c": [Cost("s")]}))
    page = drawn(tmp_path / "r.html")
    assert cells(section(page, "Figures"))[1] == ["a", "1.0000", "1.0000", "1", "0", "0", "0"]
    assert [row[3:6] for row in cells(section(page, "Against a"))[1:]] == [["–"] * 3] * 3
    details = section(page, "Queries that decide").findall("details")
    summaries = [d.findtext("summary") for d in details]
    assert summaries == ["b against a, by RR", "d against a, by RR"]  # c decides nothing
    assert [d.get("open") for d in details] == ["open", None]
    assert [h.text for d in details for h in d.findall("h3")] == ["Most hurt"] * 2
    assert [words(e) for d in details for e in d.iter("p")] == ["nothing found"]
    assert [h.text for h in page.iter("h2")] == [
        "Figures", "Against a", "Query by query", "Precision and recall", "Queries that decide"
    ]  # fmt: skip
    captions = [words(c) for c in section(page, "Query by query").iter("figcaption")]
    assert captions == [
        "b against a: 0 better, 0 alike, 1 worse",
        "c against a: 0 better, 1 alike, 0 worse",
        "d against a: 0 better, 0 alike, 1 worse",
    ]


def test_a_query_that_a_system_has_nothing_for(tmp_path: Path) -> None:
    qrels = {"q": {"r": 1}, "z": {"r": 1}}
    hits = {"r": 9.0, "x1": 8.0, "x2": 7.0, "x3": 6.0}
    runs: dict[str, Run] = {"a": {"q": hits, "z": {"r": 1.0}}, "b": {"z": {"r": 1.0}}}
    made = compare(runs, qrels, ["RR"], resamples=50)
    report(tmp_path / "r.html", Page("t", made.evaluations, runs, qrels, made))
    decide = section(drawn(tmp_path / "r.html"), "Queries that decide")
    assert [words(b) for b in decide.iter("b")] == ["1.000 → 0.000"]
    assert [words(li) for li in decide.iter("li")] == ["grade 1 r", "not judged x1", "not judged x2"]  # three of four
    assert [words(e) for e in decide.iter("p")] == ["nothing found"]


def test_p_values_are_shown_to_four_places(tmp_path: Path) -> None:
    _, qrels = case(40)
    worst: Run = {q: {"x": 2.0, "r": 1.0} if i else {"r": 2.0, "x": 1.0} for i, q in enumerate(qrels)}
    best: Run = {q: {"r": 2.0, "x": 1.0} for q in qrels}
    for resamples, p_value in ((20_000, "<.0001"), (10_000, "0.0002")):  # the least: 2 of all and one more
        made = compare({"worst": worst, "best": best}, qrels, ["RR"], resamples=resamples)
        report(tmp_path / "r.html", Page("t", made.evaluations, {"worst": worst, "best": best}, qrels, made))
        row = cells(section(drawn(tmp_path / "r.html"), "Against worst"))[1]
        assert row[4:6] == ["<.0001", p_value]


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
    name, run = [*runs.items()][1]
    of: Evaluation = evaluate(run, {**qrels, "lost": {"r": 1}}, ["RR"], average="retrieved")
    report(tmp_path / "r.html", Page("alone", {name: of}, {name: run}, {**qrels, "lost": {"r": 1}}))
    page = drawn(tmp_path / "r.html")
    assert [t for t in tips(page) if t.startswith("q")] == ["q1\n0.333", "q3\n0.333", "q0\n1.000", "q2\n1.000"]
    assert f"{name}: precision 0.667 at recall 1" in tips(page)  # the mean over the four, as the figures are
    assert words(page.findall(".//figcaption")[0]) == f"{name}: RR of each query"
    axes = [t.text for t in page.iter("text") if t.get("class") == "name"]
    assert axes[:2] == ["queries, from worst to best", "RR"]
    assert [c.tail for c in page.findall(".//svg")] == [None, None]
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
    assert [row[1:3] for row in cells(page.findall("body/main/section")[-1])[2:4]] == [
        ["0.5000", "0.3333"], ["0.5000", ""]
    ]  # fmt: skip


def test_tokens_are_plotted_where_no_time_is_known(tmp_path: Path) -> None:
    runs, qrels = case(3)
    made = compare(runs, qrels, ["RR"], resamples=50)
    costs = {name: [Cost("s", tokens_out=5)] for name in runs}
    report(tmp_path / "r.html", Page("t", made.evaluations, runs, qrels, made, costs))
    [caption] = section(drawn(tmp_path / "r.html"), "Cost and quality").iter("figcaption")
    assert words(caption).startswith("RR against tokens a query")


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
        assert float(boxes[0].get("width") or 0) < svg.WIDTH / 20


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
