"""Documents as rows of a database: a vector of a sentence encoder, the weighted words of a sparse one, or both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.retrieve.collection import DENSE, SPARSE
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.embed import Embedding
from rankpipe.retrieve.encoded import Model
from rankpipe.retrieve.sparse import SparseIndex, refuse
from rankpipe.splade import SparseEncoder, Weighed


@dataclass(frozen=True)
class Encoders:
    """One model, or two."""

    dense: Embedding | None
    sparse: Model[SparseEncoder] | None
    names: str  # of the models, for errors
    identity: str  # which weights exactly

    @classmethod
    def of(cls, recipe: dict[str, Any]) -> Encoders:
        """Those of a recipe: its ``model``, its ``sparse`` one, or both."""
        length = recipe["max_length"]
        identity, dense, sparse = {}, None, None
        if recipe["model"]:
            made = Dense.load({"model": recipe["model"], "max_length": length})
            dense = Embedding(made.encoder, {**recipe, "store": "float32"})
            identity[DENSE] = made.identity
        if recipe["sparse"]:
            sparse = SparseIndex.load({"model": recipe["sparse"], "max_length": length})
            identity[SPARSE] = sparse.identity
        names = " and ".join(filter(None, (recipe["model"], recipe["sparse"])))
        return cls(dense, sparse, names, json.dumps(identity))

    @property
    def fields(self) -> dict[str, int | None]:
        """The fields of a row, and how many dimensions each has; None if it is sparse."""
        dense = {DENSE: self.dense.dimension} if self.dense else {}
        return {**dense, **({SPARSE: None} if self.sparse else {})}

    def rows(self, docs: Sequence[Doc]) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
        """Rows, and which documents were cut, by one of the models at least.

        :raises ModelError: If a number is not finite, or words are not as :func:`~rankpipe.retrieve.sparse.refuse`
            wants them.
        """
        rows: list[dict[str, Any]] = [{} for _ in docs]
        cut = np.zeros(len(docs), bool)
        if self.dense:
            made, _ = self.dense.fresh(np.arange(len(docs)), docs)
            cut |= made["cut"]
            for row, vector in zip(rows, made["vectors"], strict=True):
                row[DENSE] = vector
        if self.sparse:
            weighed = self.sparse.encoder.docs([doc.contents for doc in docs])
            refuse([f"document {doc.id!r}" for doc in docs], weighed, self.sparse.encoder, self.names)
            cut |= [one.cut for one in weighed]
            nowhere = {len(self.sparse.encoder.vocabulary): 1.0}  # Milvus takes no empty vector; no query has this word
            for row, one in zip(rows, weighed, strict=True):
                row[SPARSE] = _words(one) or nowhere
        return rows, cut

    def asked(self, texts: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Queries, by field; weighted words may be none.

        :raises ModelError: As :meth:`rows`.
        """
        made: dict[str, Sequence[Any]] = {}
        if self.dense:
            made[DENSE] = list(self.dense.queries(texts))
        if self.sparse:
            weighed = self.sparse.encoder.queries(texts)
            refuse([f"query {text!r}" for text in texts], weighed, self.sparse.encoder, self.names)
            made[SPARSE] = [_words(one) for one in weighed]
        return made


def _words(one: Weighed) -> dict[int, float]:
    return dict(zip(one.words.tolist(), one.weights.tolist(), strict=True))
