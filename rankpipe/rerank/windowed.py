"""What all rerankers share that show a model windows of passages: plans, fitting, budgets, bills, the ledger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import NamedTuple, get_args

from rankpipe.data import Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.lm import LM, Chat
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Budget, Spent
from rankpipe.rerank.fit import Fitted, fit
from rankpipe.rerank.parse import Answer, Reply
from rankpipe.rerank.plans import Planner, Windows, drive
from rankpipe.rerank.prompts import Prompt, chosen
from rankpipe.stage import Reranker

Window = tuple[int, tuple[int, ...]]  # (which query, positions)


@dataclass(frozen=True, slots=True)
class Said:
    """What the model answered to one window, and how that was understood."""

    reply: Reply
    text: str
    tokens_in: int
    tokens_out: int


class Asked(NamedTuple):
    """One window's prompt, and how many tokens its answer may have."""

    chat: Chat
    size: int
    max_tokens: int


class Windowed(Reranker):
    """Shows a model windows of passages, as the plan says, and reorders by its answers.

    All queries' windows that wait at once are one batch for the model. An answer that does not name every passage
    once is completed and counted (``Step.repaired``), and so are passages that were shortened (``Step.cut``, each once
    for a query) and windows that the budget did not allow (``Step.skipped``). Unlike RankLLM the new order gets new
    scores, 1/rank, and a single passage costs no call.

    :param lm: the model.
    :param plan: which passages are judged together, and when.
    :param prompt: the name of one of our prompts, or a :class:`Prompt` read from a file of your own.
    :param max_words: of each passage; fewer where the context asks for it.
    :param depth: hits after the first ``depth`` stay where they are (RankLLM's rank_end).
    :param budget: the most that one query may cost; the best order so far is given when it is spent.
    """

    def __init__(self, lm: LM, plan: Planner, prompt: str | Prompt, max_words: int, depth: int, budget: Budget) -> None:
        if max_words < 1 or depth < 1:
            raise RecipeError([f"max_words={max_words}, depth={depth}: both must be 1 or more"])
        if not callable(getattr(type(lm), "complete", None)):
            raise RecipeError([f"lm: {lm!r} is no language model; for example {{use: hf, model: smollm2}}"])
        if not callable(plan):
            raise RecipeError([f"plan: {plan!r} is no plan; for example {{use: sliding}}"])
        self.lm, self.plan, self.max_words, self.depth, self.budget = lm, plan, max_words, depth, budget
        self.prompt = chosen(prompt, Prompt, *get_args(Answer))
        self.batch = getattr(lm, "together", self.batch)

    @abstractmethod
    def ask(self, windows: Sequence[Asked]) -> Sequence[Said]:
        """The model's answer to each window."""

    @abstractmethod
    def max_tokens(self, n: int) -> int:
        """How many tokens the answer to a window of ``n`` passages may have."""

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Rerank all queries in step.

        :raises ModelError: If a prompt cannot be made to fit, or the model fails.
        """
        spent = [Spent() for _ in batch]
        prompts: dict[Window, Fitted] = {}
        plans = [self.plan(min(len(r.hits), self.depth)) for r in batch]
        judge = partial(self._judge, batch, spent, prompts)
        orders = drive(plans, judge, partial(self._admit, batch, spent, prompts))
        return [self._finished(*one) for one in zip(batch, orders, spent, strict=True)]

    def _admit(
        self, batch: Sequence[Ranking], spent: list[Spent], prompts: dict[Window, Fitted], q: int, windows: Windows
    ) -> bool:
        """Make the prompts of a round, unless the query's budget is spent."""
        made = {(q, tuple(window)): self._fit(batch[q], window) for window in windows}
        tokens = sum(prompt.tokens + self.max_tokens(len(window)) for (_, window), prompt in made.items())
        if not self.budget.allows(spent[q], len(windows), tokens):
            spent[q].skipped = max(self.plan.calls(min(len(batch[q].hits), self.depth)) - spent[q].calls, len(windows))
            return False
        prompts |= made
        return True

    def _judge(
        self,
        batch: Sequence[Ranking],
        spent: list[Spent],
        prompts: dict[Window, Fitted],
        asked: list[tuple[int, list[int]]],
    ) -> Windows:
        start = perf_counter()
        fitted = [prompts.pop((q, tuple(window))) for q, window in asked]
        windows = [
            Asked(prompt.chat, len(window), self.max_tokens(len(window)))
            for (_, window), prompt in zip(asked, fitted, strict=True)
        ]
        said = self.ask(windows)
        seconds = (perf_counter() - start) / len(asked)
        orders: Windows = []
        for (q, window), prompt, one in zip(asked, fitted, said, strict=True):
            spent[q].pay(seconds, one.tokens_in, one.tokens_out, one.reply.mended)
            spent[q].cut.update(window[i] for i in prompt.cut)
            orders.append([window[i] for i in one.reply.order])
            ledger.note(partial(_entry, batch[q], window, prompt, one, seconds))
        return orders

    def _fit(self, ranking: Ranking, window: Sequence[int]) -> Fitted:
        docs = [ranking.hits[i].doc for i in window]
        room = self.max_tokens(len(docs))
        return fit(self.prompt, self.lm, ranking.query, docs, max_words=self.max_words, max_tokens=room)

    def _finished(self, ranking: Ranking, order: list[int], spent: Spent) -> Ranking:
        cost = Step(
            self.name,
            calls=spent.calls,
            tokens_in=spent.tokens_in,
            tokens_out=spent.tokens_out,
            repaired=spent.repaired,
            cut=len(spent.cut),
            skipped=spent.skipped,
        )
        return ranking.reordered([*order, *range(len(order), len(ranking.hits))]).noting(cost)


def _entry(ranking: Ranking, window: Sequence[int], prompt: Fitted, said: Said, seconds: float) -> ledger.Entry:
    ids = [ranking.hits[i].doc.id for i in window]
    return ledger.Entry(
        query=ranking.query.id,
        docs=tuple(ids),
        messages=prompt.chat,
        reply=said.text,
        order=tuple(ids[i] for i in said.reply.order),
        kind=said.reply.kind,
        missing=said.reply.missing,
        repeated=said.reply.repeated,
        foreign=said.reply.foreign,
        cut=len(prompt.cut),
        words=prompt.words,
        tokens_in=said.tokens_in,
        tokens_out=said.tokens_out,
        seconds=seconds,
    )
