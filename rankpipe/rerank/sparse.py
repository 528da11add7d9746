"""Learned sparse reranking: query and passages as weighted words of a vocabulary (SPLADE, Formal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rankpipe import st, weights
from rankpipe.catalog import need, require
from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.rerank.scores import rescored
from rankpipe.splade import Splade
from rankpipe.stage import Reranker


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model said of one passage."""

    score: float
    tokens: int
    cut: bool


class Sparse(Reranker):
    """Scores passages by the words they share with the query, both expanded by a masked language model.

    The weight of a word is log(1 + relu(its logit)), the largest over the text's tokens (Formal et al. 2021b, SPLADE
    v2); the score is the inner product of the weights, and compares within a query. Hits after ``depth`` stay below in
    their old order, with scores that fall on from the last one's by 1 a rank. The model computes in single precision,
    and is loaded at the first ranking.

    :param model: an alias, a Hugging Face id or a folder: a masked language model that encodes queries and passages
        alike.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a text that are read; its end is cut, and counted (``Step.cut``) for passages.
    :raises RecipeError: If ``depth`` is below 1.
    :raises MissingExtra: If torch or transformers is not installed.
    """

    batch = 8

    def __init__(self, model: str = "splade-tiny", depth: int = 100, max_length: int | None = None) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        for module in ("torch", "transformers"):
            require(module, name=f"the sparse model {model}", extra="lm")
        self.model, self.depth, self.max_length = model, depth, max_length

    @cached_property
    def encoder(self) -> Splade:
        """The loaded model.

        :raises MissingWeights: If it cannot be had.
        :raises ModelError: If it is no masked language model, or cannot read ``max_length`` tokens.
        """
        return Splade(self.model, weights.resolve(self.model), self.max_length)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Encode the queries, then the passages of all rankings, those of like length together."""
        asked = [r for r in batch if r.hits]
        owner = [i for i, r in enumerate(asked) for _ in r.hits[: self.depth]]
        texts = [h.doc.contents for r in asked for h in r.hits[: self.depth]]
        scored = iter(self._scored([r.query.text for r in asked], owner, texts) if asked else ())
        return [self._ranking(r, [next(scored) for _ in r.hits[: self.depth]]) for r in batch]

    def _scored(self, queries: Sequence[str], owner: Sequence[int], texts: Sequence[str]) -> list[Scored]:
        """Of each text, for the query that it belongs to."""
        torch = need("torch", name="this sparse model", extra="lm")
        wanted = torch.stack(self.encoder.run(st.measured(self.encoder, queries), lambda _, vectors: list(vectors)))

        def score(places: Sequence[int], vectors: Any) -> list[float]:
            scores: list[float] = (vectors * wanted[[owner[i] for i in places]]).sum(-1).tolist()
            return scores

        told = st.measured(self.encoder, texts)
        return [Scored(*one) for one in zip(self.encoder.run(told, score), told.tokens, told.cut, strict=True)]

    def _ranking(self, ranking: Ranking, scored: Sequence[Scored]) -> Ranking:
        cost = Step(
            self.name, calls=len(scored), tokens_in=sum(s.tokens for s in scored), cut=sum(s.cut for s in scored)
        )
        return rescored(ranking, [s.score for s in scored], self.model).noting(cost)
