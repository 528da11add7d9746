"""Rows of ``index.py``: what was built, searched and changed, and how ours stands to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any
from unittest.mock import patch

import corpora
from common import Row, Runner, Timed, alone, clocked, peak_mb, race, weight
from typer.testing import CliRunner

from rankpipe.cli import app, changes
from rankpipe.cli import index as verbs
from rankpipe.data import Doc, Query, Ranking
from rankpipe.retrieve import topk
from rankpipe.retrieve.index import Index

OURS, MEMORY = "rankpipe", "1GB"
BOUNDED = f"{OURS}, memory={MEMORY}"
KS = (10, 1000)
SINGLE = 50  # queries that are asked one at a time
WARM = 70  # queries before those that count: what is compiled is compiled by then
CHANGED = 100  # documents of a batch
AT_ONCE, ONE = "all at once", "one at a time"
VERBS = changes, verbs  # which are registered by now
Search = Callable[[Sequence[Query], int], Any]  # for so many hits each
Rows = Iterator[tuple[str, Row]]  # each with the name of its table


def built(work: Callable[[], Any], folder: Path, search: Callable[[], Any]) -> Row:
    """What a build takes, and the memory of opening and searching it, each in a process of its own."""
    seconds, peak = alone(_built, work)
    _, searching = alone(_built, search)
    return {"seconds": seconds, "bytes": weight(folder), "peak_mb": peak, "search_peak_mb": searching}


def found(kind: type[Index], folder: Path, queries: Sequence[Query], k: int = max(KS), **knobs: Any) -> Any:
    """All that an index finds, from its folder."""
    return kind(folder, k, **knobs).run(queries)


def recall(found: Sequence[Ranking], truth: Sequence[Ranking]) -> float:
    """The share of the hits that were to be found."""
    return round(mean(_shared(a, b) for a, b in zip(found, truth, strict=True)), 4)


def _shared(found: Ranking, truth: Ranking) -> float:
    nearest = {h.doc.id for h in truth.hits}
    return len(nearest & {h.doc.id for h in found.hits}) / len(nearest) if nearest else 1.0


def _built(work: Callable[[], Any]) -> tuple[float, int]:
    begun = perf_counter()
    work()
    return perf_counter() - begun, peak_mb()


def compiled(index: Index, queries: Sequence[Query]) -> Sequence[Ranking]:
    """What an index finds by Numba, where it can, as a process does that has searched for a second."""
    with patch.object(topk, "_spent", topk.WORTH):
        return index.run(queries)


def builds(kind: str, made: Mapping[str, Row], documents: int) -> Rows:
    """Rows of what was built; ours is the base."""
    base = made[OURS]["seconds"]
    for name, row in made.items():
        yield "build", {
            "kind": kind, "system": name, "seconds": round(row["seconds"], 2),
            "docs_a_second": round(documents / row["seconds"]), "ours_to_it": round(base / row["seconds"], 3),
            "peak_mb": row["peak_mb"], "search_peak_mb": row.get("search_peak_mb"),
            "bytes_each": round(row["bytes"] / documents),
        }  # fmt: skip


def searched(
    kind: str,
    searches: Mapping[str, Search],
    queries: Sequence[Query],
    k: int,
    times: int,
    also: Callable[[int], Mapping[str, Runner[Any]]] = lambda _: {},
) -> Rows:
    """All queries at once, and some of them one at a time.

    :param also: what is asked in its own process: so many queries, one at a time; all at once if 0.
    """
    for run in searches.values():
        run(queries[:WARM], k)
    rounds: dict[str, dict[str, Runner[Any]]] = {
        AT_ONCE: {n: clocked(partial(run, queries, k)) for n, run in searches.items()} | dict(also(0)),
        ONE: {n: clocked(partial(_singly, run, queries[:SINGLE], k)) for n, run in searches.items()}
        | dict(also(SINGLE)),
    }
    for how, runners in rounds.items():
        done = race(runners, times)
        asked = len(queries) if how == AT_ONCE else SINGLE
        for name, timed in done.items():
            yield "search", {
                "kind": kind, "k": k, "how": how, "system": name,
                "ms_a_query": round(1000 * timed.median / asked, 3), "ours_to_it": ratio(done[OURS], timed),
            }  # fmt: skip


def _singly(run: Search, queries: Sequence[Query], k: int) -> None:
    for query in queries:
        run([query], k)


def ratio(ours: Timed[Any], theirs: Timed[Any]) -> float:
    """The seconds of ours to theirs."""
    return round(ours.median / theirs.median, 3)


def changed(kind: str, index: Index, documents: int, build_s: float) -> Rows:
    """What a batch of changes costs, and each other verb, and as a share of building all anew. What is replaced or
    deleted lies all over the index.
    """
    new, newer = (list(islice(corpora.texts(), start, start + CHANGED)) for start in (documents, documents + CHANGED))
    known = list(islice(corpora.texts(), 7, 7 + CHANGED))
    apart = documents // CHANGED
    steps: dict[str, Callable[[], Any]] = {
        f"add {CHANGED}": lambda: index.add(_named("new", new)),
        f"add {CHANGED}, texts known": lambda: index.add(_named("known", known)),
        f"update {CHANGED}": lambda: index.update([Doc(f"d{apart * i}", text) for i, text in enumerate(newer)]),
        f"delete {CHANGED}": lambda: index.delete([f"d{apart * i + 1}" for i in range(CHANGED)]),
        "open": lambda: type(index)(index.folder),
        "info": lambda: _verb("info", index.folder),
        "verify": lambda: _verb("verify", index.folder),
        "export": lambda: _verb("export", index.folder, "--out", index.folder.parent / "exported.jsonl", "--force"),
        "compact": index.compact,
    }
    for name, step in steps.items():
        seconds, _ = clocked(step)()
        share = round(100 * seconds / build_s, 3)
        yield "changes", {"kind": kind, "change": name, "seconds": round(seconds, 3), "percent_of_build": share}


def _verb(name: str, *words: Path | str) -> None:
    """``rankpipe index ...``, but for the start of a process."""
    done = CliRunner().invoke(app, ["index", name, *map(str, words)])
    assert done.exit_code == 0, done.output


def _named(name: str, texts: Sequence[str]) -> list[Doc]:
    return [Doc(f"{name}{i}", text) for i, text in enumerate(texts)]
