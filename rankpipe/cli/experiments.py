"""An experiment from recipe to table; shared by ``run`` and ``demo``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rankpipe import store, trec
from rankpipe.cli import rankings_out, show
from rankpipe.measure.experiment import Experiment, Outcome
from rankpipe.measure.ranking import Evaluation
from rankpipe.measure.report import Page
from rankpipe.measure.report import report as draw
from rankpipe.measure.results import Result, expected, file

SHOWN = 10  # hits of each query whose texts the report may need


def experiment(
    made: Experiment, *, report: bool = True, examples: int = 0, explained: str = "", **how: Any
) -> list[str]:
    """Run, evaluate, file and show.

    :param examples: queries to show with their top hits.
    :param explained: what to read under the table.
    :param how: it is run; see :meth:`Experiment.run`.
    :return: the recipe's bounds that are broken.
    """
    with show.going_on(f"what is done is kept in {made.folder}; to go on from there"):
        outcomes = made.run(**how)
    result, evaluations = made.measure(outcomes)
    filed = file(result, made.folder)
    runs = store.read_manifest(made.folder).path
    places = {"indexes": ", ".join(map(str, made.indexes)), "runs": str(runs), "result": str(filed)}
    if report:
        places["report"] = str(made.folder / "report.html")
        draw(made.folder / "report.html", _page(made, outcomes, result, evaluations))
    broken = expected(result, made.tree.get("expect", {}))

    def human() -> None:
        _table(made, result)
        if explained:
            show.out.print(explained, style="italic", highlight=False)
        for outcome in outcomes[-1:]:
            for ranking in outcome.rankings[:examples]:
                rankings_out.hits(ranking, 3)
        for name, place in places.items():
            show.out.print(f"{name:9}{place}", highlight=False, soft_wrap=True)
        for bound in broken:
            show.warn(f"outside the recipe's bounds: {bound}")

    show.emit({**asdict(result), "broken": broken, **places}, human)
    return broken


def _page(made: Experiment, outcomes: list[Outcome], result: Result, evaluations: dict[str, Evaluation]) -> Page:
    return Page(
        f"{made.name}: {made.data.name}",
        {made.baseline: evaluations[made.baseline], **evaluations},  # a report's first is its baseline
        {o.system.name: trec.to_run(o.rankings) for o in outcomes},
        made.data.qrels,
        costs={name: system.costs for name, system in result.systems.items()},
        queries={q.id: q.text for q in made.data.queries},
        docs={h.doc.id: h.doc for o in outcomes for r in o.rankings for h in r.hits[:SHOWN]},
        facts={"commit": result.commit, "recipe": result.recipe_hash, "data": result.data.checksum},
    )


def _table(made: Experiment, result: Result) -> None:
    """Each system's figures, and what each of its stages cost."""
    rows = []
    for name, system in result.systems.items():
        figures = [f"{system.values[m].mean:.4f}" for m in made.measures]
        tokens = sum(c.tokens_in + c.tokens_out for c in system.costs)
        rows.append(
            (name, *figures, f"{system.judged_at_10:.2f}", system.queries, f"{system.seconds:.3f}", f"{tokens:.0f}")
        )
    columns = ("system", *made.measures, "Judged@10", "queries", "s/query", "tokens/query")
    show.table(f"{made.name}: {result.data.name}", columns, rows)
    costs: dict[tuple[object, ...], None] = {}  # a stage that two systems share is one row, where it did the same
    for system in result.systems.values():
        for c in system.costs:
            row = (f"{c.seconds:.3f}", f"{c.calls:.1f}", f"{c.tokens_in:.0f}", f"{c.tokens_out:.0f}")
            costs[c.stage, system.queries, *row, c.repaired, c.cut, c.skipped] = None
    stages = list(costs)
    counts = ("calls", "tokens in", "tokens out", "repaired", "cut", "skipped")
    show.costs(("stage, mean of a query", "queries", "seconds", *counts), stages)
    for policy in dict.fromkeys(s.policy for s in result.systems.values()):
        show.remark(policy)
