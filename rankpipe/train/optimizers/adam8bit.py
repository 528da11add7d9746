"""AdamW, its moments in eight bits (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861): ours, or bitsandbytes'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rankpipe.catalog import need, require
from rankpipe.errors import RecipeError
from rankpipe.train.optimizers.settings import Settings

SMALL = 4096  # weights; of fewer, bitsandbytes keeps moments in full
BLOCK = 256


@dataclass(frozen=True)
class Adam8bit(Settings):
    """AdamW whose moments are blocks of 256 codes of eight bits; in torch alone, on any device.

    A second moment that is not 0 is never rounded to it, which bitsandbytes does. Tensors of fewer than 4096 numbers
    have theirs in full.

    :param betas: how much of the two moments is kept at a step.
    :param eps: added to the root of the second.
    :param write: how weights of less than single precision are written: rounded, from a master copy, or stochastically.
    :param seed: of the rounding.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    write: Literal["round", "master", "stochastic"] = "stochastic"
    seed: int = 0

    def _made(self, model: Any) -> Any:
        from rankpipe.train.optimizers.lowrank import LowRank

        options: dict[str, Any] = {"betas": tuple(self.betas), "eps": self.eps, "write": self.write, "seed": self.seed}
        return LowRank(self._groups(model), inner="adam8bit", **options)


@dataclass(frozen=True)
class BitsAndBytes(Settings):
    """AdamW8bit by bitsandbytes: its own kernels on GPUs, and (0.50) on CPUs. ``adam8bit`` needs no such package.

    :param betas: how much of the two moments is kept at a step.
    :param eps: added to the root of the second.
    :param paged: the state may move to the CPU's memory when the GPU's is full.
    :raises MissingExtra: If bitsandbytes is not installed.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    paged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require("bitsandbytes", name="adamw_8bit", extra="bnb")

    def formula_bytes(self, model: Any) -> int:
        """Two codes a weight, the blocks' scales, and the tables of both codes once."""
        sizes: list[int] = [p.parameter.numel() for p in self.report(model)]
        packed = sum(2 * (n + 4 * -(-n // BLOCK)) for n in sizes if n >= SMALL)
        return packed + (2 * 256 * 4 if packed else 0) + sum(8 * n for n in sizes if n < SMALL)

    def _made(self, model: Any) -> Any:
        optimizers = need("bitsandbytes.optim", name="adamw_8bit", extra="bnb")
        if self.paged and any(p.parameter.device.type == "cpu" for p in self.report(model)):
            raise RecipeError(["paged: a CPU's memory has nothing to be paged to; say adamw_8bit"])
        options: dict[str, Any] = {"betas": tuple(self.betas), "eps": self.eps, "is_paged": self.paged}
        return optimizers.AdamW8bit(self._groups(model), lr=self.lr, **options)


@dataclass(frozen=True)
class PagedBitsAndBytes(BitsAndBytes):
    """Paged AdamW8bit by bitsandbytes: ``paged_adamw_8bit`` of transformers."""

    paged: bool = True
