"""Rerank by the first token: how likely each passage's label is to come next (FIRST, Reddy et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import exp

from rankpipe.lm import LM, Choice
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.fit import Fitted, choice_tokens
from rankpipe.rerank.parse import Reply
from rankpipe.rerank.plans import Planner, Sliding
from rankpipe.rerank.prompts import Prompt
from rankpipe.rerank.said import Said
from rankpipe.rerank.windowed import Windowed


class First(Windowed):
    """The model writes nothing: after ``[`` the labels of a window are ordered by their probability as the next token.

    One forward pass a window, where :class:`~rankpipe.rerank.listwise.Listwise` generates some eighty tokens. A label
    that the model does not rate (an API that tells its likeliest tokens only) goes last, in its old order, and counts
    as missing. Labels must be single tokens: letters are in every tokenizer we know, and number a window of 52 (A to Z,
    then a to z); numbers beyond 9 are single tokens only in some. Where the reply begins with a word (``Passage A``),
    the blank before a label belongs to the label, as it does for tokenizers. Unlike RankLLM, which reads the likeliest
    30 tokens, all labels are rated.

    See :class:`~rankpipe.rerank.windowed.Windowed` for the arguments and what is counted.
    """

    def __init__(
        self,
        lm: LM,
        plan: Planner = Sliding(),  # noqa: B008  frozen
        prompt: str | Prompt = "first",
        max_words: int = 300,
        depth: int = 100,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(lm, plan, prompt, max_words, depth, budget)

    def ask(self, windows: Sequence[Fitted]) -> Sequence[Said]:
        """One batch for each size of window."""
        said: dict[int, Said] = {}
        for size in dict.fromkeys(w.size for w in windows):
            places = [i for i, w in enumerate(windows) if w.size == size]
            labels = self.prompt.names(size)
            rated = self.lm.choose(
                [windows[i].chat for i in places], [self._blank + label for label in labels], begin=self._begin
            )
            said.update((i, _said(labels, choice)) for i, choice in zip(places, rated, strict=True))
        return [said[i] for i in range(len(windows))]

    def max_tokens(self, n: int) -> int:
        """One and how the reply begins, whatever the window."""
        return self._room if n else 0

    @property
    def _begin(self) -> str:
        return self.prompt.begin.rstrip()

    @property
    def _blank(self) -> str:
        return self.prompt.begin[len(self._begin) :]

    @cached_property
    def _room(self) -> int:
        return choice_tokens(self.lm, self._begin)


def _said(labels: Sequence[str], choice: Choice) -> Said:
    order, rated = by_likelihood(choice.logprobs)
    text = " > ".join(f"{labels[p]} {exp(choice.logprobs[p]):.3g}" for p in order[:rated])
    return Said(Reply(order, missing=len(labels) - rated), text, choice.tokens_in, 1, choice.seconds)


def by_likelihood(logprobs: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """Positions by falling log-probability, equal ones in their old order; and how many have one at all."""
    rated = [p for p, logprob in enumerate(logprobs) if logprob > float("-inf")]
    best = sorted(rated, key=lambda p: -logprobs[p])
    return (*best, *(p for p in range(len(logprobs)) if p not in set(rated))), len(rated)
