"""One HTML file that shows what an evaluation found: no network, no script, nothing to install to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rankpipe.data import Doc
from rankpipe.disk import write
from rankpipe.measure import svg
from rankpipe.measure.compare import Change, Comparison, changes, decisive, interval
from rankpipe.measure.ranking import Evaluation, evaluate
from rankpipe.measure.results import Cost
from rankpipe.measure.tables import figure
from rankpipe.trec import Qrels, Run, ordered

RECALLS = [f"IPrec@{i / 10}" for i in range(11)]
HITS, LETTERS = 3, 160  # hits shown of a query, and the letters of each


class Html(str):
    """Text that is HTML already; any other text is escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Page:
    """What a report is made of. Only evaluations, runs and judgements must be there.

    The first system is the baseline, unless a comparison names another. Differences are taken over the queries that
    two systems were both measured on.
    """

    title: str
    evaluations: Mapping[str, Evaluation]  # by system; all of the same measures, of which plots show the first
    runs: Mapping[str, Run]
    qrels: Qrels
    comparison: Comparison | None = None
    costs: Mapping[str, Sequence[Cost]] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)  # texts by id
    docs: Mapping[str, Doc] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)  # commit, recipe, data, machine ...: shown at the foot

    @property
    def baseline(self) -> str:
        """The system that the others are compared with."""
        return self.comparison.baseline if self.comparison else next(iter(self.evaluations))

    @property
    def measure(self) -> str:
        """The measure that plots show."""
        return next(iter(self.evaluations[self.baseline].values))

    @property
    def others(self) -> list[str]:
        """All systems but the baseline."""
        return [name for name in self.evaluations if name != self.baseline]

    def changes(self, system: str) -> list[Change]:
        """A system against the baseline, query by query, the most hurt first."""
        return changes(
            self.evaluations[self.baseline].values[self.measure], self.evaluations[system].values[self.measure]
        )


def report(path: Path, page: Page) -> None:
    """Write the report, whole or not at all.

    :raises DiskError: If it cannot be written.
    """
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    parts = [
        _summary(page), _tests(page), _per_query(page), _precision_recall(page), _costs(page), _decisive(page),
        _all_values(page),
    ]  # fmt: skip
    facts = " · ".join(f"{escape(k)} {escape(v)}" for k, v in page.facts.items())
    with write(path) as f:
        f.write(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(page.title)}</title><style>{style}</style></head><body><main>"
            f"<header><h1>{escape(page.title)}</h1></header>\n"
            + "\n".join(p for p in parts if p)
            + f"\n<footer>{facts}</footer></main></body></html>\n"
        )


def _summary(page: Page) -> str:
    measures = list(page.evaluations[page.baseline].values)
    spent = any(page.costs.values())
    rows = []
    for name, e in page.evaluations.items():
        cells: list[object] = [name]
        for m in measures:
            ends = interval([*e.values[m].values()])
            cells.append(Html(figure(e.means[m]) + (f"<small>{_ends(ends)}</small>" if ends else "")))
        cells += [figure(e.judged_at_10), len(e.queries), len(e.missing)]
        if spent:
            of = page.costs.get(name, ())
            cells += [f"{sum(c.seconds for c in of):.3g}", f"{sum(c.tokens_in + c.tokens_out for c in of):,.0f}"]
        rows.append(cells)
    head = ["system", *measures, "Judged@10", "queries", "missing", *(["s/query", "tokens/query"] if spent else [])]
    policies = dict.fromkeys(e.policy for e in page.evaluations.values())
    notes = "".join(
        f'<p class="muted">{escape(p)}; below each figure its 95 % bootstrap interval</p>' for p in policies
    )
    warnings = "".join(
        f'<p class="warn">{escape(w)}</p>' for w in (page.comparison.warnings if page.comparison else ())
    )
    return _section("Figures", _table(head, rows) + notes + warnings)


def _tests(page: Page) -> str:
    if not page.comparison:
        return ""
    rows = [
        [
            d.system, d.measure, figure(d.delta, sign="+"), _ends(d.interval), _p(d.t_holm), _p(d.randomisation_holm),
            f"{d.wins} / {d.ties} / {d.losses}", figure(page.comparison.overlap[d.system]),
        ]
        for d in page.comparison.differences
    ]  # fmt: skip
    head = ["system", "measure", "difference", "95 %", "p (t)", "p (rand.)", "wins / ties / losses", "RBO"]
    note = (
        "p-values of the paired t-test and of the randomisation test, Holm-corrected for all rows; RBO: overlap of the "
        "rankings with the baseline's, the top mattering most (p = 0.9)"
    )
    return _section(f"Against {page.baseline}", _table(head, rows) + f'<p class="muted">{note}</p>')


def _per_query(page: Page) -> str:
    m = page.measure
    figures = []
    of_system = {name: page.changes(name) for name in page.others}
    shared = svg.from_zero([c.delta for of in of_system.values() for c in of], f"difference of {m}")
    for name, of in of_system.items():
        wins, losses = sum(c.delta > 0 for c in of), sum(c.delta < 0 for c in of)
        told = f"{name} against {page.baseline}: {wins} better, {len(of) - wins - losses} alike, {losses} worse"
        bars = [(c.delta, f"{_asked(page, c.query)}\n{c.before:.3f} → {c.after:.3f} ({c.delta:+.3f})") for c in of]
        figures.append(_figure(told, svg.bars(bars, shared, "queries, from most hurt to most helped", told)))
    if not page.others:
        values = sorted(page.evaluations[page.baseline].values[m].items(), key=lambda qv: qv[1])
        told = f"{page.baseline}: {m} of each query"
        bars = [(v, f"{_asked(page, q)}\n{v:.3f}") for q, v in values]
        axis = svg.from_zero([v for _, v in values], m)
        figures.append(_figure(told, svg.bars(bars, axis, "queries, from worst to best", told)))
    return _section("Query by query", "".join(figures))


def _precision_recall(page: Page) -> str:
    series = []
    for name, e in page.evaluations.items():
        asked = {q: page.qrels[q] for q in e.queries}
        means = evaluate(page.runs[name], asked, RECALLS).means
        series.append(svg.Series(name, [(i / 10, means[m]) for i, m in enumerate(RECALLS)]))
    axes = svg.Axis("recall", 0, 1), svg.Axis("precision", 0, 1)
    told = "Interpolated precision at eleven levels of recall; grade 1 and above counts as relevant"
    plot = svg.lines(series, *axes, f"{told}: {', '.join(page.evaluations)}")
    return _section("Precision and recall", _legend([s.name for s in series]) + _figure(told, plot))


def _costs(page: Page) -> str:
    figures = []
    for amount, unit in (("seconds", "seconds a query"), ("tokens", "tokens a query, in and out")):
        marks = []
        for name, of in page.costs.items():
            x = sum(c.seconds if amount == "seconds" else c.tokens_in + c.tokens_out for c in of)
            e = page.evaluations[name]
            y = e.means[page.measure]
            tip = f"{name}: {page.measure} {figure(y)}, {x:.3g} {unit}, {len(e.queries)} queries"
            marks.append(svg.Point(name, x, y, tip, interval([*e.values[page.measure].values()])))
        if not any(p.x for p in marks):
            continue
        reach = [v for p in marks for v in (p.y, *(p.ends or ()))]
        told = f"{page.measure} against {unit}; lines are 95 % bootstrap intervals"
        axes = svg.spread([p.x for p in marks], unit), svg.around(reach, page.measure)
        figures.append(_figure(told, svg.points(marks, *axes, told)))
    return _section("Cost and quality", "".join(figures)) if figures else ""


def _decisive(page: Page) -> str:
    blocks: list[str] = []
    for name in page.others:
        hurt, helped = decisive(page.changes(name))
        lists = [
            f"<h3>{kind}</h3>" + "".join(_change(page, name, c) for c in of)
            for kind, of in (("Most hurt", hurt), ("Most helped", helped))
            if of
        ]
        if lists:
            opened = "" if blocks else ' open="open"'
            summary = f"<summary>{escape(name)} against {escape(page.baseline)}, by {escape(page.measure)}</summary>"
            blocks.append(f"<details{opened}>{summary}{''.join(lists)}</details>")
    return _section("Queries that decide", "".join(blocks)) if blocks else ""


def _change(page: Page, system: str, c: Change) -> str:
    lists = "".join(
        f'<div><span class="muted">{escape(name)}</span>{_hits(page, name, c.query)}</div>'
        for name in (page.baseline, system)
    )
    return (
        f'<div class="query"><b>{c.before:.3f} → {c.after:.3f}</b> {escape(_asked(page, c.query))}'
        f'<div class="pair">{lists}</div></div>'
    )


def _hits(page: Page, system: str, query: str) -> str:
    items = []
    for doc in ordered(page.runs[system].get(query, {}))[:HITS]:
        grade = page.qrels[query].get(doc)
        tag = "not judged" if grade is None else f"grade {grade}"
        text = page.docs[doc].contents if doc in page.docs else ""
        text = text[:LETTERS] + "…" if len(text) > LETTERS else text
        kind = " good" if grade is not None and grade > 0 else ""
        items.append(f'<li><span class="tag{kind}">{tag}</span> {escape(f"{doc} {text}".strip())}</li>')
    return f"<ol>{''.join(items)}</ol>" if items else '<p class="muted">nothing found</p>'


def _all_values(page: Page) -> str:
    values = {name: e.values[page.measure] for name, e in page.evaluations.items()}
    queries = dict.fromkeys(q for of in values.values() for q in of)
    rows = [
        [q, *(f"{of[q]:.4f}" if q in of else "" for of in values.values()), page.queries.get(q, "")] for q in queries
    ]
    table = _table(["query", *values, "text"], rows, text=("text",))
    return f"<section><details><summary>{escape(page.measure)} of every query</summary>{table}</details></section>"


def _asked(page: Page, query: str) -> str:
    """A query's id and its text, where it is known."""
    return f"{query}: {page.queries[query]}" if query in page.queries else query


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _figure(caption: str, plot: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{plot}</figure>"


def _legend(names: Sequence[str]) -> str:
    keys = "".join(f'<li class="{svg.colour(i)}"><i></i>{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{keys}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], text: Sequence[str] = ("measure",)) -> str:
    kinds = [' class="text"' if name in text else "" for name in head]

    def row(cells: Sequence[object], tag: str) -> str:
        shown = (c if isinstance(c, Html) else escape(str(c)) for c in cells)
        return "<tr>" + "".join(f"<{tag}{k}>{c}</{tag}>" for k, c in zip(kinds, shown, strict=True)) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _ends(ends: tuple[float, float] | None) -> str:
    return f"[{figure(ends[0])}, {figure(ends[1])}]" if ends else "–"


def _p(p: float | None) -> str:
    return "–" if p is None else f"{p:.4f}" if p >= 0.0001 else "<.0001"
