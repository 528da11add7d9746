"""LoRA+ (Hayou et al. 2024, https://arxiv.org/abs/2402.12354): B moves faster than A."""

from __future__ import annotations

from dataclasses import dataclass

from rankpipe.train.adapters.lora import LoRA


@dataclass(frozen=True)
class LoRAPlus(LoRA):
    """LoRA whose B has ``ratio`` times the learning rate; halve that of LoRA.

    We deviate from PEFT's ``create_loraplus_optimizer``, which puts a score head with A and its bias with B, by their
    number of dimensions: any optimizer can be used, and what is trained in full moves as fast as B; so does the
    score head, unless the optimizer has a ``head_lr``.

    :param ratio: of the learning rates of B and A; 16 to 20 in the paper.
    """

    ratio: float = 16.0

    def rate(self, name: str) -> float:
        """What the learning rate of a parameter is times."""
        return 1.0 if {"lora_B", "modules_to_save"}.isdisjoint(name.split(".")) else self.ratio
