"""The part of ``index.py`` that is about our other kinds: learned sparse, late interaction, Lucene where it is there.

Models are quick ones (``quick.py``), for what is asked is what an index costs, not its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from index_rows import (
    BOUNDED,
    KS,
    MEMORY,
    OURS,
    SINGLE,
    Rows,
    builds,
    built,
    changed,
    compiled,
    found,
    recall,
    searched,
)

from rankpipe import ColBERT, Lucene, SparseIndex
from rankpipe.data import Query
from rankpipe.datasets import Dataset

TOKENS_MOST = 100_000  # documents; of more, their tokens' vectors take too much of a disk
TOKENS_ASKED = 60  # queries; a thousand candidates of long texts take each of them a quarter of a second
CANDIDATES = 100  # that are compared exactly, at least


class Kind(NamedTuple):
    """What is built, how, and how many queries it is asked."""

    made: type[SparseIndex | ColBERT | Lucene]
    told: dict[str, Any] = {}  # noqa: RUF012  nobody writes into it
    asked: int | None = None


def kinds(documents: int) -> Iterator[Kind]:
    """Those that can be had, of so many documents."""
    yield Kind(SparseIndex, {"model": "quick:Words"})
    if documents <= TOKENS_MOST:
        yield Kind(ColBERT, {"model": "quick:Tokens"}, TOKENS_ASKED)
    if find_spec("pyserini"):
        yield Kind(Lucene)


def others(data: Dataset, queries: Sequence[Query], scratch: Path, times: int) -> Rows:
    """Every kind: built, searched, changed."""
    assert data.corpus
    documents = data.corpus.count
    for made, told, asked in kinds(documents):
        knobs = {k: {"candidates": max(k, CANDIDATES)} if made is ColBERT else {} for k in KS}
        some, most = queries[:asked], max(KS)
        build = partial(made.build, data, **told)
        ours, less = scratch / made.kind, scratch / f"bounded-{made.kind}"
        rows = {
            OURS: built(partial(build, ours), ours, partial(found, made, ours, some, **knobs[most])),
            BOUNDED: built(partial(build, less, memory=MEMORY), less, partial(found, made, less, some, **knobs[most])),
        }
        yield from builds(made.kind, rows, documents)
        own = {k: made(ours, k, **knobs[k]) for k in KS}
        few, exact = queries[:SINGLE], made(ours, KS[0])
        for k in KS:
            measured = recall(own[k].run(few), exact.run(few)) if knobs[k] and k == KS[0] else None
            searches = {OURS: lambda asked, k, own=own: compiled(own[k], asked)}
            for name, row in searched(made.kind, searches, some, k, times):
                yield name, row | {"recall_at_10": measured}
        yield from changed(made.kind, own[KS[0]], documents, rows[OURS]["seconds"])
