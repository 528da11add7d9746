"""EVA (Paischer et al. 2024, https://arxiv.org/abs/2410.07170): A begins where the layer's inputs vary most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Batches, Loss
from rankpipe.train.adapters.factors import NAME
from rankpipe.train.adapters.lora import LoRA
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class Eva(LoRA):
    """LoRA whose A are the principal directions of what goes into the layer; ranks go where those explain most.

    PEFT's own. It needs ``calibration``: batches of the model's arguments, each of more tokens than ``spread * rank``.

    :param spread: how many times ``rank`` a layer may have at most; 1 leaves all at ``rank``.
    """

    spread: float = 2.0

    def _options(self) -> dict[str, Any]:
        eva = need("peft", name="eva", extra="train").EvaConfig(rho=self.spread)
        return {"init_lora_weights": "eva", "eva_config": eva}

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        if calibration is None:
            yield "eva: needs calibration, batches of the model's arguments"

    def _before(self, model: Any, where: Spread, calibration: Batches | None, loss: Loss | None) -> Any:  # noqa: ARG002
        """The batches, if PEFT's loop over them would end."""
        batches, most = [dict(batch) for batch in calibration or ()], round(self.rank * self.spread)
        narrow = [path for path in where.layers if model.get_submodule(path).in_features < most]
        if narrow:
            raise RecipeError([f"eva: {narrow[0]} has fewer inputs than spread * rank = {most}"])
        if not batches or min(map(_tokens, batches)) < most:
            raise RecipeError([f"eva: every batch of calibration must have at least spread * rank = {most} tokens"])
        return batches

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        peft = need("peft", name="eva", extra="train")
        peft.initialize_lora_eva_weights(model, ready, show_progress_bar=False)
        model.peft_config[NAME].init_lora_weights = True  # it is a LoRA from here on, for whoever loads it


def _tokens(batch: Mapping[str, Any]) -> int:
    mask = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if mask is None else mask.sum())
