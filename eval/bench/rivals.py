"""What ``scifact.py`` is raced against: bm25s alone, sentence-transformers' defaults, Pyserini in its own process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from common import HERE, OUR_CODE, Runner

from rankpipe.data import Query
from rankpipe.trec import Run

BM25 = {"k1": 0.9, "b": 0.4}  # ours, and Anserini's


def records(corpus: Path) -> list[dict[str, str]]:
    """The lines of a corpus, as ``json`` reads them."""
    with open(corpus, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def words(texts: Sequence[str]) -> Any:
    """bm25s's own words of texts."""
    import bm25s
    import Stemmer

    return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)


def bm25s_index(corpus: Path, folder: Path | None = None) -> Any:
    """bm25s from the raw file; with its documents in a folder, if one is given."""
    import bm25s

    documents = records(corpus)
    index = bm25s.BM25(**BM25)
    index.index(words([f"{d['title']} {d['text']}" for d in documents]), show_progress=False)
    if folder:
        index.save(folder, corpus=documents, show_progress=False)
    return index


def bm25s_search(index: Any, queries: Sequence[Query], k: int, threads: int = 0) -> Any:
    """Two arrays: scores, and positions, or documents if the index has them."""
    return index.retrieve(words([q.text for q in queries]), k=k, show_progress=False, n_threads=threads)


def bm25s_saved(corpus: Path, folder: Path, *, texts: bool) -> None:
    """bm25s from the raw file into a folder, with its documents or without."""
    index = bm25s_index(corpus, folder if texts else None)
    if not texts:
        index.save(folder, show_progress=False)


def bm25s_load(folder: Path, *, texts: bool) -> Any:
    """bm25s from a folder, with its documents or without."""
    import bm25s

    return bm25s.BM25.load(folder, load_corpus=texts, show_progress=False)


def bm25s_compiled(folder: Path) -> Any:
    """bm25s from a folder, without its documents, as it searches by Numba."""
    index = bm25s_load(folder, texts=False)
    index.backend = "numba"
    index.activate_numba_scorer()
    return index


def bm25s_run(found: Any, queries: Sequence[Query], ids: Sequence[str]) -> Run:
    """As a run, to be evaluated.

    :param ids: of the documents, by position.
    """
    return {
        query.id: {ids[d] if isinstance(d, int) else d["_id"]: s for d, s in zip(docs, scores, strict=True) if s > 0}
        for query, docs, scores in zip(queries, found.documents.tolist(), found.scores.tolist(), strict=True)
    }


class Pyserini:
    """``lucene.py`` in a process of its own, with the seconds it takes itself."""

    def __init__(self, process: Popen[str], said: Path) -> None:
        self._process, self._said = process, said
        self.peak_mb = 0  # its largest memory so far
        self.start_s, _ = self._answer()

    def runners(self, verb: str, k: int = 0, singly: int = 0) -> dict[str, Runner[Run]]:
        """Do ``verb``, index or search (for ``k`` hits), with ids alone and with texts: its seconds, and the run.

        :param singly: so many queries, one at a time; 0 are all at once.
        """
        return {f"Pyserini, {kept}": partial(self.run, verb, kept, k, singly) for kept in ("ids", "texts")}

    def run(self, verb: str, kept: str, k: int = 0, singly: int = 0, threads: int = 1) -> tuple[float, Run]:
        """Do it with what is kept, "ids" or "texts"."""
        assert self._process.stdin
        print(verb, kept, k, singly, threads, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> tuple[float, Run]:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"lucene.py ended:\n{self._said.read_text('utf-8')[-2000:]}")
        seconds, run, self.peak_mb = json.loads(line)
        return seconds, run


@contextmanager
def pyserini(python: Path | None, corpus: Path, queries: Sequence[Query], work: Path) -> Iterator[Pyserini | None]:
    """Pyserini with its JVM started, if there is an interpreter that has it.

    :param corpus: a folder of nothing but the corpus: Pyserini reads all that lies there.
    """
    if not python:
        yield None
        return
    asked = work / "queries.json"
    asked.write_text(json.dumps({q.id: q.text for q in queries}), "utf-8")
    command = [str(python), str(HERE / "lucene.py"), str(corpus), str(asked), str(work)]
    with (
        open(work / "lucene.log", "w") as log,
        Popen(command, stdin=PIPE, stdout=PIPE, stderr=log, text=True, env=OUR_CODE) as process,
    ):
        yield Pyserini(process, work / "lucene.log")
