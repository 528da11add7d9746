"""How many of the nearest vectors Milvus finds by an index that does not compare all."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankpipe.retrieve.collection import DENSE, SENT, SERIAL, Collection, Found
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.embed import Embedding
from rankpipe.retrieve.encode import unit
from rankpipe.retrieve.milvus_options import how
from rankpipe.retrieve.recall import WORTH, Asked, Truth
from rankpipe.retrieve.vectors import Vectors


def recall(
    collection: Collection, recipe: dict[str, Any], way: Embedding | None, docs: Docs, first: int
) -> dict[str, float]:
    """Of documents by their serial numbers, from the first on; nothing if all are compared, or they are few."""
    end = first + len(docs)
    if recipe["index"] == "FLAT" or not way or end - first < WORTH:
        return {}
    own, queries = Asked.drawn(way, docs)
    truth = Truth(own)
    for start in range(first, end, SENT):
        stop = min(start + SENT, end)
        scores = _scores(queries, collection.vectors(start, stop), recipe["metric"])
        truth.see(np.arange(start - first, stop - first), scores)
    rows = f"{SERIAL} >= {first}" if first else ""

    def search(k: int) -> list[Found]:
        told = collection.search({DENSE: list(queries)}, k, how(recipe, k, {}, 1.0), rows=rows)
        return [(serials - first, scores) for serials, scores in told]

    return truth.measured(search, end - first)


def _scores(queries: Vectors, vectors: Vectors, metric: str) -> Vectors:
    """What ranks as the metric does, (queries, vectors)."""
    if metric == "COSINE":
        vectors = unit(vectors)
    scores: Vectors = queries @ vectors.T
    return 2 * scores - (vectors**2).sum(axis=1) if metric == "L2" else scores
