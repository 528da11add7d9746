"""Encoding on this machine's CPU: rankpipe beside sentence-transformers' default, single precision in batches of 32.

python eval/bench/encode.py [--model minilm] [--sample 512] [--times 5] [--no-index]

The two take turns; how many times as fast ours is, is the median over the rounds of the ratio within a round, whose
halves see the same moods of the machine. Then all of SciFact is encoded by both, once, and searched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import HERE, Row, clocked, file, race
from numpy.typing import NDArray

from rankpipe import Dense, evaluate, open_dataset, to_run, weights
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.retrieve.encode import encoder

OURS, RIVAL = "rankpipe", "sentence-transformers"
MEASURES = ("nDCG@10", "R@100")
MODEL = "minilm"


class Default:
    """sentence-transformers as its users call it, as an encoder of an index."""

    name, model = RIVAL, MODEL

    def __init__(self, max_length: int | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        folder = weights.resolve(self.model)
        self._model, self.identity = SentenceTransformer(str(folder), device="cpu"), weights.identity(folder)
        self._model.max_seq_length = max_length or self._model.max_seq_length
        self.dimension, self.cut = int(self._model.get_embedding_dimension()), list[bool]()

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of questions, (n, dimension)."""
        return np.asarray(self._model.encode_query(list(texts), show_progress_bar=False), np.float32)

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of documents, (n, dimension)."""
        self.cut = [False] * len(texts)  # it does not say
        return np.asarray(self._model.encode_document(list(texts), show_progress_bar=False), np.float32)


def main() -> None:
    """Race, build, search, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="any that sentence-transformers runs")
    parser.add_argument("--sample", type=int, default=512, help="documents that are encoded in the race")
    parser.add_argument("--times", type=int, default=5, help="rounds")
    parser.add_argument("--docs", type=int, help="only the first of the corpus: to try this program")
    parser.add_argument("--no-index", action="store_true", help="leave out encoding and searching all of SciFact")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    Default.model = told.model
    with TemporaryDirectory() as scratch:
        data = collection(Path(scratch), told.docs)
        rows = sample(data, told.model, told.sample, told.times)
        print(*rows, sep="\n", flush=True)
        rows += [] if told.no_index else indexes(data, told.model, rows[0]["backend"], Path(scratch))
    file("encode", rows, told.into)


def collection(scratch: Path, docs: int | None) -> Dataset:
    """SciFact; cut to so many documents."""
    data = open_dataset("beir/scifact/test")
    assert data.corpus
    assert data.corpus.path
    copy = scratch / "corpus.jsonl"
    with open(data.corpus.path, "rb") as f:
        copy.write_bytes(b"".join(islice(f, docs)))
    return replace(data, corpus=Jsonl(copy), known=None if docs else data.known)


def sample(data: Dataset, model: str, size: int, times: int) -> list[Row]:
    """Encode the same documents, evenly spread over the corpus; models are loaded, and ours is chosen, before."""
    texts = [doc.contents for doc in data.docs()]
    texts = texts[:: max(len(texts) // size, 1)][:size]
    mine, default = encoder(model), Default()
    both = {OURS: mine.encode_docs, RIVAL: default.encode_docs}
    for encode in both.values():
        encode(texts[:8])
    done = race({name: clocked(partial(encode, texts)) for name, encode in both.items()}, times)
    ratios = [b / a for a, b in zip(done[OURS].seconds, done[RIVAL].seconds, strict=True)]
    ours, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (done[OURS].made, done[RIVAL].made))
    probed = ", ".join(f"{way} {seen['texts_a_second']}" for way, seen in mine.facts.get("probe", {}).items())
    told: dict[str, Any] = {
        "times_as_fast": round(median(ratios), 3), "at_least": round(min(ratios), 3), "at_most": round(max(ratios), 3),
        "cosine": round(float((ours * theirs).sum(axis=1).mean()), 5), "backend": mine.facts["backend"],
        "probed": probed,
    }  # fmt: skip
    return [
        {
            "stage": "encode a sample", "rival": name, "documents": len(texts), "rounds": times,
            "docs_a_second": round(len(texts) / timed.median, 1), **(told if name == OURS else {}),
        }
        for name, timed in done.items()
    ]  # fmt: skip


def indexes(data: Dataset, model: str, backend: str, scratch: Path) -> list[Row]:
    """Encode all of SciFact, search it and evaluate."""
    builds: dict[str, dict[str, Any]] = {
        OURS: {"model": model, "model_options": {"backend": backend}},
        RIVAL: {"model": f"{__name__}:Default"},
    }
    rows: list[Row] = []
    for name, told in builds.items():
        seconds, made = clocked(partial(Dense.build, data, scratch / name, **told))()
        means = evaluate(to_run(made.run(data.queries)), data.qrels, MEASURES).means
        rate = made.manifest.facts["documents_per_second"]
        rows.append(
            {"stage": "build and search", "rival": name, "documents": len(made), "seconds": round(seconds, 1),
             "docs_a_second": rate, **{m: round(means[m], 4) for m in MEASURES}}
        )  # fmt: skip
        print(rows[-1], flush=True)
    rows[0]["times_as_fast"] = round(rows[0]["docs_a_second"] / rows[1]["docs_a_second"], 3)
    return rows


if __name__ == "__main__":
    main()
