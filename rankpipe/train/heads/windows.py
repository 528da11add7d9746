"""Heads of language models that are shown a list: by the first token, or by the order that they write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from rankpipe.catalog import require
from rankpipe.errors import ModelError
from rankpipe.rerank.first import First
from rankpipe.rerank.fit import Fitted, fit
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Planner, Sliding
from rankpipe.rerank.windowed import Windowed
from rankpipe.stage import Reranker
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Dtype, Head, Outputs, cut, targets
from rankpipe.train.heads.lm import OfLM, ends


@dataclass(frozen=True)
class ListwiseHead(Head):
    """For :class:`~rankpipe.rerank.listwise.Listwise`: the model learns to write the order (``permutation-lm``).

    :param prompt: as that has it.
    :param plan: its windows when it is evaluated.
    :param max_words: of each passage, at most.
    :param context: tokens of a prompt with its reply, at most; the model's own limit if None.
    :raises MissingExtra: If torch, transformers or peft is not installed.
    """

    prompt: str = "rank_zephyr"
    plan: Planner = Sliding()  # noqa: RUF009  frozen
    max_words: int = 300
    context: int | None = None

    scores: ClassVar[bool] = False
    replies: ClassVar[bool] = True
    quantised: ClassVar[bool] = True
    reranker: ClassVar[str] = "listwise"

    def __post_init__(self) -> None:
        require("peft", name=f"{self.reranker}-head", extra="train")

    def over(self, model: str) -> OfWindows:
        """Over a language model."""
        return OfWindows(self, model)

    def stage(self, lm: Any, depth: int = 100) -> Windowed:
        """The reranker."""
        return Listwise(lm, self.plan, self.prompt, self.max_words, depth)

    def begin(self, stage: Windowed) -> tuple[str, str]:
        """What the model is given of its reply, and what then stands before a label."""
        return "", stage.prompt.begin


@dataclass(frozen=True)
class FirstHead(ListwiseHead):
    """For :class:`~rankpipe.rerank.first.First`: the logits of labels as the next token are the scores of their
    passages (any loss of scores), and the order may be learned beside (``first-loss``).

    :param prompt: as that has it.
    :param plan: its windows when it is evaluated.
    :param max_words: of each passage, at most.
    :param context: tokens of a prompt with its reply, at most; the model's own limit if None.
    :raises MissingExtra: If torch, transformers or peft is not installed.
    """

    prompt: str = "first"

    scores: ClassVar[bool] = True
    reranker: ClassVar[str] = "first"

    def stage(self, lm: Any, depth: int = 100) -> First:
        """The reranker."""
        return First(lm, self.plan, self.prompt, self.max_words, depth)

    def begin(self, stage: Windowed) -> tuple[str, str]:
        """As the reranker has it: a blank belongs to the label."""
        given = stage.prompt.begin.rstrip()
        return given, stage.prompt.begin[len(given) :]


class OfWindows(OfLM):
    """A ranker that is shown lists."""

    def __init__(self, head: ListwiseHead, model: str) -> None:
        super().__init__(model, head.context)
        self.head, self.asks = head, head.stage(self.lm)
        self.given, self.blank = head.begin(self.asks)

    def batch(self, examples: Sequence[Example], *, reply: bool = False, together: bool = False) -> Batch:  # noqa: ARG002
        """Each example a prompt, as the reranker would show that window, with as much room for the reply.

        :raises ModelError: If a prompt cannot be made to fit.
        """
        replies = [self._reply(e) if reply else [] for e in examples]
        given = "" if reply else self.given  # a reply is learned from its very beginning, as it is written in full
        fitted = [self._fitted(e, len(r)) for e, r in zip(examples, replies, strict=True)]
        starts = self.lm.starts([f.chat for f in fitted], given)
        made = targets(examples) | self.padded(starts, replies if reply else None)
        made |= cut(sum(len(f.cut) for f in fitted), sum(f.size for f in fitted))
        made["at"] += len(self.lm.tokens(self.given)) if reply else 0
        if self.head.scores:
            import torch

            labels = self.asks.prompt.names(max(len(e.docs) for e in examples))
            made["words"] = torch.tensor(self.lm.words([self.blank + label for label in labels], self.given))[None]
        return made

    def forward(self, model: Any, batch: Batch) -> Outputs:
        """Logits of the reply, and of the labels as its first token."""
        logits = self.logits(model, batch)
        return Outputs(ends(logits, batch)[:, batch["words"][0]] if self.head.scores else None, logits)

    @contextmanager
    def stage(self, model: Any, depth: int) -> Iterator[Reranker]:
        """``first`` or ``listwise`` over this model."""
        with self.lm.over(model) as lm:
            yield self.head.stage(lm, depth)

    def node(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:
        """``first`` or ``listwise``."""
        said = {"prompt": self.head.prompt, "max_words": self.head.max_words}
        return {"use": self.head.reranker, "lm": self.asked(folder, adapted, dtype), **said}

    def _fitted(self, example: Example, reply: int) -> Fitted:
        room, words = max(self.asks.max_tokens(len(example.docs)), reply), self.head.max_words
        return fit(self.asks.prompt, self.lm, example.query, example.docs, max_words=words, max_tokens=room)

    def _reply(self, example: Example) -> list[int]:
        """The tokens of the order, which begin with those that a model may be given, and the one that ends it."""
        given = self.lm.tokens(self.given)
        tokens = self.lm.tokens(self.asks.prompt.written(example.order))
        if tokens[: len(given)] != given:
            raise ModelError(
                f"{self.model}: {self.given!r} is not what it reads at the beginning of a reply as prompt "
                f"{self.asks.prompt.name!r} wants it; take another prompt"
            )
        return [*tokens, self.lm.stop]
