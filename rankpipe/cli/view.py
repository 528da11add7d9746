"""view: what a language model was shown, and what it said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import app, beside, show
from rankpipe.errors import several

if TYPE_CHECKING:
    from rankpipe.rerank.ledger import Entry

COSTS = ("tokens_in", "tokens_out", "cut", "cut_words", "seconds")  # of a window


@show.verb(app, "view")
def view(
    run: Annotated[Path, typer.Argument(help="A run that was made with rerank --ledger.")],
    query: Annotated[str | None, typer.Option("--query", "-Q", help="Only this query, window by window.")] = None,
    window: Annotated[
        int | None, typer.Option("--window", "-w", min=1, help="Of that query: the whole prompt and reply.")
    ] = None,
) -> None:
    """Show what a language model was shown and what it said: in all, for a query, or in one window.

    rankpipe view reranked.trec
    rankpipe view reranked.trec --query 1037798
    rankpipe view reranked.trec --query 1037798 --window 9
    """
    from rankpipe.errors import DataError
    from rankpipe.rerank import ledger

    path = beside.windows(run)
    entries, ended = ledger.read(path), ledger.ended(path)
    if query is None:
        if window is not None:
            raise DataError(f"--window {window}: of which query? --query ID says")
        _all(entries, ended)
        return
    mine = [e for e in entries if e.query == query]
    if not mine and query not in ended:
        raise DataError(f"{path}: no window of query {query!r}; it has {_some(_queries(entries))}")
    if window is None:
        show.emit([asdict(e) for e in mine], lambda: _query(query, mine, ended))
    elif window > len(mine):
        raise DataError(f"{path}: query {query!r} has {several(len(mine), 'window')}, no number {window}")
    else:
        show.emit(asdict(mine[window - 1]), lambda: _window(mine[window - 1]))


def _some(queries: Sequence[str]) -> str:
    return ", ".join(queries[:10]) + (", ..." if len(queries) > 10 else "")


def _all(entries: Sequence[Entry], ended: Mapping[str, int]) -> None:
    """Replies by kind, and each query's costs.

    :param ended: query -> calls that its budget did not allow.
    """
    from rankpipe.rerank.ledger import KINDS, kinds

    counted = kinds(entries)
    rows: list[dict[str, Any]] = []
    for query in dict.fromkeys([*_queries(entries), *ended]):
        mine = [e for e in entries if e.query == query]
        costs = {name: sum(getattr(e, name) for e in mine) for name in COSTS}
        rows.append({"query": query, "windows": len(mine), "skipped": ended.get(query, 0), **kinds(mine), **costs})
    shares = {kind: round(100 * counted[kind] / max(len(entries), 1), 2) for kind in KINDS}

    def human() -> None:
        table = [(kind, counted[kind], f"{shares[kind]:.2f}") for kind in KINDS]
        show.table(f"{len(entries)} replies", ("kind", "replies", "%"), table)
        for title, names in (
            ("Replies by query", ("query", "windows", *KINDS)),
            ("Costs by query", ("query", *COSTS, "skipped")),
        ):
            cells = [_cells(row[name] for name in names) for row in rows]
            show.table(title, [name.replace("_", " ") for name in names], cells)

    show.emit({"windows": len(entries), "kinds": counted, "percent": shares, "queries": rows}, human)


def _query(query: str, entries: Sequence[Entry], ended: Mapping[str, int]) -> None:
    columns = ("window", "shown", "understood", "kind", "words", *(name.replace("_", " ") for name in COSTS))
    rows = [
        (i, " ".join(e.docs), " ".join(e.order), e.kind, e.words, *_cells(getattr(e, name) for name in COSTS))
        for i, e in enumerate(entries, 1)
    ]
    show.table(f"query {query}", columns, rows, text=("shown", "understood", "kind"))
    if query in ended:
        show.remark(f"ended by the budget: {several(ended[query], 'more call was', 'more calls were')} skipped")


def _window(entry: Entry) -> None:
    for message in entry.messages:
        show.out.print(f"{message['role']}:", style="bold", markup=False, highlight=False)
        show.out.print(message["content"], markup=False, highlight=False, soft_wrap=True)
    show.out.print("reply:", style="bold", markup=False, highlight=False)
    show.out.print(entry.reply, markup=False, highlight=False, soft_wrap=True)
    show.remark(
        f"{entry.kind}: {entry.missing} missing, {entry.repeated} repeated, {entry.foreign} foreign; "
        f"{entry.cut_words} words of {entry.cut} passages not shown; "
        f"{entry.tokens_in} tokens in, {entry.tokens_out} out, {entry.seconds:.2f} s"
    )
    show.out.print("order: " + " ".join(entry.order), markup=False, highlight=False, soft_wrap=True)


def _cells(values: Iterable[Any]) -> list[Any]:
    return [f"{v:.2f}" if isinstance(v, float) else v for v in values]


def _queries(entries: Sequence[Entry]) -> list[str]:
    return [*dict.fromkeys(e.query for e in entries)]
