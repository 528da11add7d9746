"""Late interaction: one vector a token of query and passages, compared by MaxSim (ColBERT, Khattab, Zaharia 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from time import perf_counter

from rankpipe import weights
from rankpipe.colbert import TokenEncoder, Vectors, token_encoder
from rankpipe.data import Ranking
from rankpipe.errors import RecipeError
from rankpipe.progress import done
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.scores import ByScore, rescored

QUERY = -1  # the place of what is read before a ranking's hits


class Late(ByScore):
    """Encodes query and passages apart, and sums over the query's tokens how near the passage's nearest token is.

    The score is the sum of cosines, at most one for each token of the query, [MASK] tokens included; it compares
    within a query. Hits after ``depth``, and those that the budget did not allow, stay below in their old order, with
    scores that fall on from the last one's by 1 a rank. The model is loaded at the first ranking.

    :param model: an encoder of tokens: an alias, a Hugging Face id or a folder
        (:func:`rankpipe.colbert.token_encoder`).
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a passage that are read; its end is cut, and counted (``Step.cut``).
    :param budget: the most that one query may cost; a call reads the query or a passage.
    :raises RecipeError: If ``depth`` is below 1, or there is a budget of tokens: a model fills queries up as it likes.
    :raises MissingExtra: If the model needs sentence-transformers, which is not installed.
    """

    def __init__(
        self,
        model: str = "colbert-small",
        depth: int = 100,
        max_length: int | None = None,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        if budget.tokens is not None:
            raise RecipeError(["budget.tokens: how many a query has is known when it has been read; limit the calls"])
        weights.require_runner(model, "late interaction model")
        self.model, self.depth, self.max_length, self.budget = model, depth, max_length, budget

    @cached_property
    def encoder(self) -> TokenEncoder:
        """The loaded model.

        :raises MissingWeights: If it cannot be had.
        :raises ModelError: If it is no late interaction model, or cannot read ``max_length`` tokens.
        """
        return token_encoder(self.model, self.max_length)

    def work(self, ranking: Ranking) -> int:
        """The query, and the hits that are scored."""
        return self.budget.most(min(len(ranking.hits), self.depth) + bool(ranking.hits))

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Encode the queries, and all passages in one stream: no more vectors are held than the model is making."""
        spent = [Spent() for _ in batch]
        queries: dict[int, Vectors] = {}
        scores: list[list[float]] = [[] for _ in batch]

        def ask(asked: list[tuple[int, int]]) -> None:
            encoder, start = self.encoder, perf_counter()  # loading it is in no query's seconds
            texts = [batch[q].hits[place].doc.contents for q, place in asked if place != QUERY]
            docs = iter(encoder.docs(texts) if texts else ())
            for q, place in asked:
                if place == QUERY:
                    one = encoder.query(batch[q].query.text)
                    queries[q] = one.vectors
                else:
                    one = next(docs)
                    scores[q].append(maxsim(queries[q], one.vectors))
                    spent[q].cut.update([place] * one.cut)
                spent[q].pay(0.0, one.tokens)
                done()
            share_s = (perf_counter() - start) / len(asked)
            for q, _ in asked:
                spent[q].seconds += share_s

        waiting = [range(QUERY, min(len(r.hits), self.depth)) if r.hits else range(0) for r in batch]
        spend(self.budget, spent, waiting, lambda q, place: ((q, place), 0), ask)
        return [
            rescored(r, rated, self.model).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]


def maxsim(query: Vectors, doc: Vectors) -> float:
    """The sum over the query's vectors of the largest inner product with one of the document's."""
    return float((query @ doc.T).max(axis=1).sum())
