"""RandLoRA (Albert et al. 2025, https://arxiv.org/abs/2502.00987): random bases of full rank, scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class RandLoRA(Adapter):
    """An update that sums random products of rank ``rank`` up to full rank; only their scales are trained (PEFT's own).

    A *smaller* rank is more numbers: ``d + d * d / rank`` a layer, d the smaller side. All layers share the bases,
    which ``seed`` makes and which are saved, too. Its update is of rank ``rank`` until the scales differ.

    :param alpha: 20 * rank in the paper.
    """

    rank: int = 32
    alpha: float = 640

    def _config(self, peft: Any, where: Spread, steps: int | None) -> Any:  # noqa: ARG002
        return peft.RandLoraConfig(
            r=self.rank,
            randlora_alpha=self.alpha,
            projection_prng_key=self.seed or 0,
            save_projection=True,
            randlora_dropout=self.dropout,
            target_modules=[*where.names],
            modules_to_save=[*where.heads] or None,
            task_type=where.task,
        )
