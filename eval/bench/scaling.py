"""What a corpus of any size costs, by what a part of it costs here: shards, memory, disk, hours.

python eval/bench/scaling.py [--documents 8192] [--encoded 128] [--queries 16]

Measured: the one process that reads the corpus and deals it out, a worker that makes a shard, and a search of one
segment, in processor time, so that other work on the machine counts little. Planned: MS MARCO v2.1's segments by these
figures. The documents are SciFact's and NFCorpus's, the queries SciFact's.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from common import HERE, Row, file

from rankpipe import Query, open_dataset
from rankpipe.catalog import find
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.retrieve import shards, shelf
from rankpipe.retrieve.docs import lean
from rankpipe.store import Data, publish

DATA = Path(os.environ["RANKPIPE_DATA"])
KINDS: dict[str, dict[str, Any]] = {
    "bm25": {"use": "bm25"},
    "dense": {"use": "dense", "model": "bge-small", "store": "int8"},
}
SEGMENTS = 113_520_750  # of MS MARCO v2.1, as TREC RAG 2024 cut it
SHARD = 1 << 18  # documents of a segment, in the plan
WORKERS = 64  # in the plan, a core each
PRICE = 0.05  # dollars for a core and an hour, in the plan
K = 1000


def main() -> None:
    """Measure, plan, and file both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=8_192, help="of the shard of words")
    parser.add_argument("--encoded", type=int, default=128, help="documents of the shard of vectors")
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--into", type=Path, default=HERE, help="where the results are filed")
    told = parser.parse_args()
    sizes = {"bm25": told.documents, "dense": told.encoded}
    with TemporaryDirectory() as scratch:
        queries = open_dataset(DATA / "scifact").queries[: told.queries]
        rows = [*measured(Path(scratch), sizes, queries)]
    file("scaling", rows, told.into)
    file("scaling-plan", [*planned(rows)], told.into)


def collection(scratch: Path) -> Dataset:
    """Some thousands of documents in one file."""
    path = scratch / "corpus.jsonl"
    with open(path, "w", encoding="utf-8") as f:
        for name in ("scifact", "nfcorpus"):
            for doc in open_dataset(DATA / name).docs():
                f.write(json.dumps({"_id": f"{name}-{doc.id}", "title": doc.title, "text": doc.text}) + "\n")
    return Dataset(name="scifact and nfcorpus", corpus=Jsonl(path))


def measured(scratch: Path, sizes: dict[str, int], queries: Sequence[Query]) -> Iterator[Row]:
    """Two sizes of everything, each in a process of its own."""
    data = collection(scratch)
    for kind, node in KINDS.items():
        for size in (sizes[kind] // 2, sizes[kind]):
            folder = scratch / f"{kind}-{size}"
            work: dict[str, Callable[[], Callable[[], int]]] = {
                "make a shard": partial(making, node, data, size, folder),
                f"search, k = {K}, a query": partial(searching, node, folder, queries),
            }
            if kind == "bm25":
                work = {"read and deal out": partial(dealing, data, size), **work}
            for stage, ready in work.items():
                yield {"stage": stage, "kind": kind, "documents": size, **alone(ready)}
            weights = {"on the disk": weight(folder), "as sent": len(pickle.dumps(next(shards.cut(data, size))))}
            for stage, weighed in weights.items():
                yield {"stage": stage, "kind": kind, "documents": size, "bytes_a_document": round(weighed / size)}


def dealing(data: Dataset, size: int) -> Callable[[], int]:
    """What the one process does with each document: read it, look whether its id is new, send it."""
    return lambda: sum(len(pickle.dumps(docs)) and len(docs) for docs in islice(shards.cut(data, size), 1))


def making(node: dict[str, Any], data: Dataset, size: int, folder: Path) -> Callable[[], int]:
    """What a worker does with a shard; a model is loaded once for many documents, here before the clock starts."""
    kind, docs = find(node["use"]), next(shards.cut(data, size))
    make = shards.Make(kind, folder, [], shelf.full(kind, node))
    folder.mkdir()
    if node["use"] == "dense":
        loaded = kind.load(make.recipe)
        kind.load = lambda recipe: loaded  # noqa: ARG005
    return lambda: make((0, docs)) and len(docs)


def searching(node: dict[str, Any], folder: Path, queries: Sequence[Query]) -> Callable[[], int]:
    """What a worker does with queries."""
    kind = find(node["use"])
    shelf_recipe = shelf.full(kind, node)
    with publish(
        folder / "index", kind=kind.kind, format=kind.format, recipe=shelf_recipe, data=Data("x", "x")
    ) as draft:
        os.rename(folder / "000000", draft.folder / "000000")
        draft.facts = kind._facts(draft.folder)
    index = kind(folder / "index", k=K)
    index.run(queries[:2])
    return lambda: len(lean(index.run(queries)))


def weight(folder: Path) -> int:
    """Bytes of all files."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def alone(ready: Callable[[], Callable[[], int]]) -> Row:
    """Processor time for each document or query, in a process of its own, and that process's largest memory."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_clocked, (ready,))


def _clocked(ready: Callable[[], Callable[[], int]]) -> Row:
    work = ready()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()
    done = work()
    seconds, most = process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_ms": round(1000 * seconds / done, 4), "peak_mb": round(most / 1024), "before_mb": round(before / 1024)}


def planned(rows: Sequence[Row]) -> Iterator[Row]:
    """MS MARCO v2.1's segments by the larger of the two sizes, and of what two differ in."""

    def told(stage: str, kind: str, key: str) -> list[float]:
        return [row[key] for row in rows if row["stage"] == stage and row["kind"] == kind]

    sent = told("read and deal out", "bm25", "cpu_ms")[-1]
    for kind in KINDS:
        make = told("make a shard", kind, "cpu_ms")[-1]
        few, many = told("make a shard", kind, "documents")
        low, high = told("make a shard", kind, "peak_mb")
        query = told(f"search, k = {K}, a query", kind, "cpu_ms")[-1]
        size, message = (told(stage, kind, "bytes_a_document")[-1] for stage in ("on the disk", "as sent"))
        core_h, deal_h = (SEGMENTS * ms / 3.6e6 for ms in (make, sent))
        yield {
            "kind": kind,
            "segments": -(-SEGMENTS // SHARD),
            "disk_gb": round(SEGMENTS * size / 1e9),
            "worker_gb": round((high + (high - low) / (many - few) * max(SHARD - many, 0)) / 1e3, 1),
            "waiting_gb": round(2 * WORKERS * SHARD * message / 1e9, 1),
            "core_hours": round(core_h, 1),
            "reading_hours": round(deal_h, 1),
            "hours": round(max(core_h / WORKERS, deal_h), 1),
            "dollars": round(PRICE * WORKERS * max(core_h / WORKERS, deal_h)),
            "search_gb_a_worker": round(SEGMENTS * size / WORKERS / 1e9, 1),
            "query_ms_at_most": round(query * SEGMENTS / WORKERS / many),
        }


if __name__ == "__main__":
    main()
