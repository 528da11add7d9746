"""Rerank with a language model that is shown a window of passages and says their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.lm import LM, Chat, Completion
from rankpipe.rerank.fit import Fitted, fit
from rankpipe.rerank.plans import Planner, Sliding, Windows, drive
from rankpipe.rerank.prompts import Prompt, named
from rankpipe.stage import Reranker


class Listwise(Reranker):
    """Shows a model windows of passages, as the plan says, and reorders by its replies (RankGPT, Sun et al. 2023;
    RankVicuna, RankZephyr, Pradeep et al. 2023).

    All queries' windows that wait at once are one batch for the model. A reply that does not name every passage once
    is completed and counted (``Step.repaired``), and so are passages that were shortened (``Step.cut``, each once for
    a query). Unlike RankLLM the new order gets new scores, 1/rank, and a single passage costs no call.

    :param lm: the model.
    :param plan: which passages are judged together, and when.
    :param prompt: the name of one of our prompts, or a :class:`Prompt` read from a file of your own.
    :param max_words: of each passage; fewer where the context asks for it.
    :param depth: hits after the first ``depth`` stay where they are (RankLLM's rank_end).
    """

    def __init__(
        self,
        lm: LM,
        plan: Planner = Sliding(),  # noqa: B008  frozen
        prompt: str | Prompt = "rank_zephyr",
        max_words: int = 300,
        depth: int = 100,
    ) -> None:
        if max_words < 1 or depth < 1:
            raise RecipeError([f"max_words={max_words}, depth={depth}: both must be 1 or more"])
        if not callable(getattr(type(lm), "complete", None)):
            raise RecipeError([f"lm: {lm!r} is no language model; for example {{use: hf, model: smollm2}}"])
        if not callable(plan):
            raise RecipeError([f"plan: {plan!r} is no plan; for example {{use: sliding}}"])
        self.lm, self.plan, self.max_words, self.depth = lm, plan, max_words, depth
        self.prompt = named(prompt) if isinstance(prompt, str) else prompt
        self._lengths: dict[int, int] = {}

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Rerank all queries in step.

        :raises ModelError: If a prompt cannot be made to fit, or the model fails.
        """
        bills: list[Counter[str]] = [Counter() for _ in batch]
        cut: list[set[int]] = [set() for _ in batch]

        def judge(asked: list[tuple[int, list[int]]]) -> Windows:
            limits = [self._reply_tokens(len(window)) for _, window in asked]
            prompts = [self._fit(batch[q], window, limit) for (q, window), limit in zip(asked, limits, strict=True)]
            said = self._complete([p.chat for p in prompts], limits)
            orders: Windows = []
            for (q, window), prompt, c in zip(asked, prompts, said, strict=True):
                reply = self.prompt.read(c.text, len(window))
                orders.append([window[i] for i in reply.order])
                cut[q].update(window[i] for i in prompt.cut)
                bills[q].update(calls=1, tokens_in=c.tokens_in, tokens_out=c.tokens_out, repaired=int(reply.mended))
            return orders

        orders = drive([self.plan(min(len(r.hits), self.depth)) for r in batch], judge)
        return [
            ranking.reordered([*order, *range(len(order), len(ranking.hits))]).noting(
                Step(self.name, **bills[q], cut=len(cut[q]))
            )
            for q, (ranking, order) in enumerate(zip(batch, orders, strict=True))
        ]

    def _fit(self, ranking: Ranking, window: list[int], max_tokens: int) -> Fitted:
        docs = [ranking.hits[i].doc for i in window]
        return fit(self.prompt, self.lm, ranking.query, docs, max_words=self.max_words, max_tokens=max_tokens)

    def _complete(self, chats: Sequence[Chat], limits: Sequence[int]) -> list[Completion]:
        """One batch for each limit, of which there are few, so that no reply depends on what else is asked."""
        said: dict[int, Completion] = {}
        for limit in dict.fromkeys(limits):
            places = [i for i, own in enumerate(limits) if own == limit]
            replies = self.lm.complete([chats[i] for i in places], max_tokens=limit)
            said.update(zip(places, replies, strict=True))
        return [said[i] for i in range(len(chats))]

    def _reply_tokens(self, n: int) -> int:
        """As many as a whole ranking of ``n`` passages takes, without the chat template around it."""
        if n not in self._lengths:
            empty, whole = ([{"role": "user", "content": text}] for text in ("", self.prompt.ranking(n)))
            self._lengths[n] = self.lm.count(whole) - self.lm.count(empty)
        return self._lengths[n]
