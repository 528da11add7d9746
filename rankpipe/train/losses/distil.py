"""Losses that make scores, or the ranks they give, like a teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankpipe.train.losses.lists import FAR, ListLoss, middle_ranks, positive, soft_ranks

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MarginMSE(ListLoss):
    """Score differences are to be the teacher's, ``((s_i - s_j) - (t_i - t_j))^2``, the mean over all pairs.

    Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation"
    (arXiv 2010.02666), which has one pair, of a relevant and another passage; here all pairs of a list.
    The teacher's scores must be of a size that the student's can have: where they are not, standardise them first
    (``standardise: true`` of the labels).
    """

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        # Over i < j, (d_i - d_j)^2 of d = s - t sums up to n times the squared distances from the mean.
        n = mask.sum(1).clamp(min=2)
        gap = (s - y).masked_fill(~mask, 0.0)
        off = (gap - gap.sum(1, keepdim=True) / n[:, None]).masked_fill(~mask, 0.0)
        return 2 * off.square().sum(1) / (n - 1)


@dataclass(frozen=True)
class KL(ListLoss):
    """The scores' softmax is to be the teacher's: ``T^2 sum p_t (log p_t - log p_s)``, both at the temperature T.

    Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2, whose
    cross-entropy differs by what the student cannot change. The sum over items, the mean over lists; the teacher has no
    gradient.

    :param temperature: T, by which both scores are divided; T^2 keeps the gradient's size.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        student, teacher = ((z / self.temperature).masked_fill(~mask, FAR).log_softmax(1) for z in (s, y))
        return self.temperature**2 * (teacher.exp() * (teacher - student)).masked_fill(~mask, 0.0).sum(1)


@dataclass(frozen=True)
class ADRMSE(ListLoss):
    """Soft ranks are to be the labels' ranks: ``(r_i - soft r_i)^2 / log2(1 + r_i)``, the mean over items.

    Schlatt et al. 2024, "Rank-DistiLLM" (arXiv 2405.07920), ADR-MSE, with the soft ranks of
    :class:`~rankpipe.train.losses.ndcg.ApproxNDCG`. Equal labels share the middle of their ranks, as in
    sentence-transformers.

    :param temperature: of the soft ranks.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        rank = middle_ranks(y, mask)
        error = (rank - soft_ranks(s, mask, self.temperature)).square() / (1 + rank).log2()
        return error.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)
