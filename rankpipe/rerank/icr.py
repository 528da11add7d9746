"""In-context reranking: what a language model looks at when it reads a query (ICR, Chen et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Query
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm.hf import HF
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.clean import clean, harmless, unlabelled
from rankpipe.rerank.fit import Fitted, Passage, most_pieces, most_words
from rankpipe.rerank.parse import Reply
from rankpipe.rerank.plans import Planner, Sliding
from rankpipe.rerank.said import Said
from rankpipe.rerank.windowed import Planned

# The prompt of the authors' code for search ("IE"); the instruction comes last, so that all of it sees the passages.
BEFORE, BETWEEN, PASSAGE = "Here are some paragraphs:", "\n\n", "[{label}] {passage}"
AFTER = (
    "\n\nPlease find information that are relevant to the following query in the paragraphs above.\n\nQuery: {query}"
)
NOTHING = "N/A"  # the query that asks nothing: what is looked at all the same, is no relevance
OUTLIERS = 2  # standard deviations below the mean at which a token's score is left out

Scores = NDArray[np.float64]  # (tokens,)


@dataclass(frozen=True)
class Read(Fitted):
    """A window's prompt, as the model reads it."""

    ids: list[int]
    blank: list[int]  # the same with the query that asks nothing
    places: list[range]  # where each passage's tokens are
    start: int  # where the query's part begins


class InContext(Planned[Read]):
    """Shows a model a window of passages and then the query, and ranks passages by how much the query looks at them.

    Nothing is generated: a passage's score is the attention from the query's tokens to its own, summed over layers and
    heads, less what a query that asks nothing ("N/A") gives it; tokens that lose much more than others of their
    passage are left out. A call is a window, of two forward passes: the first reads the passages, the second goes on
    from its keys and values. Windows are judged one after the other.

    As in the authors' code, the tokens that look are those of the instruction and the query and all that the chat
    template puts after them, and as in their runs on BEIR the best passage so far stands last, next to the query;
    unlike there, attention is added up in single precision. One window over all passages is said to do better than
    several, where the context is long enough for it. Small models look at what is near, whatever it says: SmolLM2 of
    135 million parameters finds an easy answer among five passages, but orders a run worse than BM25 (docs/log.md).

    See :class:`~rankpipe.rerank.windowed.Planned` for the other arguments and what is counted.

    :param lm: a model that transformers runs in this process; attention is nothing that a server tells.
    """

    lm: HF

    def __init__(
        self,
        lm: HF,
        plan: Planner = Sliding(),  # noqa: B008  frozen
        max_words: int = 300,
        depth: int = 100,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(plan, max_words, depth, budget)
        if not isinstance(lm, HF):
            raise RecipeError([f"lm: a {type(lm).__name__} does not say what it looks at; expected hf"])
        self.lm = lm

    def shown(self, window: Sequence[int]) -> Sequence[int]:
        """The best so far is shown last."""
        return window[::-1]

    def fit(self, query: Query, docs: Sequence[Doc]) -> Read:
        """The prompt, with as many words of each passage as fit."""
        labels = [str(i) for i in range(1, len(docs) + 1)]
        passages = [Passage(unlabelled(clean(doc.contents), labels), self.max_words) for doc in docs]

        @cache
        def tokens(pieces: int) -> int:
            return len(self.lm.parts(_said(query.text, [p.first(pieces) for p in passages]))[0])

        room = self.lm.context - len(NOTHING)  # which may be longer than the query
        if not (pieces := most_words(tokens, room, most_pieces(passages, self.max_words))):
            raise ModelError(
                f"query {query.id!r}: {tokens(1)} tokens with one word of each of {len(passages)} passages, but of "
                f"the model's context only {room} are left; shorten the query, take smaller windows or a model with a "
                "longer context"
            )
        return Read.of(passages, pieces, self.max_words, **self._read(query, [p.first(pieces) for p in passages]))

    def _read(self, query: Query, passages: Sequence[str]) -> dict[str, Any]:
        said = _said(query.text, passages)
        ids, places = self.lm.parts(said)
        blank, _ = self.lm.parts(_said(NOTHING, passages))
        start = places[-1].start
        return {
            "chat": [{"role": "user", "content": "".join(said)}],
            "tokens": len(blank) + len(ids) - start,
            "max_tokens": 0,
            "ids": ids,
            "blank": blank,
            "places": places[1:-1:2],
            "start": start,
        }

    def ask(self, windows: Sequence[Read]) -> Sequence[Said]:
        """Look at one window after the other."""
        return [self._judged(window) for window in windows]

    def _judged(self, window: Read) -> Said:
        """Its passages, best first; of equal ones the better one so far, which was shown later."""
        scores = self.scores(window).tolist()
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], -i))
        text = " > ".join(f"[{i + 1}] {scores[i]:.4g}" for i in order)
        return Said(Reply(tuple(order)), text, window.tokens, 0)

    def scores(self, window: Read) -> Scores:
        """Of each passage as shown, (passages,)."""
        ends = [window.blank[window.start :], window.ids[window.start :]]
        calibration, looks = map(np.array, self.lm.attention(window.ids[: window.start], ends))
        return np.array([calibrated(looks[[*place]], calibration[[*place]]) for place in window.places])


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
