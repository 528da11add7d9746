"""The part of ``index.py`` that is about words: BM25 beside bm25s and Pyserini."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rivals
from common import Runner, weight
from index_rows import BOUNDED, KS, MEMORY, OURS, Rows, Search, builds, built, changed, compiled, found, searched

from rankpipe import BM25
from rankpipe.data import Query
from rankpipe.datasets import Dataset
from rankpipe.onnx import cores
from rankpipe.retrieve import topk

PYSERINI = "Pyserini, ids, all threads"


def _lucene(lucene: rivals.Pyserini | None, k: int, singly: int) -> Mapping[str, Runner[Any]]:
    if not lucene:
        return {}
    threads = {} if singly else {PYSERINI: partial(lucene.run, "search", "ids", k, threads=cores())}
    return lucene.runners("search", k, singly) | threads


def _bm25s_found(folder: Path, queries: Sequence[Query], *, texts: bool) -> Any:
    return rivals.bm25s_search(rivals.bm25s_load(folder, texts=texts), queries, max(KS))


def interpreted(index: BM25, queries: Sequence[Query]) -> Any:
    """What an index finds without Numba."""
    with patch.object(topk, "_given_up", True):
        return index.run(queries)


def by_one(index: BM25, queries: Sequence[Query]) -> Any:
    """The same by one thread."""
    with patch.object(topk, "cores", lambda: 1):
        return compiled(index, queries)


def words(data: Dataset, queries: Sequence[Query], scratch: Path, python: Path | None, times: int) -> Rows:
    """BM25, beside bm25s as it is (two arrays are found), by Numba, and with its documents, and Pyserini; threads are
    one, but for ours and where it is said.
    """
    assert data.corpus
    corpus, ours = data.corpus.path, scratch / "bm25"
    less, bare, whole = scratch / "bounded", scratch / "bm25s", scratch / "bm25s-texts"
    made = {
        OURS: built(partial(BM25.build, data, ours), ours, partial(found, BM25, ours, queries)),
        BOUNDED: built(partial(BM25.build, data, less, memory=MEMORY), less, partial(found, BM25, less, queries)),
    }
    for name, folder, texts in (("bm25s, arrays", bare, False), ("bm25s, texts", whole, True)):
        build = partial(rivals.bm25s_saved, corpus, folder, texts=texts)
        made[name] = built(build, folder, partial(_bm25s_found, folder, queries, texts=texts))
    with rivals.pyserini(python, scratch / "corpus", queries, scratch) as lucene:
        if lucene:
            for name, build in lucene.runners("index").items():
                seconds, _ = build()
                [folder] = scratch.glob(f"lucene-{name.split()[-1]}-*")
                made[name] = {"seconds": seconds, "bytes": weight(folder), "peak_mb": lucene.peak_mb}
        yield from builds("bm25", made, data.corpus.count)
        arrays, whole_texts = rivals.bm25s_load(bare, texts=False), rivals.bm25s_load(whole, texts=True)
        own, machine = {k: BM25(ours, k) for k in KS}, rivals.bm25s_compiled(bare)
        searches: dict[str, Search] = {
            OURS: lambda asked, k: compiled(own[k], asked),
            f"{OURS}, one thread": lambda asked, k: by_one(own[k], asked),
            f"{OURS}, looked at": lambda asked, k: [[hit.doc.id for hit in r.hits] for r in compiled(own[k], asked)],
            f"{OURS}, no Numba": lambda asked, k: interpreted(own[k], asked),
            "bm25s, arrays": lambda asked, k: rivals.bm25s_search(arrays, asked, k),
            "bm25s, arrays, Numba": lambda asked, k: rivals.bm25s_search(machine, asked, k),
            "bm25s, arrays, Numba, all threads": lambda asked, k: rivals.bm25s_search(machine, asked, k, cores()),
            "bm25s, texts": lambda asked, k: rivals.bm25s_search(whole_texts, asked, k),
        }
        for k in KS:
            yield from searched("bm25", searches, queries, k, times, partial(_lucene, lucene, k))
    yield from changed("bm25", BM25(ours), data.corpus.count, made[OURS]["seconds"])
