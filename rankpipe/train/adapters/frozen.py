"""A stays as it began and only B is trained: half the numbers, and no activations to keep for A."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Batches
from rankpipe.train.adapters.factors import NAME, layers
from rankpipe.train.adapters.lora import LoRA


@dataclass(frozen=True)
class FrozenA(LoRA):
    """LoRA whose A has random orthonormal rows that do not move (Zhu et al. 2024, https://arxiv.org/abs/2402.16842)."""

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        torch = need("torch", name=self.method_name, extra="train")
        for path, layer in layers(model):
            if layer.in_features < self.rank:
                raise RecipeError([f"rank: {path} has {layer.in_features} inputs, fewer than rank {self.rank}"])
            torch.nn.init.orthogonal_(layer.lora_A[NAME].weight)
            layer.lora_A[NAME].requires_grad_(False)


@dataclass(frozen=True)
class LoRAFA(LoRA):
    """LoRA whose A does not move; what reaches B is corrected (Zhang et al. 2023, https://arxiv.org/abs/2308.03303).

    The gradient of B is times ``(A A')^-1 / scaling^2``, so that its step is that of all weights, seen by A's rows.
    PEFT has an optimizer for it that rounds to bfloat16; here the gradient itself is corrected, for any optimizer.
    """

    in_parts: ClassVar[bool] = False  # the gradient that is corrected is of the weights as they were, before FSDP

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        torch = need("torch", name=self.method_name, extra="train")
        for path, layer in layers(model):
            a = layer.lora_A[NAME].requires_grad_(False).weight.detach().double()
            if a.shape[1] < self.rank:
                raise RecipeError([f"rank: {path} has {a.shape[1]} inputs, fewer than rank {self.rank}"])
            corrected = torch.linalg.inv(a @ a.T) / layer.scaling[NAME] ** 2  # (rank, rank)
            layer.lora_B[NAME].weight.register_hook(partial(_times, corrected.to(layer.lora_B[NAME].weight.dtype)))


def _times(by: Any, gradient: Any) -> Any:
    return gradient @ by.to(gradient.device)
