"""APOLLO (Zhu et al. 2024, https://arxiv.org/abs/2412.05270): few directions tell how fast Adam moves a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rankpipe.train.optimizers.galore import GaLore

if TYPE_CHECKING:
    from rankpipe.train.optimizers.lowrank import Matrix


@dataclass(frozen=True)
class Apollo(GaLore):
    """The gradient itself, each channel as long as Adam's step for its random projection is, per unit of it.

    A channel is what lies along a matrix's shorter side. We deviate: the step's growth is measured after Adam's bias
    correction, so that it is not held back in the first steps.

    :param scale: the root of it is what the step is times, as in the authors' code.
    :param scale_type: channel, or tensor: all channels alike (APOLLO-Mini, with rank 1 and scale 128).
    :param growth: the most that the step's norm may grow from step to step (Fira's limiter).
    """

    scale: float = 1.0
    proj: Literal["rsvd", "svd", "eigh", "random", "columns", "identity"] = "random"
    scale_type: Literal["channel", "tensor"] = "channel"
    growth: float = 1.01

    def full(self, seen: Matrix) -> Any:
        """The step (m, n), at a learning rate of 1."""
        across = 0 if self.scale_type == "channel" else None
        speeds = seen.direction.norm(dim=across) / (seen.low.norm(dim=across) + 1e-8)  # (n,) or ()
        step = seen.grad * -speeds
        norm = step.norm()
        last = seen.state.get("norm", norm.new_zeros(()))
        shorter = (last * self.growth / norm.clamp(min=1e-30)).clamp(max=1.0).where(last > 0, 1.0)
        seen.state["norm"] = (norm * shorter).where(norm > 0, last)  # one of 0 would be the end of all growth
        return step * shorter

    def own_bytes(self, width: int) -> int:
        """The norm of the last step that was one."""
        return width

    def _of_group(self, projected: bool) -> dict[str, Any]:
        return super()._of_group(projected) | ({"scale": self.scale**0.5} if projected else {})

    def _method(self) -> Any:
        return self


@dataclass(frozen=True)
class LayerWiseApollo(Apollo):
    """APOLLO that moves each weight during ``backward()``: ``apollo_adamw_layerwise`` of transformers."""

    layerwise: bool = True
