"""The numbers of many hits: features as matrices, with what the models say that some of them need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankpipe import weights
from rankpipe.catalog import find
from rankpipe.data import Hit, Ranking
from rankpipe.errors import ArtefactError
from rankpipe.rerank.cross import CrossEncoder, Scored
from rankpipe.rerank.features import TABLE, Candidate, Field, Statistics, Tokeniser
from rankpipe.rerank.learners import Matrix

BATCH = 8  # rankings that the models read together
REMEMBERED = 1 << 16  # passages whose vectors are kept: 100 MB at 384 dimensions, with their texts some more


class Known(NamedTuple):
    """What is known of one ranking's hits."""

    matrix: Matrix
    crossed: Sequence[Scored | None]  # what the cross-encoder said of each; None if it is not asked


@dataclass(frozen=True)
class Signals:
    """Makes the matrices.

    :param models: argument -> model: ``encoder`` for the feature cosine, ``cross`` for cross_score; None for none.
    :param identities: the same -> which weights exactly; nothing is checked where it is empty.
    """

    features: tuple[str, ...]
    statistics: Statistics
    models: Mapping[str, str | None]
    identities: Mapping[str, str]

    def ready(self) -> None:
        """Load the models that the features need.

        :raises ArtefactError: If one is no longer that of the training.
        """
        if "cosine" in self.features:
            _ = self.encoder
        if "cross_score" in self.features:
            _ = self.cross.scorer

    def of(self, rankings: Sequence[Ranking], places: Sequence[Sequence[int]]) -> list[Known]:
        """The matrices of a few rankings.

        :param places: which hits of each.
        :raises ArtefactError: If a model is no longer the one of the training.
        """
        heads = [[r.hits[i] for i in at] for r, at in zip(rankings, places, strict=True)]
        cosines, scored = iter(self._cosines(rankings, heads)), iter(self._crossed(rankings, heads))
        return [
            self._known(r, [(i, next(cosines), next(scored)) for i in at])
            for r, at in zip(rankings, places, strict=True)
        ]

    def _known(self, ranking: Ranking, hits: Sequence[tuple[int, float, Scored | None]]) -> Known:
        query = self.words(ranking.query.text)
        matrix = np.empty((len(hits), len(self.features)))
        for row, (i, cosine, scored) in zip(matrix, hits, strict=True):
            hit = ranking.hits[i]
            title, text = self.words(hit.doc.title), self.words(hit.doc.text)
            both = Field([*title, *text], self.statistics.title + self.statistics.text)
            candidate = Candidate(
                query, Field(title, self.statistics.title), Field(text, self.statistics.text), both, i + 1, hit.score,
                ranking.hits[0].score, self.statistics.rarity, cosine, scored.score if scored else nan,
            )  # fmt: skip
            row[:] = [TABLE[name](candidate) for name in self.features]
        return Known(matrix, [scored for _, _, scored in hits])

    @cached_property
    def words(self) -> Tokeniser:
        """The tokeniser of our BM25: stems, no stop words."""
        made: Tokeniser = find("rankpipe.retrieve.words:Words")()
        return made

    @cached_property
    def encoder(self) -> Any:
        """The sentence encoder."""
        return find("rankpipe.retrieve.encode:encoder")(self._checked("encoder"))

    @cached_property
    def cross(self) -> CrossEncoder:
        """The cross-encoder."""
        return CrossEncoder(self._checked("cross"))

    def _checked(self, argument: str) -> str:
        name = self.models[argument] or ""
        now, then = weights.identity(weights.resolve(name)), self.identities.get(argument)
        if then and now != then:
            raise ArtefactError(
                f"this ranker was trained with {argument} {name} {then}, but that is now {now}; train it again, or "
                "bring that model back"
            )
        return name

    @cached_property
    def _vectors(self) -> dict[str, NDArray[np.float32]]:
        """Of passages that were met already: rankings of one collection share many."""
        return {}

    def _cosines(self, rankings: Sequence[Ranking], heads: Sequence[Sequence[Hit]]) -> list[float]:
        texts = [h.doc.contents for hits in heads for h in hits]
        if "cosine" not in self.features or not texts:
            return [nan] * len(texts)
        queries = _unit(self.encoder.encode_queries([r.query.text for r in rankings]))  # (Q, dimension)
        if len(self._vectors) > REMEMBERED:
            self._vectors.clear()
        if fresh := list(dict.fromkeys(text for text in texts if text not in self._vectors)):
            self._vectors.update(zip(fresh, _unit(self.encoder.encode_docs(fresh)), strict=True))
        owner = [i for i, hits in enumerate(heads) for _ in hits]
        return [float(queries[i] @ self._vectors[text]) for i, text in zip(owner, texts, strict=True)]

    def _crossed(self, rankings: Sequence[Ranking], heads: Sequence[Sequence[Hit]]) -> Sequence[Scored | None]:
        pairs = [(r.query.text, h.doc.contents) for r, hits in zip(rankings, heads, strict=True) for h in hits]
        if "cross_score" not in self.features or not pairs:
            return [None] * len(pairs)
        return self.cross.scorer(pairs)


def identities(models: Mapping[str, str | None]) -> dict[str, str]:
    """Which weights the models have now."""
    return {argument: weights.identity(weights.resolve(name)) for argument, name in models.items() if name}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return made
