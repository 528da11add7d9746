"""eval, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import app, options, show
from rankpipe.errors import several
from rankpipe.trec import Run

if TYPE_CHECKING:
    from rankpipe.datasets import Dataset
    from rankpipe.measure import Comparison, Evaluation

Runs = Annotated[list[Path], typer.Argument(help="TREC runs, or .jsonl rankings.")]


@show.verb(app, "eval")
def evaluate(
    runs: Runs,
    data: options.DataOrNone = None,
    split: options.Split = "test",
    self_match: options.SelfMatch = None,
    topics: options.Topics = None,
    qrels: options.QrelsFile = None,
    measures: options.Measures = None,
    retrieved_only: options.RetrievedOnly = False,
    per_query: Annotated[bool, typer.Option("--per-query", help="Print each query's values, too.")] = False,
    report: options.Report = None,
) -> None:
    """Evaluate runs, as trec_eval does.

    rankpipe eval run.trec --data beir/scifact/test
    rankpipe eval a.trec b.trec --qrels qrels.txt -m nDCG@10 -m map --report report.html
    """
    from rankpipe.measure import evaluate
    from rankpipe.measure.report import Page
    from rankpipe.measure.report import report as draw

    opened = options.judged(data, topics, qrels, split, self_match)
    read = {_name(path, runs): _read(path, opened) for path in runs}
    texts = {q.id: q.text for q in opened.queries}
    average: Any = "retrieved" if retrieved_only else "judged"
    asked = options.measured(measures)
    made = {name: evaluate(run, opened.qrels, asked, average=average) for name, run in read.items()}
    if report is not None:
        draw(report, Page("Evaluation", made, read, opened.qrels, queries=texts))

    def human() -> None:
        _figures(made, asked)
        if per_query:
            for name, e in made.items():
                cells = [(q, *(f"{e.values[m][q]:.4f}" for m in asked)) for q in e.queries]
                show.table(name, ("query", *asked), cells)

    result = {name: _told(e) | ({"values": e.values} if per_query else {}) for name, e in made.items()}
    show.emit(result, human)


@show.verb(app, "compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="The baseline first, then one or more runs to compare with it.")],
    data: options.DataOrNone = None,
    split: options.Split = "test",
    self_match: options.SelfMatch = None,
    topics: options.Topics = None,
    qrels: options.QrelsFile = None,
    measures: options.Measures = None,
    retrieved_only: options.RetrievedOnly = False,
    fail_if_worse: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE",
            help="Exit with 10 if a run is significantly worse by MEASURE (Holm, over the runs).",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="The level of significance.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the resampling tests.")] = 0,
    report: options.Report = None,
) -> None:
    """Compare runs with a baseline: paired tests, intervals, and the queries that decide.

    rankpipe compare bm25.trec reranked.trec --data beir/scifact/test
    rankpipe compare main.trec branch.trec --qrels qrels.txt --fail-if-worse nDCG@10
    """
    from rankpipe.measure import compare, worse
    from rankpipe.measure.report import Page
    from rankpipe.measure.report import report as draw

    opened = options.judged(data, topics, qrels, split, self_match)
    read = {_name(path, runs): _read(path, opened) for path in runs}
    texts = {q.id: q.text for q in opened.queries}
    average: Any = "retrieved" if retrieved_only else "judged"
    asked = list(dict.fromkeys([*options.measured(measures), *([fail_if_worse] if fail_if_worse else [])]))
    made = compare(read, opened.qrels, asked, average=average, seed=seed)
    regressions = worse(made, fail_if_worse, alpha) if fail_if_worse else []
    if report is not None:
        draw(report, Page("Comparison", made.evaluations, read, opened.qrels, made, queries=texts))

    def verdict() -> None:
        if fail_if_worse and not regressions:
            show.out.print(f"no run is significantly worse by {fail_if_worse}", highlight=False)
        for d in regressions:
            show.warn(f"{d.system} is significantly worse by {d.measure}: {d.delta:+.4f}")

    tell(made, asked, texts, verdict, worse=[d.system for d in regressions])
    if regressions:
        raise typer.Exit(10)


def tell(
    made: Comparison,
    asked: Sequence[str],
    texts: dict[str, str],
    verdict: Callable[[], None] = lambda: None,
    **more: Any,
) -> None:
    """All of a comparison.

    :param asked: the measures.
    :param texts: of the queries.
    :param verdict: what a person is told last.
    :param more: what else machines are told.
    """

    def human() -> None:
        _figures(made.evaluations, asked)
        _differences(made)
        for system, overlap in made.overlap.items():
            show.remark(f"{system}: rank overlap with {made.baseline} (RBO, p = 0.9) {overlap:.3f}")
        _decisive(made.differences, texts)
        for warning in made.warnings:
            show.warn(warning)
        verdict()

    result = {
        "baseline": made.baseline, "differences": [asdict(d) for d in made.differences], "overlap": made.overlap,
        "evaluations": {name: _told(e) for name, e in made.evaluations.items()}, "warnings": made.warnings,
    }  # fmt: skip
    show.emit(result | more, human)


def _figures(made: Mapping[str, Evaluation], asked: Sequence[str]) -> None:
    """The means, and what they are means of."""
    rows = [
        (name, *(f"{e.means[m]:.4f}" for m in asked), f"{e.judged_at_10:.4f}", len(e.queries), len(e.missing))
        for name, e in made.items()
    ]
    show.table("", ("run", *asked, "Judged@10", "queries", "missing"), rows)
    policies = list(dict.fromkeys(e.policy for e in made.values()))
    for name, e in made.items() if len(policies) > 1 else (("", next(iter(made.values()))),):
        show.out.print(f"{name}: {e.policy}" if name else e.policy, style="dim", highlight=False, soft_wrap=True)


def _told(e: Evaluation) -> dict[str, Any]:
    """An evaluation, for machines."""
    return {
        "means": e.means, "judged_at_10": e.judged_at_10, "policy": e.policy, "queries": len(e.queries),
        "judged": len(e.judged), "missing": len(e.missing), "without_judgements": len(e.unjudged_queries),
    }  # fmt: skip


def _differences(made: Comparison) -> None:
    """Each system against the baseline, measure by measure; the means themselves are in the table above."""
    for system in dict.fromkeys(d.system for d in made.differences):
        rows = [
            (
                d.measure, f"{d.delta:+.4f}", _interval(d.interval), _p(d.t_holm), _p(d.randomisation_holm),
                f"{d.wins}/{d.ties}/{d.losses}",
            )
            for d in made.differences if d.system == system
        ]  # fmt: skip
        columns = ("measure", "delta", "95 %", "p (t)", "p (rand.)", "W/T/L")
        show.table(f"{system} against {made.baseline}; p-values Holm-corrected", columns, rows)


def _decisive(differences: Any, texts: dict[str, str]) -> None:
    """The queries most hurt and most helped, by the first measure of each system."""
    for system in dict.fromkeys(d.system for d in differences):
        first = next(d for d in differences if d.system == system)
        rows = [
            (kind, c.query, f"{c.before:.3f}", f"{c.after:.3f}", texts.get(c.query, ""))
            for kind, changes in (("hurt", first.hurt), ("helped", first.helped))
            for c in changes
        ]
        if rows:
            title = f"{system}: queries that decide {first.measure}"
            show.table(title, ("", "query", "before", "after", "text"), rows, text=("query", "text"))


def _read(path: Path, opened: Dataset) -> Run:
    """A run of either format; what is odd about it, and what the collection's policy drops, is said."""
    from rankpipe import trec
    from rankpipe.datasets import read_requests

    if path.name.removesuffix(".gz").endswith(".jsonl"):
        run = trec.to_run(read_requests(path))
    else:
        read = trec.read_run(path)
        run = read.run
        for oddity in read.oddities:
            show.warn(oddity)
    run, dropped = opened.without_self_matches(run)
    if dropped:
        show.remark(f"{path}: {several(dropped, 'hit')} dropped, being the query itself ({opened.name} does so)")
    return run


def _name(path: Path, runs: list[Path]) -> str:
    """The file's name, or its whole path where two files have the same."""
    return path.name if [p.name for p in runs].count(path.name) == 1 else str(path)


def _interval(ends: tuple[float, float] | None) -> str:
    return f"[{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else "-"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value >= 0.0001 else "<.0001"
