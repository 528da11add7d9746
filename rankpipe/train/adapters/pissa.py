"""PiSSA (Meng et al. 2024, https://arxiv.org/abs/2404.02948): what is largest in the weights is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rankpipe.train.adapters.adapter import Batches
from rankpipe.train.adapters.factors import NAME, layers, remember
from rankpipe.train.adapters.lora import LoRA


@dataclass(frozen=True)
class PiSSA(LoRA):
    """LoRA that begins as the largest singular values of each weight, which are taken out of the base (PEFT's own).

    It is saved as a LoRA of twice the rank over the base as it was: what was taken out is its other half, negative.
    In bfloat16 the base that is left is rounded, which the saved one is not: they differ by that.

    :param iterations: of a fast SVD; None is an exact one.
    """

    iterations: int | None = None

    only_lora: ClassVar[bool] = True
    quantised: ClassVar[bool] = False

    def _options(self) -> dict[str, Any]:
        return {"init_lora_weights": "pissa" if self.iterations is None else f"pissa_niter_{self.iterations}"}

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        for _, layer in layers(model):
            remember(layer, -layer.scaling[NAME] * layer.lora_B[NAME].weight, layer.lora_A[NAME].weight)
