"""The loss of a written order, token by token, and sums of losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankpipe.catalog import near, require
from rankpipe.errors import RecipeError
from rankpipe.train.losses.lists import ListLoss, wide
from rankpipe.train.losses.pairwise import WeightedRankNet

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the label of a token that is not learned: of the prompt, and padding


@dataclass(frozen=True)
class PermutationLM:
    """The cross-entropy of the tokens of the reply, ``[3] > [1] > ...``, the mean over them.

    Logits are (B, T, V), labels (B, T): the tokens themselves, -100 for those of the prompt and for padding, as
    transformers has it. Logits are read at the place before each label; those that foretell no label are not computed
    on, and only the others are made float32: a prompt of 2,000 tokens with a reply of 80 takes 80 rows of V, not 2,080.

    Sun et al. 2023 (RankGPT, arXiv 2304.09542) and Pradeep et al. 2023 (RankVicuna, arXiv 2309.15088) train on such
    replies. The mean is over all tokens of the batch: long replies count more than short ones.

    :raises MissingExtra: If torch is not installed.
    """

    def __post_init__(self) -> None:
        require("torch", name=type(self).__name__, extra="train")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """The mean over the tokens that are learned, a scalar; 0 if there are none."""
        total, count = self.total(logits, tokens)
        return total / count.clamp(min=1)

    def total(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over tokens, and how many there are: to put the parts of a batch together as if they were one."""
        import torch
        from torch.nn.functional import cross_entropy

        if not (logits.ndim == 3 and logits.shape[:2] == tokens.shape):
            raise ValueError(f"logits {(*logits.shape,)}, tokens {(*tokens.shape,)}: expected (B, T, V) and (B, T)")
        learned = tokens[:, 1:] != IGNORED  # (B, T - 1)
        with torch.autocast(logits.device.type, enabled=False):
            rows = wide(logits[:, :-1][learned])  # (M, V)
            return cross_entropy(rows, tokens[:, 1:][learned], reduction="sum"), learned.sum()

    def count(self, tokens: Tensor) -> Tensor:
        """How many tokens are learned."""
        return (tokens[:, 1:] != IGNORED).sum()


@dataclass(frozen=True)
class Sum:
    """Several losses, each by a name and with a weight.

    :param losses: name to loss.
    :param weights: name to weight; 1 for those that it does not name.
    :raises RecipeError: If there is no loss, or a weight is of none.
    """

    losses: Mapping[str, ListLoss | PermutationLM]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not self.losses:
            raise RecipeError(["losses: expected one or more"])
        if unknown := [n for n in self.weights or {} if n not in self.losses]:
            raise RecipeError([f"weights: no loss {n!r}{near(n, [*self.losses])}" for n in unknown])

    def __call__(
        self, scores: Tensor, labels: Tensor, mask: Tensor, logits: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """The weighted sum, a scalar. Logits and tokens are what :class:`PermutationLM` takes."""
        parts = self.parts(scores, labels, mask, logits, tokens)
        weights = self.weights or {}
        return sum(weights.get(name, 1.0) * part for name, part in parts.items())

    def parts(
        self, scores: Tensor, labels: Tensor, mask: Tensor, logits: Tensor | None = None, tokens: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each loss by its name, not weighted."""
        totals = self.total(scores, labels, mask, logits, tokens)
        return {name: total / count.clamp(min=1) for name, (total, count) in totals.items()}

    def total(
        self,
        scores: Tensor | None,
        labels: Tensor,
        mask: Tensor,
        logits: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Each loss's own sum, not weighted, and what it counts: one counts tokens, another lists, so that parts of a
        batch are put together loss by loss. Scores may be None if no loss is of them.
        """
        made = {}
        for name, loss in self.losses.items():
            if not isinstance(loss, PermutationLM):
                assert scores is not None
                made[name] = loss.total(scores, labels, mask)
            elif logits is not None and tokens is not None:
                made[name] = loss.total(logits, tokens)
            else:
                raise ValueError(f"{name}: a loss of the reply's tokens needs logits and tokens")
        return made


def first_loss(weight: float = 10.0) -> Sum:
    """The loss of FIRST: of the written order, and of the first token's logits as scores, ``LM + weight RankNet``.

    Reddy et al. 2024 (arXiv 2406.15657), L_Joint = L_LM + lambda L_Rank; the latter is
    :class:`~rankpipe.train.losses.pairwise.WeightedRankNet`.

    :param weight: of the weighted RankNet; 10 in the authors' code.
    """
    return Sum({"lm": PermutationLM(), "ranknet": WeightedRankNet()}, {"ranknet": weight})
