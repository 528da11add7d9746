"""Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rankpipe.train.optimizers.settings import Settings


@dataclass(frozen=True)
class Adafactor(Settings):
    """Adafactor, without a first moment. State: one number for each row and each column of a matrix.

    Of the two defaults that are about, this has transformers' Trainer's (``scale_parameter=False,
    relative_step=False``): ``lr`` is the step's size.

    :param scale_parameter: ``torch.optim.Adafactor``'s instead: ``lr``, or one over the root of the steps if that is
        less, times the size (root mean square) of the weights.
    :param write: how weights of less than single precision are written: rounded, from a master copy, or stochastically.
    :param seed: of the rounding.
    """

    scale_parameter: bool = False
    write: Literal["round", "master", "stochastic"] = "stochastic"
    seed: int = 0

    def _made(self, model: Any) -> Any:
        from rankpipe.train.optimizers.lowrank import LowRank

        options: dict[str, Any] = {"scale_parameter": self.scale_parameter, "write": self.write, "seed": self.seed}
        return LowRank(self._groups(model), inner="adafactor", **options)
