"""Late interaction: one vector a token of query and passages, compared by MaxSim (ColBERT, Khattab, Zaharia 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from rankpipe import weights
from rankpipe.catalog import require
from rankpipe.colbert import Read, TokenEncoder, Vectors, token_encoder
from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.progress import track
from rankpipe.rerank.scores import rescored
from rankpipe.stage import Reranker


class Late(Reranker):
    """Encodes query and passages apart, and sums over the query's tokens how near the passage's nearest token is.

    The score is the sum of cosines, at most one for each token of the query, [MASK] tokens included; it compares
    within a query. Hits after ``depth`` stay below in their old order, with scores that fall on from the last one's by
    1 a rank. The model is loaded at the first ranking.

    :param model: see :func:`rankpipe.colbert.token_encoder`.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a passage that are read; its end is cut, and counted (``Step.cut``).
    :raises RecipeError: If ``depth`` is below 1.
    :raises MissingExtra: If the model needs sentence-transformers, which is not installed.
    """

    batch = 8

    def __init__(self, model: str = "colbert-small", depth: int = 100, max_length: int | None = None) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        if not weights.is_onnx(model):
            require("sentence_transformers", name=f"the late interaction model {model}", extra="st")
        self.model, self.depth, self.max_length = model, depth, max_length

    @cached_property
    def encoder(self) -> TokenEncoder:
        """The loaded model.

        :raises MissingWeights: If it cannot be had.
        :raises ModelError: If it is no late interaction model, or cannot read ``max_length`` tokens.
        """
        return token_encoder(self.model, self.max_length)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Encode the queries, then all passages in one stream: no more vectors are held than the model is making."""
        texts = [h.doc.contents for r in batch for h in r.hits[: self.depth]]
        read = iter(track(self.encoder.docs(texts), f"{self.model}: passages", len(texts)) if texts else ())
        return [self._ranking(r, read) for r in batch]

    def _ranking(self, ranking: Ranking, read: Iterator[Read]) -> Ranking:
        n = len(ranking.hits[: self.depth])
        if not n:
            return ranking.noting(Step(self.name))
        query = self.encoder.query(ranking.query.text)
        scores, tokens, cut = [], query.tokens, 0
        for _ in range(n):
            doc = next(read)
            scores.append(maxsim(query.vectors, doc.vectors))
            tokens, cut = tokens + doc.tokens, cut + doc.cut
        return rescored(ranking, scores, self.model).noting(Step(self.name, calls=n + 1, tokens_in=tokens, cut=cut))


def maxsim(query: Vectors, doc: Vectors) -> float:
    """The sum over the query's vectors of the largest inner product with one of the document's."""
    return float((query @ doc.T).max(axis=1).sum())
