"""In-context reranking: what a language model looks at when it reads a query (ICR, Chen et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Query, Ranking, Step
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm.hf import HF
from rankpipe.progress import track
from rankpipe.rerank.clean import clean, harmless
from rankpipe.rerank.fit import Passage, most_words
from rankpipe.rerank.plans import Planner, Sliding, Windows, drive
from rankpipe.stage import Reranker

# The prompt of the authors' code for search ("IE"); the instruction comes last, so that all of it sees the passages.
BEFORE, BETWEEN, PASSAGE = "Here are some paragraphs:", "\n\n", "[{label}] {passage}"
AFTER = (
    "\n\nPlease find information that are relevant to the following query in the paragraphs above.\n\nQuery: {query}"
)
NOTHING = "N/A"  # the query that asks nothing: what is looked at all the same, is no relevance
OUTLIERS = 2  # standard deviations below the mean at which a token's score is left out

Scores = NDArray[np.float64]  # (tokens,)


@dataclass
class Spent:
    """What one query has cost so far."""

    calls: int = 0
    tokens: int = 0
    cut: set[int] = field(default_factory=set)  # positions of passages that were shortened


class InContext(Reranker):
    """Shows a model a window of passages and then the query, and ranks passages by how much the query looks at them.

    Nothing is generated: a passage's score is the attention from the query's tokens to its own, summed over layers and
    heads, less what a query that asks nothing ("N/A") gives it; tokens that lose much more than others of their
    passage are left out. Two forward passes a window: the first reads the passages, the second goes on from its keys
    and values. Windows of several rounds are judged one after the other, and hits get new scores, 1/rank. Hits after
    ``depth`` stay where they are.

    As in the authors' code, the tokens that look are those of the instruction and the query and all that the chat
    template puts after them, and as in their runs on BEIR the best passage so far stands last, next to the query;
    unlike there, attention is added up in single precision. One window over all passages is said to do better than
    several, where the context is long enough for it. Small models look at what is near, whatever it says: SmolLM2 of
    135 million parameters finds an easy answer among five passages, but orders a run worse than BM25 (docs/log.md).

    :param lm: a model that transformers runs in this process; attention is nothing that a server tells.
    :param plan: which passages are judged together, and when.
    :param max_words: of each passage; fewer where the context asks for it.
    :param depth: hits of a ranking that are reranked.
    """

    def __init__(
        self,
        lm: HF,
        plan: Planner = Sliding(),  # noqa: B008  frozen
        max_words: int = 300,
        depth: int = 100,
    ) -> None:
        if max_words < 1 or depth < 1:
            raise RecipeError([f"InContext(max_words={max_words}, depth={depth}): both must be 1 or more"])
        if not isinstance(lm, HF):
            raise RecipeError([f"lm: a {type(lm).__name__} does not say what it looks at; expected hf"])
        self.lm, self.plan, self.max_words, self.depth = lm, plan, max_words, depth

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Rerank all queries in step.

        :raises ModelError: If a prompt cannot be made to fit, or the model's attention is not to be had.
        """
        spent = [Spent() for _ in batch]
        plans = [self.plan(min(len(r.hits), self.depth)) for r in batch]

        def judge(asked: list[tuple[int, list[int]]]) -> Windows:
            windows = track(asked, f"{self.lm.model}: windows")
            return [self._order(batch[q], window, spent[q]) for q, window in windows]

        orders = drive(plans, judge)
        return [self._finished(*one) for one in zip(batch, orders, spent, strict=True)]

    def _order(self, ranking: Ranking, window: list[int], spent: Spent) -> list[int]:
        """The window's positions, best first; of equal ones the former."""
        shown = window[::-1]
        passages = [Passage(clean(ranking.hits[i].doc.contents), self.max_words) for i in shown]
        words = self._words(ranking.query, passages)
        scores = self._scores(ranking.query, [p.first(words) for p in passages], spent)[::-1]
        spent.cut.update(i for i, p in zip(shown, passages, strict=True) if len(p.ends) > words)
        return [window[i] for i in np.argsort(-scores, kind="stable")]

    def _words(self, query: Query, passages: Sequence[Passage]) -> int:
        """How many words of each passage fit."""

        @cache
        def tokens(words: int) -> int:
            return len(self.lm.parts(_said(query.text, [p.first(words) for p in passages]))[0])

        room = self.lm.context - len(NOTHING)  # which may be longer than the query
        if not (words := most_words(tokens, room, self.max_words)):
            raise ModelError(
                f"query {query.id!r}: {tokens(1)} tokens with one word of each of {len(passages)} passages, but of "
                f"the model's context only {room} are left; shorten the query, take smaller windows or a model with a "
                "longer context"
            )
        return words

    def _scores(self, query: Query, passages: Sequence[str], spent: Spent) -> Scores:
        """Of each passage, (passages,)."""
        ids, places = self.lm.parts(_said(query.text, passages))
        blank, _ = self.lm.parts(_said(NOTHING, passages))
        start = places[-1].start
        calibration, looks = map(np.array, self.lm.attention(ids[:start], [blank[start:], ids[start:]]))
        spent.calls += 2
        spent.tokens += len(blank) + len(ids) - start
        return np.array([calibrated(looks[[*part]], calibration[[*part]]) for part in places[1:-1:2]])

    def _finished(self, ranking: Ranking, order: list[int], spent: Spent) -> Ranking:
        cost = Step(self.name, calls=spent.calls, tokens_in=spent.tokens, cut=len(spent.cut))
        return ranking.reordered([*order, *range(len(order), len(ranking.hits))]).noting(cost)


def calibrated(looks: Scores, calibration: Scores) -> float:
    """The sum of what the query adds to a passage's tokens, outliers below left out."""
    more = looks - calibration  # (tokens,)
    least = more.mean() - OUTLIERS * more.std(ddof=1) if len(more) > 1 else more
    return float(more[more >= least].sum())


def _said(query: str, passages: Sequence[str]) -> list[str]:
    """The message: what stands before, each passage with what stands between, what stands after."""
    shown = [PASSAGE.format(label=i, passage=passage) for i, passage in enumerate(passages, 1)]
    between = [part for passage in shown for part in (passage, BETWEEN)][:-1]
    return [BEFORE + BETWEEN, *between, AFTER.format(query=harmless(query)).rstrip()]
