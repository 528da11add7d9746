"""The part of ``index.py`` that is about vectors: exact search, HNSW and IVF, beside FAISS alone and Milvus Lite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import islice
from math import ceil, log2, sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from index_rows import BOUNDED, KS, MEMORY, OURS, Rows, Search, builds, built, changed, found, recall, searched
from quick import Vectors

from rankpipe import Dense, Milvus, Ranking
from rankpipe.data import Query
from rankpipe.datasets import Dataset
from rankpipe.retrieve.approximate import KNOBS

FAISS, MILVUS, OURS_BY_MILVUS = "FAISS", "Milvus Lite", f"{OURS}, milvus"
MODEL = "quick:Vectors"
RECALL = 0.98  # at 10, that our approximate indexes are set for
MILVUS_MOST = 50_000  # documents; a question takes Milvus Lite a second and more among ten times as many
BLOCK = 4096  # texts that rivals encode at once
MESSAGE = 50  # queries that Milvus is asked at once


def vectors(data: Dataset, queries: Sequence[Query], scratch: Path, times: int) -> Rows:
    """Every kind: built, searched, changed."""
    assert data.corpus
    documents = data.corpus.count
    truth: Sequence[Ranking] = []
    for kind, factory in {"exact": "Flat", "HNSW": "HNSW32", "IVF": f"IVF{_lists(documents)},Flat"}.items():
        ours, theirs = scratch / kind, scratch / f"FAISS-{kind}"
        told: dict[str, Any] = {} if kind == "exact" else {"factory": factory, "recall": RECALL}
        less = scratch / f"bounded-{kind}"
        made = {
            OURS: built(partial(_ours, data, ours, told), ours, partial(found, Dense, ours, queries)),
            BOUNDED: built(
                partial(_ours, data, less, told | {"memory": MEMORY}), less, partial(found, Dense, less, queries)
            ),
            FAISS: built(partial(_faiss, data, theirs, factory), theirs, partial(_faiss_found, theirs, queries)),
        }
        if milvus := kind == "exact" and documents <= MILVUS_MOST and find_spec("milvus_lite") is not None:
            at, by = scratch / "milvus", scratch / "ours-by-milvus"
            made[MILVUS] = built(partial(_milvus, data, at), at, partial(_milvus_found, at, queries))
            build = partial(Milvus.build, data, by, model=MODEL)
            made[OURS_BY_MILVUS] = built(build, by, partial(found, Milvus, by, queries))
        yield from builds(kind, made, documents)
        knobs = _turned(ours, queries, truth)
        own = {k: Dense(ours, k, **knobs) for k in KS}
        searches: dict[str, Search] = {OURS: lambda asked, k, own=own: own[k].run(asked)}
        alone = _FaissAlone(theirs, {k: _effective(own[k], knobs) for k in KS})
        searches[FAISS] = alone.search
        if milvus:
            searches[MILVUS] = _MilvusAlone(scratch / "milvus").search
            through = {k: Milvus(scratch / "ours-by-milvus", k) for k in KS}
            searches[OURS_BY_MILVUS] = lambda asked, k, through=through: through[k].run(asked)
        hits = own[KS[0]].run(queries)
        truth = truth or hits
        measured = {"recall_at_10": recall(hits, truth), "turned_to": _spelled(knobs)}
        measured |= {
            "recall_as_built": recall(Dense(ours, KS[0]).run(queries), truth),
            "built_to": _spelled(_built(ours)),
        }
        theirs_at_10 = {"recall_at_10": alone.recall(queries, truth)}
        for k in KS:
            also = {OURS: measured, FAISS: theirs_at_10 if k == KS[0] else {}}
            for name, row in searched(kind, searches, queries, k, times):
                yield name, row | also.get(row["system"], {})
        yield from changed(kind, own[KS[0]], documents, made[OURS]["seconds"])
        if milvus:
            yield from changed("milvus", through[KS[0]], documents, made[OURS_BY_MILVUS]["seconds"])


def _lists(documents: int) -> int:
    """Of an inverted file, as ours picks it: some four times the root."""
    return 1 << round(log2(4 * sqrt(documents)))


def _turned(folder: Path, queries: Sequence[Query], truth: Sequence[Ranking]) -> dict[str, int]:
    """What the index's knob has to be turned to, to find as much for questions and little more, from what its build has
    found, which has only pieces of documents to ask with.
    """

    def enough(knobs: dict[str, int]) -> bool:
        return recall(Dense(folder, KS[0], **knobs).run(queries), truth) >= RECALL

    knobs, index = _built(folder), Dense(folder, KS[0])
    while knobs and not enough(knobs):
        knobs = {knob: ceil(value * 8 / 7) for knob, value in knobs.items()}
    while (less := _effective(index, {k: max(v * 7 // 8, 1) for k, v in knobs.items()})) != knobs and enough(less):
        knobs = less
    return knobs


def _effective(index: Dense, knobs: dict[str, int]) -> dict[str, int]:
    """The knobs, as a search of ours uses them: HNSW keeps in view at least what it is asked for."""
    least = {s.nearest.fetch(index.k) for s in index.segments} if "efSearch" in knobs else set()
    return {knob: max(value, *least) if knob == "efSearch" else value for knob, value in knobs.items()}


def _built(folder: Path) -> dict[str, int]:
    """How its build has turned the index's knob."""
    facts = Dense(folder).manifest.facts
    return {knob: int(facts[knob]) for knob in KNOBS if knob in facts}


def _spelled(knobs: dict[str, int]) -> str:
    return ", ".join(f"{k} {v}" for k, v in knobs.items())


def _ours(data: Dataset, folder: Path, told: dict[str, Any]) -> None:
    Dense.build(data, folder, model=MODEL, **told)


def _blocks(data: Dataset) -> Iterator[tuple[list[str], Any]]:
    """Ids and vectors, as rivals are given them: a corpus that is read line by line, and encoded by the block."""
    assert data.corpus
    encoder = Vectors()
    with open(data.corpus.path, encoding="utf-8") as f:
        while block := [json.loads(line) for line in islice(f, BLOCK)]:
            yield [d["_id"] for d in block], encoder.encode_docs([d["text"] for d in block])


def _faiss(data: Dataset, folder: Path, factory: str) -> None:
    """FAISS alone, with the texts' ids beside it; trained on the first blocks, if it has to be."""
    import faiss
    import numpy as np

    ids, blocks = list[str](), list[Any]()
    index = faiss.index_factory(Vectors().dimension, factory, faiss.METRIC_INNER_PRODUCT)
    for names, block in _blocks(data):
        ids += names
        blocks.append(block)
    whole = np.concatenate(blocks)
    if not index.is_trained:
        index.train(whole[:200_000])
    index.add(whole)
    folder.mkdir()
    faiss.write_index(index, str(folder / "faiss.index"))
    (folder / "ids.json").write_text(json.dumps(ids), "utf-8")


class _FaissAlone:
    """Two arrays: scores and places.

    :param knobs: for so many hits.
    """

    def __init__(self, folder: Path, knobs: dict[int, dict[str, int]]) -> None:
        import faiss

        self.index, self.encoder = faiss.read_index(str(folder / "faiss.index")), Vectors()
        self.space, self.knobs, self.turned_for = faiss.ParameterSpace(), knobs, 0

    def search(self, queries: Sequence[Query], k: int) -> Any:
        """Encoded, and looked up."""
        if k != self.turned_for:
            for knob, value in self.knobs.get(k, {}).items():
                self.space.set_index_parameter(self.index, knob, value)
            self.turned_for = k
        return self.index.search(self.encoder.encode_queries([q.text for q in queries]), k)

    def recall(self, queries: Sequence[Query], truth: Sequence[Ranking]) -> float:
        """The share of the hits that were to be found, whose ids say their places."""
        _, places = self.search(queries, KS[0])
        pairs = zip(places.tolist(), truth, strict=True)
        return round(
            mean(len({f"d{p}" for p in row} & {h.doc.id for h in r.hits}) / len(r.hits) for row, r in pairs), 4
        )


def _faiss_found(folder: Path, queries: Sequence[Query]) -> Any:
    return _FaissAlone(folder, {}).search(queries, max(KS))


class _MilvusAlone:
    """Hits with ids, from a file of Milvus Lite."""

    def __init__(self, folder: Path) -> None:
        from pymilvus import MilvusClient

        folder.mkdir(exist_ok=True)
        self.client, self.encoder = MilvusClient(str(folder / "milvus.db")), Vectors()
        if self.client.has_collection("docs"):
            self.client.load_collection("docs")

    def search(self, queries: Sequence[Query], k: int) -> Any:
        """Encoded, and looked up, exactly; so many at once as a message has room for."""
        vectors = list(self.encoder.encode_queries([q.text for q in queries]))
        how: dict[str, Any] = {"limit": k, "search_params": {"metric_type": "IP"}, "output_fields": ["id"]}
        parts = (vectors[start : start + MESSAGE] for start in range(0, len(vectors), MESSAGE))
        return [hits for part in parts for hits in self.client.search("docs", data=part, **how)]


def _milvus_found(folder: Path, queries: Sequence[Query]) -> Any:
    return _MilvusAlone(folder).search(queries, max(KS))


def _milvus(data: Dataset, folder: Path) -> None:
    """A collection of ids and vectors, with an exact index."""
    alone = _MilvusAlone(folder)
    fields = {"id_type": "string", "max_length": 64, "metric_type": "IP"}
    alone.client.create_collection("docs", dimension=alone.encoder.dimension, **fields)
    for ids, vectors in _blocks(data):
        alone.client.insert("docs", [{"id": i, "vector": v} for i, v in zip(ids, vectors, strict=True)])
    alone.client.close()
