"""What all ranking losses do alike, and the ranks, orders and gains that they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rankpipe.catalog import require
from rankpipe.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

FAR = -1e9  # the score of padding: its exponential is exactly 0, and unlike infinity it has differences


@dataclass(frozen=True)
class ListLoss(ABC):
    """A loss of B lists of N scored items: scores, labels (grades, or a teacher's scores) and mask, each (B, N).

    The mask is True where there is an item; what stands elsewhere is padding, of which nothing is read, not even NaN,
    and whose gradient is exactly 0. Computed in float32 (float64 if the scores are), whatever the scores come in and
    whether autocast is on. Finite for scores of any size that a model gives, and for ties.

    The mean over lists: each counts once, however long it is. A list that has nothing to say is not counted, and its
    gradient is exactly 0, even if its scores are not finite: one without two items whose labels differ, and so an empty
    list, or one item.

    :raises MissingExtra: If torch is not installed.
    :raises RecipeError: If a number is out of its range.
    """

    wants: ClassVar[str] = "two labels that differ"  # of a list that says something

    def __post_init__(self) -> None:
        require("torch", name=type(self).__name__, extra="train")

    def __call__(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The mean over the lists that have something to say, a scalar; 0 if none has."""
        total, count = self.total(scores, labels, mask)
        return total / count.clamp(min=1)

    def total(self, scores: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over lists, and how many lists it counts: with these, the parts of a batch (gradient accumulation,
        several processes) can be put together as if they were one.
        """
        import torch

        of_one_shape(scores, labels, mask)
        with torch.autocast(scores.device.type, enabled=False):
            s = wide(scores)
            y = labels.detach().to(s.dtype).masked_fill(~mask, 0.0)
            if not s.shape[1]:  # lists of nothing
                return s.sum(), mask.sum()
            says = self._says(y, mask)  # (B,)
            s = s.masked_fill(~(mask & says[:, None]), 0.0)
            return self._each(s, y, mask).masked_fill(~says, 0.0).sum(), says.sum()

    def count(self, labels: Tensor, mask: Tensor) -> Tensor:
        """How many lists it counts, whatever their scores."""
        return self._says(wide(labels.detach()).masked_fill(~mask, 0.0), mask).sum() if mask.shape[1] else mask.sum()

    def _says(self, y: Tensor, mask: Tensor) -> Tensor:
        """Which lists have something to say, (B,)."""
        return y.masked_fill(~mask, -float("inf")).amax(1) > y.masked_fill(~mask, float("inf")).amin(1)

    @abstractmethod
    def _each(self, s: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Each list's loss, (B,). Padding is 0 in scores and labels, so are the scores of lists that say nothing."""


def positive(loss: object, *names: str) -> None:
    """Refuse a loss of which a number is not above 0.

    :raises RecipeError: Says which.
    """
    if faults := [f"{n}: {getattr(loss, n)}; expected more than 0" for n in names if not getattr(loss, n) > 0]:
        raise RecipeError(faults)


def of_one_shape(scores: Tensor, labels: Tensor, mask: Tensor) -> None:
    """Refuse what would only be broadcast.

    :raises ValueError: Says the shapes.
    """
    import torch

    if not (scores.ndim == 2 and scores.shape == labels.shape == mask.shape and mask.dtype == torch.bool):
        given = f"scores {(*scores.shape,)}, labels {(*labels.shape,)}, mask {(*mask.shape,)} of {mask.dtype}"
        raise ValueError(f"{given}: expected one shape (lists, items), and a mask of torch.bool")


def wide(t: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    import torch

    return t.to(torch.promote_types(t.dtype, torch.float32))


def both(mask: Tensor) -> Tensor:
    """Which pairs are pairs of items, (B, N, N)."""
    return mask[:, :, None] & mask[:, None, :]


def margins(s: Tensor) -> Tensor:
    """By how much i scores above j, (B, N, N)."""
    return s[:, :, None] - s[:, None, :]


def middle_ranks(y: Tensor, mask: Tensor) -> Tensor:
    """Ranks from 1 up, the largest first; equal ones share the middle of their ranks, (B, N)."""
    above = ((y[:, :, None] < y[:, None, :]) & both(mask)).sum(2)
    equal = ((y[:, :, None] == y[:, None, :]) & both(mask)).sum(2)
    return (2 * above + equal + 1).to(y.dtype) / 2


def soft_ranks(s: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """1 and, for each other item, the sigmoid of how far it scores above (Qin, Liu and Li 2010, ApproxRank), (B, N)."""
    import torch

    others = both(mask) & ~torch.eye(s.shape[1], dtype=torch.bool, device=s.device)
    return 1 + (-margins(s) / temperature).sigmoid().masked_fill(~others, 0.0).sum(2)


def order(keys: Tensor, mask: Tensor, seed: int) -> Tensor:
    """Places by falling key, padding last, (B, N).

    The sort is stable after a shuffle: equal keys are in the order of random numbers that belong to their places, the
    same numbers for each list and at each call, drawn from ``seed``. So a list's loss depends neither on the batch that
    it is in nor on the padding behind it.
    """
    import torch

    shuffled = torch.rand(keys.shape[1], generator=torch.Generator().manual_seed(seed)).argsort().to(keys.device)
    held = keys.detach().masked_fill(~mask, -float("inf"))
    return shuffled[held[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def ranks(keys: Tensor, mask: Tensor, seed: int) -> Tensor:
    """Ranks from 1 up, by :func:`order`, (B, N)."""
    return order(keys, mask, seed).argsort(dim=1) + 1


def gains(y: Tensor, k: int | None = None) -> Tensor:
    """2^grade - 1, as shares of what the best order gets (of its first ``k``); grades below 0 are 0, (B, N).

    Computed relative to the highest grade, so that no grade is too large: the ranks of a long list are, as grades.
    """
    y = y.clamp(min=0)
    top = y.amax(1, keepdim=True)
    gain = (y - top).exp2() - (-top).exp2()
    best = (gain.sort(dim=1, descending=True).values * discounts(y))[:, :k].sum(1, keepdim=True)
    return gain / best.clamp(min=1e-30)


def discounts(like: Tensor) -> Tensor:
    """1 / log2(1 + rank) of the ranks 1 to N, (N,)."""
    import torch

    return 1 / torch.arange(2, like.shape[1] + 2, device=like.device, dtype=like.dtype).log2()
