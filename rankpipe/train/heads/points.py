"""The head of a language model that says yes or no of each passage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from rankpipe.catalog import require
from rankpipe.rerank.fit import fit
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.stage import Reranker
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Dtype, Head, Outputs, cut, spread, targets
from rankpipe.train.heads.lm import OfLM, ends


@dataclass(frozen=True)
class PointwiseHead(Head):
    """For :class:`~rankpipe.rerank.pointwise.Pointwise`: a passage's score is log P(yes) - log P(no).

    :param prompt: as that has it.
    :param max_words: of a passage, at most.
    :param context: tokens of a prompt, at most; the model's own limit if None.
    :raises MissingExtra: If torch, transformers or peft is not installed.
    """

    prompt: str = "pointwise"
    max_words: int = 300
    context: int | None = None

    quantised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("peft", name="pointwise-head", extra="train")

    def over(self, model: str) -> OfPoints:
        """Over a language model."""
        return OfPoints(self, model)


class OfPoints(OfLM):
    """A ranker that is shown passages one by one."""

    def __init__(self, head: PointwiseHead, model: str) -> None:
        super().__init__(model, head.context)
        self.head = head
        self.asks = Pointwise(self.lm, head.prompt, head.max_words)

    def batch(self, examples: Sequence[Example], *, reply: bool = False, together: bool = False) -> Batch:  # noqa: ARG002
        """Each passage a prompt, as the reranker would show it.

        :raises ModelError: If a prompt cannot be made to fit.
        """
        import torch

        prompt, words = self.asks.prompt, self.head.max_words
        fitted = [
            fit(prompt, self.lm, e.query, [doc], max_words=words, max_tokens=self.asks.room(e.query))
            for e in examples
            for doc in e.docs
        ]
        yes, no = (torch.tensor(self.lm.words(said, prompt.begin))[None] for said in self.asks.words)
        starts = self.lm.starts([f.chat for f in fitted], prompt.begin)
        made = targets(examples) | self.padded(starts) | {"yes": yes, "no": no}
        return made | cut(sum(len(f.cut) for f in fitted), len(fitted))

    def forward(self, model: Any, batch: Batch) -> Outputs:
        """Log-odds of yes."""
        last = ends(self.logits(model, batch), batch)
        odds = last[:, batch["yes"][0]].logsumexp(1) - last[:, batch["no"][0]].logsumexp(1)
        return Outputs(spread(odds, batch["mask"]))

    @contextmanager
    def stage(self, model: Any, depth: int) -> Iterator[Reranker]:
        """``pointwise`` over this model."""
        with self.lm.over(model) as lm:
            yield Pointwise(lm, self.head.prompt, self.head.max_words, depth)

    def node(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:
        """``pointwise``."""
        said = {"prompt": self.head.prompt, "max_words": self.head.max_words}
        return {"use": "pointwise", "lm": self.asked(folder, adapted, dtype), **said}
