"""Rerank with a language model that is shown a window of passages and writes their order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from rankpipe.errors import RecipeError
from rankpipe.lm import LM, Completion
from rankpipe.lm.cache import Absent
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.fit import Fitted, written_tokens
from rankpipe.rerank.plans import Planner, Sliding
from rankpipe.rerank.prompts import Prompt
from rankpipe.rerank.said import Said
from rankpipe.rerank.windowed import Windowed

NAMING = 7  # tokens around a name


class Listwise(Windowed):
    """The model writes ``[2] > [1] > [3]`` (RankGPT, Sun et al. 2023; RankVicuna, RankZephyr, Pradeep et al. 2023).

    A prompt that asks for the best passage only (setwise, pairwise) goes with plans that need no more. A prompt for
    orders goes with every plan, for a model may know no other.

    There a model may write what it will: a reply that leaves a passage out or names one twice is completed, and
    counted. With ``constrained`` it writes nothing but orders (constrained decoding: at each place the likeliest of
    the labels that are left), in fewer passes. A reply that would have been an order anyway is the same.

    See :class:`~rankpipe.rerank.windowed.Windowed` for the other arguments and what is counted.

    :param constrained: write nothing but orders; for ``hf``, of which the logits are at hand.
    """

    def __init__(
        self,
        lm: LM,
        plan: Planner = Sliding(),  # noqa: B008  frozen
        prompt: str | Prompt = "rank_zephyr",
        max_words: int = 300,
        depth: int = 100,
        budget: Budget = Budget(),  # noqa: B008  frozen
        constrained: bool = False,
    ) -> None:
        super().__init__(lm, plan, prompt, max_words, depth, budget)
        if self.prompt.answer == "best" and not plan.best_only:
            fault = f"prompt {self.prompt.name!r} asks for the best passage only, but {plan} needs whole orders"
            raise RecipeError([f"{fault}; take a setwise or pairwise plan, or a prompt for orders (rank_zephyr)"])
        if constrained and not (hasattr(inner := _innermost(lm), "arrange") or isinstance(inner, Absent)):
            raise RecipeError([f"constrained: a {type(inner).__name__} writes what it will; expected hf"])
        self.constrained = constrained
        self._lengths: dict[int, int] = {}

    def ask(self, windows: Sequence[Fitted]) -> Sequence[Said]:
        """One batch for each length of reply, of which there are few: no reply depends on what else is asked."""
        written: dict[int, Completion] = {}
        for size in dict.fromkeys(w.size for w in windows):
            places = [i for i, w in enumerate(windows) if w.size == size]
            written.update(zip(places, self._write([windows[i] for i in places]), strict=True))
        said = (written[i] for i in range(len(windows)))
        return [
            Said(self.prompt.read(c.text, w.size), c.text, c.tokens_in, c.tokens_out, c.seconds)
            for w, c in zip(windows, said, strict=True)
        ]

    def _write(self, windows: Sequence[Fitted]) -> Sequence[Completion]:
        """Replies to windows of one size."""
        chats = [w.chat for w in windows]
        if self.constrained:
            written: Sequence[Completion] = self.lm.arrange(chats, self.prompt.form(windows[0].size))  # type: ignore[attr-defined]  # checked
            return written
        return self.lm.complete(chats, max_tokens=windows[0].max_tokens)

    def cost(self, prompt: Fitted) -> int:
        """Thoughts included."""
        return super().cost(prompt) + self._thinking

    def max_tokens(self, n: int) -> int:
        """As many as a whole answer for ``n`` passages takes, without the chat template around it; for the best one's
        name some more, since a model may say "Passage C" or "**C**".
        """
        if n not in self._lengths:
            more = NAMING if self.prompt.answer == "best" else 0
            self._lengths[n] = written_tokens(self.lm, self.prompt.longest(n)) + more
        return self._lengths[n]

    @cached_property
    def _thinking(self) -> int:
        return int(getattr(self.lm, "thinking", 0))


def _innermost(lm: object) -> object:
    """Who answers in the end: not a cache, not the one that deals chats out."""
    while hasattr(lm, "lm"):
        lm = lm.lm
    return lm
