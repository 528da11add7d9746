"""Losses of whole orders, by the probability that a model gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankpipe.train.losses.lists import FAR, ListLoss, order, positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ListNet(ListLoss):
    """The cross-entropy of which item comes first, ``-sum softmax(y / T)_i log softmax(s)_i``.

    Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach", section 4.2 (top one probability)
    and section 5. The right order alone does not make it small: scores are to be like labels.

    :param temperature: T, by which labels are divided.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        target = (y / self.temperature).masked_fill(~mask, FAR).softmax(1)
        return -(target * s.masked_fill(~mask, FAR).log_softmax(1)).masked_fill(~mask, 0.0).sum(1)


@dataclass(frozen=True)
class ListMLE(ListLoss):
    """How unlikely the labels' order is, drawn item by item: ``sum_r [logsumexp_{j >= r} s_j - s_r]`` (Plackett-Luce).

    Xia et al. 2008, "Listwise Approach to Learning to Rank: Theory and Algorithm", likelihood loss. The sum over ranks,
    as there, so that it grows with the length of the list. Equal labels are put in a random order
    (:func:`~rankpipe.train.losses.lists.order`).

    :param seed: of the order among equal labels.
    """

    seed: int = 0

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return self._ranked(s, y, mask).sum(1)

    def _ranked(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """The cost at each rank, (B, N); 0 behind the last item."""
        places = order(y, mask, self.seed)
        z = s.masked_fill(~mask, FAR).gather(1, places)
        left = z.flip(1).logcumsumexp(1).flip(1)
        return (left - z).masked_fill(~mask.gather(1, places), 0.0)


@dataclass(frozen=True)
class PListMLE(ListMLE):
    """ListMLE, rank r of n weighted by ``2^(n - r) - 1``, the weights of a list made to sum to 1: the top counts most.

    Lan et al. 2014, "Position-Aware ListMLE: A Sequential Learning Process for Ranking", whose weights are not made to
    sum to 1. Computed as ``2^-r - 2^-n``, which is the same and does not overflow.
    """

    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        import torch

        length = mask.sum(1, keepdim=True)  # (B, 1)
        rank = torch.arange(1, s.shape[1] + 1, device=s.device).expand_as(s)
        weights = ((-rank).to(s.dtype).exp2() - (-length).to(s.dtype).exp2()).clamp(min=0)
        return (self._ranked(s, y, mask) * weights).sum(1) / weights.sum(1).clamp(min=1e-30)
