"""Rankings as a person, a file or a program wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankpipe import trec
from rankpipe.cli import beside, show
from rankpipe.data import Doc, Ranking
from rankpipe.errors import several

SHOWN_QUERIES, SHOWN_HITS = 3, 10
COUNTS = ("calls", "tokens_in", "tokens_out", "repaired", "cut", "skipped")  # of a step


def tell(
    rankings: Sequence[Ranking],
    out: Path | None,
    *,
    ledger: bool = False,
    asked: Any = None,
    fields: Sequence[str] = (),
) -> None:
    """Write the rankings where asked; show a few, or all as JSON.

    :param ledger: whether one was kept.
    :param asked: a stage or a language model, to say what it has cost.
    :param fields: of documents, to be shown, too.
    """
    summary: dict[str, Any] = {
        "queries": len(rankings),
        "hits": sum(len(r.hits) for r in rankings),
        "without_hits": sum(not r.hits for r in rankings),
        "steps": totals(rankings),
    }
    if cost := spent(asked):
        summary["lm"] = cost
    if ledger and out is not None:
        summary["ledger"] = str(beside.ledger(out))
    if out is not None:
        summary["out"] = str(out)
        summary["scores_lowered"] = write(out, rankings)
    else:
        summary["rankings"] = [as_json(r, fields) for r in rankings]

    def human() -> None:
        if out is None or len(rankings) == 1:
            for ranking in rankings[:SHOWN_QUERIES]:
                _best(ranking, fields)
            if len(rankings) > SHOWN_QUERIES:
                more = several(len(rankings) - SHOWN_QUERIES, "more query", "more queries")
                show.remark(f"... and {more}; --out FILE writes them all")
        costs(rankings)
        for part, told in summary.get("lm", {}).items():
            show.remark(f"{part}: " + ", ".join(f"{n:g} {name.replace('_', ' ')}" for name, n in told.items()))
        if out is not None:
            queries, made = several(len(rankings), "query", "queries"), several(summary["hits"], "hit")
            show.out.print(f"{queries}, {made}: {out}", highlight=False)
            if summary["scores_lowered"]:
                lowered = several(summary["scores_lowered"], "tied score was", "tied scores were")
                show.remark(f"{lowered} lowered by the least step, to keep the order")
        if ended := sum(any(s.skipped for s in r.steps) for r in rankings):
            show.warn(
                f"{ended} of {several(len(rankings), 'query was', 'queries were')} ended by the budget, with the best "
                "order that there was"
            )
        if "ledger" in summary:
            show.remark(f"what was asked and said: rankpipe view {out}")
        if not rankings:
            show.warn("there was no query; so there is nothing in it")
        if summary["without_hits"]:
            have = several(len(rankings), "query has", "queries have")
            show.warn(f"{summary['without_hits']} of {have} no hit at all")

    show.emit(summary, human)


def spent(asked: Any) -> dict[str, dict[str, float]]:
    """What a stage or a language model, and what it asks in turn, have counted since they were made."""
    found = {}
    while asked is not None:
        if totals := getattr(asked, "totals", None):
            found[type(asked).__name__.lower()] = asdict(totals)
        asked = getattr(asked, "inner", None) or getattr(asked, "lm", None)
    return found


def write(path: Path, rankings: Sequence[Ranking]) -> int:
    """``.jsonl`` or ``.jsonl.gz`` with texts, otherwise a TREC run; how many tied scores had to be lowered."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        from rankpipe.datasets import write_requests

        write_requests(path, rankings)
        return 0
    return trec.write_run(path, rankings)


def hits(ranking: Ranking, count: int = SHOWN_HITS, fields: Sequence[str] = ()) -> None:
    """One query's best hits, with their texts."""
    rows = [
        (rank, h.doc.id, f"{h.score:.4f}", *_cells(h.doc, fields), _short(h.doc.contents, 200))
        for rank, h in enumerate(ranking.hits[:count], 1)
    ]
    columns = ("#", "document", "score", *fields, "text")
    show.table(_short(ranking.query.text, 100), columns, rows, text=("document", *fields, "text"))


def _best(ranking: Ranking, fields: Sequence[str]) -> None:
    hits(ranking, fields=fields)
    if (more := len(ranking.hits) - SHOWN_HITS) > 0:
        show.remark(f"... and {several(more, 'more hit')}; --json shows all, --out FILE writes them")


def _short(text: str, most: int) -> str:
    """Its beginning, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 4].rsplit(" ", 1)[0] + " ..."


def _cells(doc: Doc, fields: Sequence[str]) -> list[str]:
    values = _shown(doc, fields)
    return [_short(", ".join(map(str, values[name])), 60) for name in fields]


def _shown(doc: Doc, fields: Sequence[str]) -> dict[str, list[Any]]:
    """All values of some fields."""
    from rankpipe.retrieve.fields import flat

    told = [pair for name, held in doc.fields.items() for pair in flat(name, held)] if fields else []
    return {field: [value for name, value in told if name == field] for field in fields}


def costs(rankings: Sequence[Ranking]) -> None:
    """What each stage cost, in all."""
    rows = [(s["stage"], f"{s['seconds']:.2f}", *(s[name] for name in COUNTS)) for s in totals(rankings)]
    show.costs(("stage", "seconds", *(name.replace("_", " ") for name in COUNTS)), rows)


def totals(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Each stage's cost summed over the queries, in the order of the pipeline."""
    fields = ("seconds", *COUNTS)
    sums: dict[str, dict[str, Any]] = {}
    for ranking in rankings:
        for step in ranking.steps:
            row = sums.setdefault(step.stage, {"stage": step.stage, **dict.fromkeys(fields, 0)})
            for name in fields:
                row[name] += getattr(step, name)
    return list(sums.values())


def as_json(ranking: Ranking, fields: Sequence[str] = ()) -> dict[str, Any]:
    """One ranking, for machines."""
    return {
        "query": {"qid": ranking.query.id, "text": ranking.query.text},
        "hits": [
            {"rank": rank, "docid": h.doc.id, "score": h.score, "title": h.doc.title, "text": h.doc.text}
            | ({"fields": _shown(h.doc, fields)} if fields else {})
            for rank, h in enumerate(ranking.hits, 1)
        ],
    }
