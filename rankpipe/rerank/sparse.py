"""Learned sparse reranking: query and passages as weighted words of a vocabulary (SPLADE, Formal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from time import perf_counter
from typing import Any

from rankpipe import st, weights
from rankpipe.catalog import need
from rankpipe.data import Ranking
from rankpipe.errors import RecipeError
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.scores import ByScore, rescored
from rankpipe.splade import Splade, require_libraries


class Sparse(ByScore):
    """Scores passages by the words they share with the query, both expanded by a masked language model.

    The weight of a word is log(1 + relu(its logit)), the largest over the text's tokens (Formal et al. 2021b, SPLADE
    v2); the score is the inner product of the weights, and compares within a query. Hits after ``depth``, and those
    that the budget did not allow, stay below in their old order, with scores that fall on from the last one's by 1 a
    rank. The model computes in single precision, and is loaded at the first ranking.

    :param model: an alias, a Hugging Face id or a folder: a masked language model that encodes queries and passages
        alike.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a text that are read; its end is cut, and counted (``Step.cut``) for passages.
    :param budget: the most that one query may cost, of tokens only with a ``max_length``; the query itself costs none.
    :raises RecipeError: If ``depth`` is below 1, or there is a budget of tokens without ``max_length``.
    :raises MissingExtra: If torch or transformers is not installed.
    """

    def __init__(
        self,
        model: str = "splade-tiny",
        depth: int = 100,
        max_length: int | None = None,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        if budget.tokens is not None and max_length is None:
            raise RecipeError(["budget.tokens: say with max_length how many a passage may have"])
        require_libraries(model)
        self.model, self.depth, self.max_length, self.budget = model, depth, max_length, budget

    @cached_property
    def encoder(self) -> Splade:
        """The loaded model.

        :raises MissingWeights: If it cannot be had.
        :raises ModelError: If it is no masked language model, or cannot read ``max_length`` tokens.
        """
        return Splade(self.model, weights.resolve(self.model), self.max_length)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Encode the queries, then the passages of all rankings, those of like length together."""
        spent = [Spent() for _ in batch]
        scores: list[list[float]] = [[] for _ in batch]
        queries = cache(lambda: self._queries([r.query.text for r in batch]))

        def make(q: int, place: int) -> tuple[tuple[int, int], int]:
            return (q, place), self.max_length or 0

        def ask(asked: list[tuple[int, int]]) -> None:
            encoder, start = self.encoder, perf_counter()  # loading it is in no query's seconds
            wanted = queries()[[q for q, _ in asked]]
            told = st.measured(encoder, [batch[q].hits[place].doc.contents for q, place in asked])

            def score(places: Sequence[int], vectors: Any) -> list[float]:
                made: list[float] = (vectors * wanted[places]).sum(-1).tolist()
                return made

            made = encoder.run(told, score)
            share_s = (perf_counter() - start) / len(asked)
            for (q, place), one, tokens, cut in zip(asked, made, told.tokens, told.cut, strict=True):
                scores[q].append(one)
                spent[q].pay(share_s, tokens)
                spent[q].cut.update([place] * cut)

        spend(self.budget, spent, [range(min(len(r.hits), self.depth)) for r in batch], make, ask)
        return [
            rescored(r, rated, self.model).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]

    def _queries(self, texts: Sequence[str]) -> Any:
        """Their weights, (queries, vocabulary)."""
        torch = need("torch", name="this sparse model", extra="lm")
        return torch.stack(self.encoder.run(st.measured(self.encoder, texts), lambda _, vectors: list(vectors)))
