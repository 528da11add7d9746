"""EVA (Paischer et al. 2024, https://arxiv.org/abs/2410.07170): A begins where the layer's inputs vary most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Batches, Loss
from rankpipe.train.adapters.factors import NAME, layers
from rankpipe.train.adapters.lora import LoRA
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class Eva(LoRA):
    """LoRA whose A are the principal directions of what goes into the layer; ranks go where those explain most.

    PEFT's own. It needs ``calibration``: batches of the model's arguments, each of more tokens than ``spread * rank``.

    :param spread: how many times ``rank`` a layer may have at most; 1 leaves all at ``rank``.
    """

    spread: float = 2.0

    on_meta: ClassVar[bool] = True

    def _options(self) -> dict[str, Any]:
        eva = need("peft", name="eva", extra="train").EvaConfig(rho=self.spread)
        return {"init_lora_weights": "eva", "eva_config": eva}

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        if calibration is None:
            yield "eva: needs calibration, batches of the model's arguments"

    def _before(self, model: Any, where: Spread, calibration: Batches | None, loss: Loss | None) -> Any:  # noqa: ARG002
        """The batches, if PEFT's loop over them would end."""
        batches, most = [dict(batch) for batch in calibration or ()], round(self.rank * self.spread)
        narrow = [path for path in where.layers if _inputs(model.get_submodule(path)) < most]
        if narrow or not batches:
            said = f"{narrow[0]} has fewer inputs than spread * rank = {most}" if narrow else "calibration is empty"
            raise RecipeError([f"eva: {said}"])
        return batches

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        peft = need("peft", name="eva", extra="train")
        seen = partial(_seen, round(self.rank * self.spread))
        peft.initialize_lora_eva_weights(model, ready, prepare_layer_inputs_fn=seen, show_progress_bar=False)
        for _, layer in layers(model):  # PEFT makes them anew, in the base's dtype: too coarse to train
            layer.lora_A.float(), layer.lora_B.float()
        config = model.peft_config[NAME]  # of a LoRA from here on, for whoever loads it
        config.init_lora_weights, config.eva_config = True, None


def _inputs(layer: Any) -> int:
    """How many a linear layer has; GPT-2's calls them ``nx``."""
    return int(layer.nx if hasattr(layer, "nx") else layer.in_features)


def _seen(least: int, given: Any, places: Any, path: str) -> Any:
    """The vectors that a layer saw: of all tokens but padding, or of each text, as a pooler does."""
    vectors = given[0] if isinstance(given, tuple) else given
    vectors = vectors[places.T.unbind()] if vectors.dim() == 3 else vectors
    if len(vectors) < least:  # PEFT would wait for more, for ever
        cure = f"at least spread * rank = {least} are needed: give larger batches, or other targets"
        raise RecipeError([f"eva: {path} sees {len(vectors)} vectors in a batch of calibration; {cure}"])
    return vectors.contiguous()
