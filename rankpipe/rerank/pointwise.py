"""Rerank with a language model that is shown one passage at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from math import exp, inf, log
from time import perf_counter
from typing import ClassVar, NamedTuple

from rankpipe.data import Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import LM, prepare
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.clean import harmless
from rankpipe.rerank.fit import MUCH, Fitted, choice_tokens, fit, reply_tokens
from rankpipe.rerank.parse import Reply
from rankpipe.rerank.prompts import PointPrompt, chosen
from rankpipe.rerank.said import Said, ended, settle
from rankpipe.rerank.scores import ByScore, rescored
from rankpipe.rerank.template import PointAnswer

UNRATED = -10_000.0  # a log-probability that no model gives


class Rated(NamedTuple):
    """What the model said of one passage."""

    score: float | None  # None if it did not say
    said: Said


class Asked(NamedTuple):
    """One passage to be rated."""

    q: int  # which query of the batch
    place: int  # which of its hits
    query: Query
    prompt: Fitted


class OneByOne(ByScore):
    """Shows a model each of the first ``depth`` passages by itself, and sorts them by what it says.

    A score does not depend on the other passages, and compares across queries as far as the model's sense of it does.
    All passages of a batch of queries go to the model together. Passages that were shortened are counted
    (``Step.cut``), so are those that the model said nothing about (``Step.repaired``) and those that the budget did not
    allow (``Step.skipped``). These stay below the others in their old order, then come the hits after ``depth``; their
    scores fall on from the last one's by 1 a rank.

    :param lm: the model.
    :param prompt: the name of one of our prompts, or a :class:`PointPrompt` read from a file of your own.
    :param max_words: of each passage; fewer where the context asks for it.
    :param depth: hits of a ranking that are rated.
    :param budget: the most that one query may cost; its lowest hits are not rated when it is spent.
    """

    tells = True
    answer: ClassVar[PointAnswer]

    def __init__(self, lm: LM, prompt: str | PointPrompt, max_words: int, depth: int, budget: Budget) -> None:
        if max_words < 1 or depth < 1:
            raise RecipeError([f"max_words={max_words}, depth={depth}: both must be 1 or more"])
        self.lm, self.max_words, self.depth, self.budget = lm, max_words, depth, budget
        self.prompt = chosen(prompt, PointPrompt, self.answer)
        self.batch = getattr(lm, "together", self.batch)

    @abstractmethod
    def rate(self, asked: Sequence[Asked]) -> Sequence[Rated]:
        """What the model says of each passage."""

    @abstractmethod
    def room(self, query: Query) -> int:
        """Tokens that a prompt leaves free for what follows it."""

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Rate the passages of all queries together; a few at a time where seconds are limited.

        :raises ModelError: If a prompt cannot be made to fit, or the model fails.
        """
        spent = [Spent() for _ in batch]
        scores: list[list[float | None]] = [[] for _ in batch]
        rooms = cache(lambda q: self.room(batch[q].query))

        def make(q: int, place: int) -> tuple[Asked, int]:
            prompt = self._fit(batch[q], place, room := rooms(q))
            return Asked(q, place, batch[q].query, prompt), prompt.tokens + room

        def ask(asked: list[Asked]) -> None:
            prepare(self.lm)
            start = perf_counter()
            rated = self.rate(asked)
            share_s = (perf_counter() - start) / len(asked)
            for one, (score, said) in zip(asked, rated, strict=True):
                scores[one.q].append(score)
                settle(batch[one.q], [one.place], one.prompt, said, spent[one.q], share_s)

        spend(self.budget, spent, [range(min(len(r.hits), self.depth)) for r in batch], make, ask)
        ended(batch, spent)
        return [
            rescored(r, rated, self.name).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]

    def refuse(self, ranking: Ranking) -> None:
        """Refuse a query too long for the first passage.

        :raises ModelError: If it is.
        """
        if len(ranking.query.text) >= MUCH and ranking.hits:
            self._fit(ranking, 0, self.room(ranking.query))

    def _fit(self, ranking: Ranking, place: int, room: int) -> Fitted:
        """The prompt for one hit."""
        query, docs, exact = ranking.query, [ranking.hits[place].doc], self.budget.tokens is not None
        return fit(self.prompt, self.lm, query, docs, max_words=self.max_words, max_tokens=room, exact=exact)


class Pointwise(OneByOne):
    """The model is asked for yes or no; the score is log P(yes) - log P(no), from one forward pass a passage.

    Probabilities are summed over those spellings (the prompt's ``yes_words`` and ``no_words``) that are single tokens
    of the model. RankLLM's score, P(yes) / (P(yes) + P(no)), gives the same order as long as it is not rounded to 1,
    as it is for a passage that a model is sure of. RankLLM gives 0 where neither is rated, and -1 where a request
    failed; here the passage counts as repaired, and a failed request is an error.

    See :class:`OneByOne` for the arguments and what is counted.
    """

    answer = "verdict"

    def __init__(
        self,
        lm: LM,
        prompt: str | PointPrompt = "pointwise",
        max_words: int = 300,
        depth: int = 100,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(lm, prompt, max_words, depth, budget)

    def rate(self, asked: Sequence[Asked]) -> Sequence[Rated]:
        """One batch of next tokens."""
        yes, no = self.words
        chats = [one.prompt.chat for one in asked]
        made = []
        for choice in self.lm.choose(chats, [*yes, *no], begin=self.prompt.begin):
            score = verdict(choice.logprobs[: len(yes)], choice.logprobs[len(yes) :])
            text = "neither yes nor no" if score is None else f"yes {share(score):.6g}, log-odds {score:.6g}"
            made.append(_rated(score, text, choice.tokens_in, 1, choice.seconds))
        return made

    def room(self, query: Query) -> int:  # noqa: ARG002
        """For how the reply begins, and the verdict."""
        return self._room

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """The spellings of yes and of no that are single tokens of the model.

        :raises ModelError: If there is none of one of them.
        """
        return self._tokens(self.prompt.yes_words), self._tokens(self.prompt.no_words)

    @cached_property
    def _room(self) -> int:
        return choice_tokens(self.lm, self.prompt.begin)

    def _tokens(self, words: Sequence[str]) -> list[str]:
        begin = self.prompt.begin
        if found := [word for word in words if self.lm.is_token(word, begin=begin)]:
            return found
        raise ModelError(
            f"prompt {self.prompt.name!r}: none of {', '.join(words)} is a single token of the model after {begin!r}; "
            "take other words"
        )


class QueryLikelihood(OneByOne):
    """UPR (Sachan et al. 2022): how likely the query is as a question that the model asks of the passage.

    The score is the mean log-likelihood of the query's tokens, from one forward pass a passage. The paper's model is
    T0, an encoder and decoder; ours is any that chats. A query without tokens rates nothing. The query's
    tokens count as read.

    See :class:`OneByOne` for the arguments and what is counted.
    """

    answer = "query"

    def __init__(
        self,
        lm: LM,
        prompt: str | PointPrompt = "upr",
        max_words: int = 300,
        depth: int = 100,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(lm, prompt, max_words, depth, budget)

    def rate(self, asked: Sequence[Asked]) -> Sequence[Rated]:
        """One batch of queries as replies."""
        made = []
        for said in self.lm.likelihood([a.prompt.chat for a in asked], [harmless(a.query.text) for a in asked]):
            mean = said.logprob / said.tokens if said.tokens else None
            text = f"{mean} a token of the query"
            made.append(_rated(mean, text, said.tokens_in + said.tokens, 0, said.seconds))
        return made

    def room(self, query: Query) -> int:
        """For the query."""
        return reply_tokens(self.lm, harmless(query.text))


def verdict(yes: Sequence[float], no: Sequence[float]) -> float | None:
    """log P(yes) - log P(no), from log-probabilities of their spellings; None if all are -inf.

    Where one word is not rated at all (an API that tells its likeliest tokens only), :data:`UNRATED` stands for it, so
    that passages are still told apart by the other one.
    """
    likely, unlikely = _together(yes), _together(no)
    if likely == unlikely == -inf:
        return None
    return max(likely, UNRATED) - max(unlikely, UNRATED)


def share(log_odds: float) -> float:
    """P(yes) / (P(yes) + P(no))."""
    small = exp(-abs(log_odds))
    return (1.0 if log_odds >= 0 else small) / (1 + small)


def _together(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities."""
    top = max(logprobs)
    return top if top == -inf else top + log(sum(exp(logprob - top) for logprob in logprobs))


def _rated(score: float | None, text: str, tokens_in: int, tokens_out: int, seconds: float | None) -> Rated:
    return Rated(score, Said(Reply((0,), missing=int(score is None)), text, tokens_in, tokens_out, seconds))
