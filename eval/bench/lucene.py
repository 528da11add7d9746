"""Pyserini's side of ``scifact.py`` and ``index.py``, run by the interpreter that has it; answers in JSON.

python eval/bench/lucene.py CORPUS_FOLDER QUERIES.json WORK_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from common import peak_mb

from rankpipe.java import start

Run = dict[str, dict[str, float]]
KEEP = {"ids": [], "texts": ["-storeRaw"]}  # what a hit brings with it


def main() -> None:
    """Start the JVM, answer with the seconds it took, then do as asked: ``index texts 0 0 1``, ``search ids 10 50 1``.

    The numbers are hits, how many queries are asked, one at a time (0 are all of them at once), and threads for those.
    """
    corpus, queries, work = map(Path, sys.argv[1:])
    asked = json.loads(queries.read_text("utf-8"))
    folders: dict[str, Path] = {}
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # what Java prints is no answer
        begun = perf_counter()
        start()
        print(json.dumps([perf_counter() - begun, {}, peak_mb()]), file=answers)
        for number, line in enumerate(sys.stdin):
            verb, kept, *numbers = line.split()
            if verb == "index":
                folders[kept] = work / f"lucene-{kept}-{number}"
                answer = index(corpus, folders[kept], KEEP[kept])
            else:
                answer = search(folders[kept], asked, *map(int, numbers))
            print(json.dumps([*answer, peak_mb()]), file=answers)


def index(corpus: Path, folder: Path, keep: list[str]) -> tuple[float, Run]:
    """Index BEIR documents with one thread: seconds, and no run."""
    from jnius import autoclass

    words = ["-collection", "BeirFlatCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    begun = perf_counter()
    autoclass("io.anserini.index.IndexCollection").main([*words, *keep, "-input", str(corpus), "-index", str(folder)])
    return perf_counter() - begun, {}


@cache
def opened(folder: Path) -> Any:
    """The index, opened once."""
    from pyserini.search.lucene import LuceneSearcher

    return LuceneSearcher(str(folder))


def search(folder: Path, asked: dict[str, str], k: int, singly: int, threads: int) -> tuple[float, Run]:
    """Search: seconds, and the run."""
    searcher = opened(folder)
    begun = perf_counter()
    if singly:
        found = {query: searcher.search(text, k=k) for query, text in islice(asked.items(), singly)}
    else:
        found = searcher.batch_search([*asked.values()], [*asked], k=k, threads=threads)
    seconds = perf_counter() - begun
    return seconds, {query: {hit.docid: hit.score for hit in hits} for query, hits in found.items()}


if __name__ == "__main__":
    main()
