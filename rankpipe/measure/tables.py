"""Tables in README, docs and cards, written from result files: no figure is typed by hand.

A table stands between two comments, each alone on its line::

    <!-- table: eval/scifact nDCG@10 R@100 -->
    <!-- /table -->

The first word is a folder with ``results/*.json``, from the root of the house; its newest result is shown. The others
choose the columns: measures of an experiment (all of them if none is named) and what its stages cost together
(``calls``, ``tokens_in``, ``tokens_out``, ``repaired``, ``cut``, ``skipped``), or keys of the ``rows`` of a benchmark's
result, which is any JSON object with ``created`` and a list of objects under ``rows``. A column may be renamed:
``seconds_per_query=s/query``, where ``~`` stands for a space.

``<!-- table: catalog rankpipe.train.heads *-head -->`` has the components of a room by all their names, or only those
that are called so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from rankpipe.catalog import CATALOG, near
from rankpipe.errors import DataError
from rankpipe.measure.results import Cost, Result, Value, latest, read, read_json

OPEN = re.compile(r"<!-- table: (.+?) -->")
CLOSE = "<!-- /table -->"
RENAMED = re.compile(r"=(?![^(]*\))")  # not the one in R(rel=2)@100


def rewrite(text: str, root: Path) -> str:
    """The text with every table made anew; the same text if all are up to date.

    :param root: where the folders named in the text start.
    :raises DataError: If a table is not closed, or names a column that its result has not; says the line.
    :raises ArtefactError: If there is no result to show.
    """
    out: list[str] = []
    opened = 0
    for number, line in enumerate(text.split("\n"), 1):
        found = OPEN.fullmatch(line.strip())
        if opened and found:
            break
        if found:
            try:
                out += [line, *table(found[1].split(), root)]
            except DataError as error:
                raise DataError(f"line {number}: {error}") from None
            opened = number
        elif line.strip() == CLOSE and opened:
            out.append(line)
            opened = 0
        elif not opened:
            out.append(line)
    if opened:
        raise DataError(f"line {opened}: this table is not closed; end it with a line {CLOSE}")
    return "\n".join(out)


def table(words: Sequence[str], root: Path) -> list[str]:
    """The lines of one table: a folder, then its columns, or ``against`` for paired tests of an experiment's systems
    against its baseline; or ``catalog``, a room, and perhaps what names are like.

    :raises DataError: If a column is none of the result's.
    :raises ArtefactError: If there is no result.
    """
    if words[0] == "catalog":
        return _components(*words[1:])
    path = latest(root / words[0])
    columns = [RENAMED.split(w, maxsplit=1) for w in words[1:]]
    chosen = {key.replace("~", " "): (title[0] if title else key).replace("~", " ") for key, *title in columns}
    tree = read_json(path)
    if "rows" in tree:
        return _markdown(*_rows(tree["rows"], chosen), _origin(tree))
    if words[1:] == ["against"]:
        return _markdown(*_against(read(path)), _origin(tree))
    return _markdown(*_systems(read(path), chosen), _origin(tree))


def figure(x: float, sign: Literal["-", "+"] = "-") -> str:
    """A measure as the literature writes it: ``.6762``, ``1.0000``; differences with their sign, ``+.0157``."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{x:{sign}.4f}")


def _components(room: str, like: str = "*") -> list[str]:
    """What the catalogue has there, a line for each; by all its names."""
    named: dict[str, list[str]] = {}
    for name, entry in CATALOG.items():
        if entry.target.startswith(room) and fnmatch(name, like):
            named.setdefault(entry.target, []).append(name)
    if not named:
        raise DataError(f"the catalogue has nothing in {room!r}")
    rows = [f"| {', '.join(f'`{n}`' for n in names)} | {CATALOG[names[0]].about} |" for names in named.values()]
    return ["", "| name | what |", "| --- | --- |", *rows, ""]


def _systems(result: Result, chosen: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    measures = chosen or {m: m for s in result.systems.values() for m in s.values}
    costs = [f.name for f in fields(Cost)[2:]]
    _refuse(measures, [*(m for s in result.systems.values() for m in s.values), *costs])
    head = ["system", *measures.values(), "Judged@10", "queries", "s/query"]
    rows = []
    for name, s in result.systems.items():
        queries = f"{s.queries}" + (f" ({s.missing} missing)" if s.missing else "")
        spent = {name: _number(sum(getattr(c, name) for c in s.costs)) for name in costs}
        shown = [_interval(s.values[m]) if m in s.values else spent.get(m, "") for m in measures]
        rows.append([name, *shown, figure(s.judged_at_10), queries, _number(s.seconds) if s.costs else ""])
    return head, rows


def _against(result: Result) -> tuple[list[str], list[list[str]]]:
    head = [
        f"against {result.baseline}",
        "measure",
        "difference",
        "p, randomisation",
        "p, t-test",
        "p, randomisation, Holm",
    ]
    rows = []
    for name, of_measure in result.against.items():
        for measure, d in of_measure.items():
            between = "" if d.low is None or d.high is None else f" [{figure(d.low, '+')}, {figure(d.high, '+')}]"
            ps = ["" if p is None else figure(p) for p in (d.randomisation_p, d.t_p, d.randomisation_holm)]
            rows.append([name, measure, figure(d.delta, "+") + between, *ps])
    return head, rows


def _rows(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    known = {key: key.replace("_", " ") for row in rows for key in row}
    _refuse(chosen, known)
    columns = chosen or known
    return [*columns.values()], [[_cell(row.get(key)) for key in columns] for row in rows]


def _refuse(columns: Iterable[str], known: Iterable[str]) -> None:
    for column in columns:
        if column not in known:
            raise DataError(f"the result has no {column!r}{near(column, sorted(known))}")


def _interval(value: Value) -> str:
    if value.low is None or value.high is None:
        return figure(value.mean)
    return f"{figure(value.mean)} [{figure(value.low)}, {figure(value.high)}]"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(x: float) -> str:
    """Three significant digits, but whole numbers in full; thousands apart."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _origin(tree: Mapping[str, Any]) -> str:
    """Where the figures come from, in one line; what the result doesn't say is left out."""
    data, machine = tree.get("data") or {}, tree.get("machine") or {}
    parts = [
        f"{data['name']} ({data['checksum'][:12]})" if data else "",
        f"recipe {tree['recipe_hash']}" if "recipe_hash" in tree else "",
        f"commit {tree['commit']}" if "commit" in tree else "",
        f"seed {tree['seed']}" if "seed" in tree else "",
        f"{machine['cpu']}, {machine['cores']} cores" if machine else "",
        tree["created"][:10],
    ]
    policies = {s["policy"] for s in tree.get("systems", {}).values()}
    if len(policies) == 1:
        parts.insert(0, next(iter(policies)))
    if "systems" in tree:
        parts.insert(0, "95 % bootstrap intervals")
    return "*" + "; ".join(p for p in parts if p) + ".*"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    rule = "| " + " | ".join(["---", *["---:"] * (len(head) - 1)]) + " |"
    return ["", lines[0], rule, *lines[1:], "", note, ""]
