"""Losses of pairs: the one with the higher label should score higher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankpipe.train.losses.lists import ListLoss, both, margins, middle_ranks, positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RankNet(ListLoss):
    """How unlikely each pair's right order is, ``log(1 + exp(-sigma (s_i - s_j)))``, the mean over pairs y_i > y_j.

    Burges et al. 2005, "Learning to Rank using Gradient Descent", equation 3 with a target of 1. Pairs of equal labels
    are left out (there they have a target of 1/2); the mean over a list's pairs in place of the sum over all pairs.

    :param sigma: what score differences are multiplied by.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "sigma")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        pairs = before(y, mask)
        cost = (-logsigmoid(self.sigma * margins(s)) * self._weights(y, mask)).masked_fill(~pairs, 0.0)
        return cost.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)

    def _weights(self, y: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """Of each pair, (B, N, N) or what broadcasts to it."""
        return y.new_ones(())


@dataclass(frozen=True)
class WeightedRankNet(RankNet):
    """RankNet, each pair weighted by ``1 / (r_i + r_j)``, the ranks by label: what stands high counts more.

    Reddy et al. 2024, "FIRST: Faster Improved Listwise Reranking with Single Token Decoding" (arXiv 2406.15657),
    L_Rank. The mean over a list's pairs, as in the authors' code, with which their weight of 10 beside the language
    model's loss goes. That code numbers ranks on from list to list, and so is right for one list at a time only; here
    each list has its own ranks. Equal labels share the middle of their ranks.
    """

    def _weights(self, y: Tensor, mask: Tensor) -> Tensor:
        rank = middle_ranks(y, mask)
        return 1 / (rank[:, :, None] + rank[:, None, :])


def before(y: Tensor, mask: Tensor) -> Tensor:
    """Whether i should stand before j, (B, N, N)."""
    return (y[:, :, None] > y[:, None, :]) & both(mask)
