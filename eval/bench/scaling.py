"""What a corpus of any size costs, by what a part of it costs here: shards, memory, disk, hours.

python eval/bench/scaling.py [--documents 262144] [--encoded 128] [--queries 64]

Measured: the one process that reads the corpus and deals it out, a worker that makes a shard, and a search of one
segment, in processor time, so that other work on the machine counts little; of a shard as it is planned, and of an
eighth of one. Planned: MS MARCO v2.1's segments by the shard's figures. The documents are those of ``index.py``; the
queries are SciFact's.
"""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
from common import DATA, HERE, Row, alone, file, peak_mb, weight
from corpora import collection

from rankpipe import BM25, Query, open_dataset
from rankpipe.catalog import find
from rankpipe.datasets import Dataset
from rankpipe.datasets.facts import collections
from rankpipe.retrieve import shards, shelf
from rankpipe.retrieve.docs import lean
from rankpipe.retrieve.encode import Vectors, encoder, unit
from rankpipe.retrieve.memory import ANY
from rankpipe.retrieve.segment import facts
from rankpipe.retrieve.words import Words
from rankpipe.store import Data, publish

Work = Callable[[], int]  # how many documents or queries were done
MODEL = "bge-small"
KINDS: dict[str, dict[str, Any]] = {
    "bm25": {"use": "bm25"},
    "dense": {"use": "dense", "model": "scaling:Drawn", "store": "int8"},  # all but the encoding
}
SEGMENTS = collections()["msmarco-segment-v2.1"].documents  # of MS MARCO v2.1, as TREC RAG 2024 cut it
SHARD = 1 << 18  # documents of a segment
WORKERS = 64  # in the plan, a core each
WARM = 10.0  # seconds of searching before what counts
PRICE = 0.05  # dollars for a core and an hour, in the plan
K = 1000


class Drawn:
    """An encoder that costs nothing: its vectors are drawn."""

    name, identity, dimension = "drawn", "drawn-1", 384

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length, self.cut = max_length, list[bool]()
        self._chance = np.random.default_rng(0)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Of length 1, (n, 384)."""
        return unit(self._chance.standard_normal((len(texts), self.dimension), np.float32))

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """Of length 1, (n, 384)."""
        self.cut = [False] * len(texts)
        return self.encode_queries(texts)


def main() -> None:
    """Measure, plan, and file both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=SHARD, help="of the shard")
    parser.add_argument("--encoded", type=int, default=128, help="documents that are encoded")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--into", type=Path, default=HERE, help="where the results are filed")
    told = parser.parse_args()
    queries = open_dataset(DATA / "scifact").queries[: told.queries]
    with TemporaryDirectory() as scratch:
        rows = [*measured(Path(scratch), told.documents, told.encoded, queries)]
    file("scaling", rows, told.into)
    file("scaling-plan", [*planned(rows, told.documents)], told.into)


def measured(scratch: Path, documents: int, encoded: int, queries: Sequence[Query]) -> Iterator[Row]:
    """Each in a process of its own; what may grow with the documents for two sizes."""
    data = collection(scratch, documents)
    yield {"stage": "encode", "kind": MODEL, "documents": encoded, **costs(partial(encoding, data, encoded))}
    for size in (documents // 8, documents):
        sent = len(pickle.dumps(next(shards.dealt(data, size))))
        row = {"stage": "read and send", "kind": "any", "documents": size, "bytes_each": round(sent / size)}
        yield row | costs(partial(dealing, data, size))
        for kind, node in KINDS.items():
            folder = scratch / f"{kind}-{size}"
            row = {"stage": "make a shard", "kind": kind, "documents": size}
            row |= costs(partial(making, node, data, size, folder))
            yield row | {"bytes_each": round(weight(folder) / size)}
            published(node, folder)
            search = costs(partial(searching, node, folder, queries))
            yield {"stage": "search", "kind": kind, "documents": size, **search}
    look = costs(partial(looking, scratch / f"bm25-{documents}", queries))
    yield {"stage": "look words up", "kind": "bm25", "documents": documents, **look}


def encoding(data: Dataset, size: int) -> Work:
    """What a model does with documents."""
    texts, model = [doc.contents for doc in next(shards.dealt(data, size))], encoder(MODEL)
    return lambda: len(model.encode_docs(texts))


def dealing(data: Dataset, size: int) -> Work:
    """What the one process does with each document: read it, look whether its id is new, send it."""
    return lambda: sum(len(docs) for docs in islice(shards.dealt(data, size), 1) if pickle.dumps(docs))


def making(node: dict[str, Any], data: Dataset, size: int, folder: Path) -> Work:
    """What a worker does with a shard that it was sent."""
    docs, kind = next(shards.dealt(data, size)), find(node["use"])
    folder.mkdir()
    make = shards.Make(kind, folder, (), shelf.full(kind, node))
    return lambda: len(docs) if make((0, docs)) else 0


def published(node: dict[str, Any], folder: Path) -> None:
    """Make an index of the shard."""
    kind = find(node["use"])
    told: dict[str, Any] = {"kind": kind.kind, "format": kind.format, "recipe": shelf.full(kind, node)}
    with publish(folder, **told, data=Data("a shard", "")) as draft:
        os.rename(folder / "000000", draft.folder / "000000")
        draft.facts = facts(draft.folder, kind.counts, None, ANY)


def searching(node: dict[str, Any], folder: Path, queries: Sequence[Query]) -> Work:
    """What a worker does with queries, after those before them: by Numba, if it is installed."""
    index = find(node["use"])(folder, k=K)
    begun = process_time()
    while process_time() < begun + WARM:
        index.run(queries[:2])
    return lambda: len(lean(index.run(queries)))


def looking(folder: Path, queries: Sequence[Query]) -> Work:
    """What each worker does with the words of each query, for each segment of the whole index."""
    terms, words = BM25(folder).segments[0].postings.terms, Words()

    def look() -> int:
        for query in queries:
            for word in words(query.text):
                terms.find(word)
        return len(queries)

    return look


def costs(ready: Callable[[], Work]) -> Row:
    """Processor time for each document or query, in a process of its own, and that process's largest memory."""
    return alone(_clocked, ready)


def _clocked(ready: Callable[[], Work]) -> Row:
    work = ready()
    start = process_time()
    done = work()
    seconds = process_time() - start
    return {"cpu_ms": round(1000 * seconds / done, 4), "peak_mb": peak_mb()}


def planned(rows: Sequence[Row], shard: int) -> Iterator[Row]:
    """MS MARCO v2.1's segments, in shards of so many."""

    def told(stage: str, kind: str, key: str = "cpu_ms") -> Any:
        return next(row[key] for row in reversed(rows) if row["stage"] == stage and row["kind"] == kind)

    segments = SEGMENTS / shard
    for kind in KINDS:
        dense = kind == "dense"
        once = told("encode", MODEL) if dense else 0.0  # for each document and query
        core_h = SEGMENTS * (told("make a shard", kind) + once) / 3.6e6
        reading_h = SEGMENTS * told("read and send", "any") / 3.6e6
        hours = max(core_h / WORKERS, reading_h)
        disk = SEGMENTS * told("make a shard", kind, "bytes_each")
        looks = 0.0 if dense else segments * told("look words up", kind)
        model_mb = told("encode", MODEL, "peak_mb") if dense else 0
        yield {
            "kind": kind,
            "segments": ceil(segments),
            "disk_gb": round(disk / 1e9),
            "worker_gb": round((told("make a shard", kind, "peak_mb") + model_mb) / 1e3, 1),
            "waiting_gb": round(2 * WORKERS * shard * told("read and send", "any", "bytes_each") / 1e9, 1),
            "core_hours": round(core_h, 1),
            "reading_hours": round(reading_h, 2),
            "hours": round(hours, 2),
            "dollars": round(PRICE * WORKERS * hours, 2),
            "search_gb": round(disk / WORKERS / 1e9, 1),
            "query_ms": round(segments / WORKERS * told("search", kind) + looks + once),
        }


if __name__ == "__main__":
    main()
