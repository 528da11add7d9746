"""What all rerankers share that show a model windows of passages: plans, fitting, budgets, bills, the ledger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import ClassVar, Generic, TypeVar, get_args

from rankpipe.data import Doc, Query, Ranking
from rankpipe.errors import RecipeError
from rankpipe.lm import LM, prepare
from rankpipe.lm.due import within
from rankpipe.progress import counting
from rankpipe.rerank.budget import Budget, Spent
from rankpipe.rerank.fit import MUCH, Fitted, fit
from rankpipe.rerank.parse import Answer
from rankpipe.rerank.plans import Ballot, Planner, Windows, drive
from rankpipe.rerank.prompts import Prompt, chosen
from rankpipe.rerank.said import Said, ended, settle
from rankpipe.stage import Reranker
from rankpipe.threads import Pool

P = TypeVar("P", bound=Fitted)
Window = tuple[int, tuple[int, ...]]  # (which query, positions)


class Planned(Reranker, Generic[P]):
    """Shows a model windows of passages, as the plan says, and reorders by what it says of them.

    All queries' windows that wait at once are one batch for the model. Replies that had to be mended are counted
    (``Step.repaired``), and so are passages that were shortened (``Step.cut``, each once for a query) and windows that
    the budget did not allow (``Step.skipped``). Unlike RankLLM the new order gets new scores, 1/rank, and a single
    passage costs no call.

    :param plan: which passages are judged together, and when.
    :param max_words: of each passage; fewer where the context asks for it.
    :param depth: hits after the first ``depth`` stay where they are (RankLLM's rank_end).
    :param budget: the most that one query may cost; the best order so far is given when it is spent.
    """

    tells: ClassVar[bool] = True
    counts = "windows"
    lm: LM  # who is asked

    def __init__(self, plan: Planner, max_words: int, depth: int, budget: Budget) -> None:
        if max_words < 1 or depth < 1:
            raise RecipeError([f"max_words={max_words}, depth={depth}: both must be 1 or more"])
        if not callable(plan):
            raise RecipeError([f"plan: {plan!r} is no plan; for example {{use: sliding}}"])
        self.plan, self.max_words, self.depth, self.budget = plan, max_words, depth, budget

    @abstractmethod
    def fit(self, query: Query, docs: Sequence[Doc]) -> P:
        """The prompt for a window.

        :raises ModelError: If it cannot be made to fit.
        """

    @abstractmethod
    def ask(self, windows: Sequence[P]) -> Sequence[Said]:
        """What the model says of each window."""

    def cost(self, prompt: P) -> int:
        """The most tokens that a window may cost, in and out."""
        return prompt.tokens + prompt.max_tokens

    def shown(self, window: Sequence[int]) -> Sequence[int]:
        """A window in the order in which the model is shown it."""
        return window

    def work(self, ranking: Ranking) -> int:
        """All windows that the plan may ask for."""
        return self.budget.most(self.plan.calls(min(len(ranking.hits), self.depth)))

    def refuse(self, ranking: Ranking) -> None:
        """Refuse a query too long for its first window.

        :raises ModelError: If it is.
        """
        n = min(len(ranking.hits), self.depth)
        if len(ranking.query.text) >= MUCH and n > 1:
            window = max(next(self.plan(n)).windows, key=len)
            self.fit(ranking.query, [ranking.hits[i].doc for i in window])

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Rerank all queries in step.

        :raises ModelError: If a prompt cannot be made to fit, or the model fails.
        """
        spent = [Spent() for _ in batch]
        prompts: dict[Window, P] = {}
        plans = [self.plan(min(len(r.hits), self.depth)) for r in batch]
        judge = partial(self._judge, batch, spent, prompts)
        parallel = getattr(self.lm, "parallel", 1)
        if parallel > 1 and any(len(r.hits) > 1 for r in batch):
            _ = self.lm.context  # before all threads ask a server for it, of which none may get an answer
        with Pool(parallel) as pool:
            each = pool.map if parallel > 1 else map
            orders = drive(plans, judge, partial(self._admit, batch, spent, prompts), each)
        ended(batch, spent)
        return [
            r.reordered([*order, *range(len(order), len(r.hits))]).noting(cost.step(self.name))
            for r, order, cost in zip(batch, orders, spent, strict=True)
        ]

    def _admit(
        self, batch: Sequence[Ranking], spent: list[Spent], prompts: dict[Window, P], q: int, windows: Windows
    ) -> int:
        """Make the prompts of those windows that the query's budget allows now; how many there are."""
        hits = batch[q].hits

        def make(window: list[int]) -> tuple[P, int]:
            prompt = self.fit(batch[q].query, [hits[i].doc for i in self.shown(window)])
            return prompt, self.cost(prompt)

        made = self.budget.next(spent[q], windows, make)
        if not made:
            whole = self.plan.calls(min(len(hits), self.depth))
            spent[q].skipped = max(whole - spent[q].calls, len(windows))
        prompts.update(((q, tuple(window)), prompt) for window, prompt in zip(windows, made, strict=False))
        return len(made)

    def _judge(
        self, batch: Sequence[Ranking], spent: list[Spent], prompts: dict[Window, P], asked: list[tuple[int, list[int]]]
    ) -> Windows:
        prepare(self.lm)
        start = perf_counter()
        fitted = [prompts.pop((q, tuple(window))) for q, window in asked]
        with counting("windows", len(fitted)), within(self.budget.left(spent[q] for q, _ in asked)):
            said = self.ask(fitted)
        share_s = (perf_counter() - start) / len(asked)
        orders: Windows = []
        for (q, window), prompt, one in zip(asked, fitted, said, strict=True):
            places = self.shown(window)
            settle(batch[q], places, prompt, one, spent[q], share_s)
            orders.append(Ballot([places[i] for i in one.reply.order], one.reply.told))
        return orders


class Windowed(Planned[Fitted]):
    """Asks a language model for the order of a window. An answer that does not name every passage once is completed,
    and counted. See :class:`Planned` for the other arguments.

    :param lm: the model.
    :param prompt: the name of one of our prompts, or a :class:`Prompt` read from a file of your own.
    """

    def __init__(self, lm: LM, plan: Planner, prompt: str | Prompt, max_words: int, depth: int, budget: Budget) -> None:
        super().__init__(plan, max_words, depth, budget)
        if not callable(getattr(type(lm), "complete", None)):
            raise RecipeError([f"lm: {lm!r} is no language model; for example {{use: hf, model: smollm2}}"])
        self.lm = lm
        self.prompt = chosen(prompt, Prompt, *get_args(Answer))
        self.batch = getattr(lm, "together", self.batch)

    @abstractmethod
    def max_tokens(self, n: int) -> int:
        """How many tokens the answer to a window of ``n`` passages may have."""

    def fit(self, query: Query, docs: Sequence[Doc]) -> Fitted:
        """The prompt, with as many words of each passage as there is room for beside the answer."""
        room, exact = self.max_tokens(len(docs)), self.budget.tokens is not None
        return fit(self.prompt, self.lm, query, docs, max_words=self.max_words, max_tokens=room, exact=exact)
