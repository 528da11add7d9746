"""AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101): torch's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.train.optimizers.settings import Settings


@dataclass(frozen=True)
class AdamW(Settings):
    """AdamW by torch. State: two numbers a weight, in the weights' own dtype, which is too coarse in bfloat16.

    :param betas: how much of the two moments is kept at a step.
    :param eps: added to the root of the second.
    :param fused: torch's fused code, where it has some for the device.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = True

    elementwise: ClassVar[bool] = True

    def formula_bytes(self, model: Any) -> int:
        """Two numbers a weight, and the step's."""
        return sum(2 * p.parameter.numel() * p.parameter.itemsize + 4 for p in self.report(model))

    def _made(self, model: Any) -> Any:
        torch, groups = need("torch", name="adamw", extra="train"), self._groups(model)
        fused = self.fused and all(p.device.type in ("cpu", "cuda", "xpu") for g in groups for p in g["params"])
        return torch.optim.AdamW(groups, lr=self.lr, betas=tuple(self.betas), eps=self.eps, fused=fused)


@dataclass(frozen=True)
class AdamWTorch(AdamW):
    """AdamW by torch, not fused: ``adamw_torch`` of transformers."""

    fused: bool = False
