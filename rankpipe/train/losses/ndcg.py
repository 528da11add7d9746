"""Losses that stand for nDCG: a bound of it by pairs, and nDCG of soft ranks or of a soft permutation."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from rankpipe.errors import RecipeError
from rankpipe.train.losses.lists import FAR, ListLoss, both, discounts, gains, margins, positive, ranks, soft_ranks
from rankpipe.train.losses.pairwise import before

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Graded(ListLoss):
    """Labels are grades, with gains of 2^grade - 1; grades below 0 count as 0."""

    wants: ClassVar[str] = "a label above 0, and another one"

    def _says(self, y: Tensor, mask: Tensor) -> Tensor:
        return super()._says(y.clamp(min=0), mask)


@dataclass(frozen=True)
class LambdaLoss(Graded):
    """Pairs weighted by what is at stake for nDCG: NDCGLoss2++.

    ``sum_{y_i > y_j} (mu delta_ij + rho rho_ij) |G_i - G_j| log2(1 + exp(-sigma (s_i - s_j)))`` with gains G as shares
    of the best order's DCG, D_r = log2(1 + r), rho_ij = |1 / D_i - 1 / D_j| at the ranks that the scores give, and
    delta_ij = 1 / D_k - 1 / D_(k+1) at their distance k.

    Wang et al. 2018, "The LambdaLoss Framework for Ranking Metric Optimization" (CIKM), NDCG-Loss2++; with ``mu=1,
    rho=0`` it is their NDCG-Loss2, with ``mu=0, rho=1`` LambdaRank. The sum over a list's pairs, as there: so it
    bounds 1 - nDCG (sentence-transformers has the mean over the pairs of the batch). Equal scores are ranked at random
    (:func:`~rankpipe.train.losses.lists.order`); the ranks have no gradient.

    :param mu: the weight of delta.
    :param rho: the weight of rho.
    :param sigma: what score differences are multiplied by.
    :param k: nDCG@k: only pairs count of which one is among the first k by score.
    :param seed: of the ranks of equal scores.
    """

    mu: float = 10.0
    rho: float = 1.0
    sigma: float = 1.0
    k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "sigma", *["k"] * (self.k is not None))
        if not (self.mu >= 0 and self.rho >= 0 and self.mu + self.rho > 0):
            raise RecipeError([f"mu={self.mu}, rho={self.rho}: expected 0 or more, and not 0 both"])

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        rank = ranks(s, mask, self.seed)  # (B, N)
        inverse = 1 / (1 + rank.to(s.dtype)).log2()
        apart = (rank[:, :, None] - rank[:, None, :]).abs().clamp(min=1).to(s.dtype)  # (B, N, N)
        delta = 1 / (1 + apart).log2() - 1 / (2 + apart).log2()
        stake = (self.mu * delta + self.rho * margins(inverse).abs()) * margins(gains(y, self.k)).abs()
        counts = before(y, mask)
        if self.k is not None:
            counts &= (rank[:, :, None] <= self.k) | (rank[:, None, :] <= self.k)
        return (-logsigmoid(self.sigma * margins(s)) * stake).masked_fill(~counts, 0.0).sum((1, 2)) / log(2)


@dataclass(frozen=True)
class ApproxNDCG(Graded):
    """1 - nDCG of soft ranks, ``r_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T)``.

    Qin, Liu and Li 2010, "A general approximation framework for direct optimization of information retrieval measures"
    (Information Retrieval 13), ApproxNDCG; alpha there is 1 / T.

    :param temperature: T: the smaller, the nearer to nDCG, and the fewer pairs have a gradient.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return 1 - (gains(y) / (1 + soft_ranks(s, mask, self.temperature)).log2()).sum(1)


@dataclass(frozen=True)
class NeuralNDCG(Graded):
    """1 - nDCG of a soft permutation: NeuralSort, made doubly stochastic by Sinkhorn's scaling.

    ``P = softmax(((n + 1 - 2k) s_j - sum_l |s_j - s_l|) / T)`` for ranks k; then columns and rows are made to sum to 1
    in turn; ``1 - sum_k (P G)_k / log2(1 + k)``.

    Pobrotyn and Białobrzeski 2021, "NeuralNDCG: Direct Optimisation of a Ranking Metric via Differentiable Relaxation
    of Sorting" (arXiv 2102.07831), the deterministic variant; NeuralSort is of Grover et al. 2019 (arXiv 1903.08850).
    Sinkhorn's scaling is done on logarithms, and always as often as said, so that a list's loss does not depend on
    when the others of its batch have converged.

    :param temperature: T: the smaller, the nearer to a permutation.
    :param scalings: how often columns and rows are scaled.
    """

    temperature: float = 1.0
    scalings: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature", "scalings")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        import torch

        length = mask.sum(1)[:, None]  # (B, 1)
        k = torch.arange(1, s.shape[1] + 1, device=s.device)  # (N,)
        spread = margins(s).abs().masked_fill(~both(mask), 0.0).sum(2)  # (B, N)
        logs = ((length + 1 - 2 * k)[:, :, None] * s[:, None, :] - spread[:, None, :]) / self.temperature  # (B, k, j)
        apart = (k <= length)[:, :, None] != mask[:, None, :]  # ranks beyond the list are for padding, and only they
        logs = logs.masked_fill(~mask[:, None, :], 0.0).masked_fill(apart, FAR)
        logs = logs.log_softmax(2)
        for _ in range(self.scalings):
            logs = logs.log_softmax(1).log_softmax(2)
        return 1 - (logs.exp() * gains(y)[:, None, :]).sum(2).mul(discounts(s)).sum(1)
