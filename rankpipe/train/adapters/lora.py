"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) and what only scales or bounds it otherwise: PEFT's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class LoRA(Adapter):
    """An update ``alpha / rank * B A`` beside each layer; A is random, B begins at 0.

    What others gain on it is mostly a better learning rate (https://arxiv.org/abs/2602.04998): tune that first.
    """

    def _config(self, peft: Any, where: Spread, steps: int | None) -> Any:  # noqa: ARG002
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=[*where.names],
            modules_to_save=[*where.heads] or None,
            lora_dropout=self.dropout,
            task_type=where.task,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        """What else PEFT's config says."""
        return {}


@dataclass(frozen=True)
class RsLoRA(LoRA):
    """LoRA times ``alpha / sqrt(rank)``, so that high ranks learn (Kalajdzievski 2023, arXiv 2312.03732)."""

    def _options(self) -> dict[str, Any]:
        return {"use_rslora": True}


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA of the direction of each weight, and its length trained apart (Liu et al. 2024, arXiv 2402.09353).

    Not the DoRA of arXiv 2405.17357, which takes ranks away. vLLM does not read it: merge it first.
    """

    def refuse_quantised(self, bits: int) -> None:
        """Eight bits, where there is no GPU: on a CPU, PEFT (0.21) loses their scales.

        :raises RecipeError: Says what can be.
        """
        if bits == 8 and not need("torch", name="dora", extra="train").accelerator.is_available():
            raise RecipeError(["dora: over a base of eight bits it is for GPUs; say dtype: nf4 or bfloat16"])

    def _options(self) -> dict[str, Any]:
        return {"use_dora": True}
