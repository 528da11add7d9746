"""Losses that set what is relevant (labels above 0) against what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rankpipe.train.losses.lists import FAR, ListLoss, of_one_shape, positive, wide

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SoftmaxCE(ListLoss):
    """The cross-entropy of each relevant item among all items, ``-log softmax(s / T)_+``; of several the mean.

    Gao, Dai and Callan 2021, "Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline" (ECIR),
    localized contrastive estimation, which has one relevant item in a list. Of several, each is set against the
    others, too, so that it is smallest where they score alike; :class:`InfoNCE` does not do that. A list without a
    relevant or without another item says nothing.

    :param temperature: T, by which scores are divided.
    """

    temperature: float = 1.0

    wants: ClassVar[str] = "a label above 0, and one that is not"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")

    def _says(self, y: Tensor, mask: Tensor) -> Tensor:
        return ((y > 0) & mask).any(1) & ((y <= 0) & mask).any(1)

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        logs = (s / self.temperature).masked_fill(~mask, FAR).log_softmax(1)
        return _mean(-logs, (y > 0) & mask)


@dataclass(frozen=True)
class InfoNCE(SoftmaxCE):
    """The cross-entropy of each relevant item among it and the items that are not; of several the mean.

    ``-log(e^{s_+ / T} / (e^{s_+ / T} + sum_- e^{s_- / T}))``: van den Oord et al. 2018 (arXiv 1807.03748), equation 4.
    Relevant items are not set against each other, as they are by :class:`SoftmaxCE`; with one in a list both are the
    same.
    """

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        from torch.nn.functional import softplus

        z = s / self.temperature
        negatives = z.masked_fill(~((y <= 0) & mask), FAR).logsumexp(1, keepdim=True)  # (B, 1)
        return _mean(softplus(negatives - z), (y > 0) & mask)


@dataclass(frozen=True)
class InBatch(InfoNCE):
    """InfoNCE over all documents of a batch: of Q queries and D documents, scores, labels and mask are (Q, D).

    What other queries brought along is a negative for this one, unless its label says otherwise. The caller gives each
    document once, for else it would be its own negative, and masks what is known to be relevant and has no label.

    :param margin: a negative that scores more than this above the query's best relevant document is taken for a
        relevant one that nobody judged, and left out (Qwen3 Embedding, arXiv 2506.05176: 0.1, of cosines);
        None leaves out none. It goes by the scores being trained; for a teacher's, call
        :func:`without_false_negatives` with these and use ``infonce``.
    """

    margin: float | None = None

    def total(self, scores: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As of all lists, once the false negatives are masked; a list that they leave no negative counts as before."""
        kept = mask if self.margin is None else without_false_negatives(scores, labels, mask, self.margin)
        return super().total(scores, labels, kept)[0], self.count(labels, mask)


def without_false_negatives(scores: Tensor, labels: Tensor, mask: Tensor, margin: float) -> Tensor:
    """The mask, less the negatives that score more than ``margin`` above the best relevant document of their query.

    By a teacher's scores and a margin below 0 it is what Moreira et al. 2024 (NV-Retriever, arXiv 2407.15831) call
    positive-aware mining, TopK-MarginPos.
    """
    of_one_shape(scores, labels, mask)
    if not mask.shape[1]:
        return mask
    scores = wide(scores.detach())
    best = scores.masked_fill(~((labels > 0) & mask), -float("inf")).amax(1, keepdim=True)  # (Q, 1)
    return mask & ((labels > 0) | (scores <= best + margin))


def _mean(values: Tensor, of: Tensor) -> Tensor:
    return values.masked_fill(~of, 0.0).sum(1) / of.sum(1).clamp(min=1)
