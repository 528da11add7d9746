"""GaLore (Zhao et al. 2024, https://arxiv.org/abs/2403.03507): an optimizer sees few directions of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rankpipe.errors import RecipeError
from rankpipe.progress import notice
from rankpipe.train.optimizers.groups import Placed, sort
from rankpipe.train.optimizers.settings import Settings


@dataclass(frozen=True)
class GaLore(Settings):
    """The weights of linear layers are trained in full, by an optimizer that sees ``rank`` directions of each gradient.

    State of a matrix (m, n), m <= n, of rank r: r * m for the directions, 2 * r * n for Adam's moments, in single
    precision; embeddings, heads, norms and biases have AdamW's own. The learning rate of what is projected is ``lr``
    times ``scale``. We deviate: weight decay is AdamW's, not applied to norms and biases; eps is added where torch's
    AdamW adds it; directions keep their signs.

    :param betas: how much of the two moments is kept at a step.
    :param eps: added to the root of the second.
    :param rank: how many directions.
    :param gap: steps until new directions are taken.
    :param scale: what the projected step is times (the paper's alpha).
    :param proj: where directions come from. rsvd: one pass of subspace iteration from the old ones; svd, eigh: the
        exact ones; columns: the largest rows or columns themselves; random: a seed, nothing is kept; identity: all.
    :param on_switch: what becomes of the moments when directions change. keep: nothing, as in the paper; reproject: the
        first is written in the new ones, the second is kept; reset: both begin anew.
    :param inner: the optimizer that sees the projected gradient.
    :param targets: linear layers that are projected, by the exact name of a module (q_proj) or its whole path, in which
        ``*`` is any one part (model.layers.*.mlp.up_proj); None is all but heads and what gives the logits.
    :param write: how weights of less than single precision are written. stochastic: up or down by chance, right on
        average; master: rounded from a copy in single precision, which the state keeps; round: what is less than half
        of the last digit is lost, which is nearly everything.
    :param seed: of random directions, cold starts and the rounding.
    :param layerwise: each weight moves during ``backward()`` and its gradient is freed at once.
    :param clip: with ``layerwise``, the largest norm of each parameter's gradient by itself.
    :raises RecipeError: If ``clip`` is given without ``layerwise``; then it is the trainer's ``max_grad_norm``.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    rank: int = 128
    gap: int = 200
    scale: float = 0.25
    proj: Literal["rsvd", "svd", "eigh", "random", "columns", "identity"] = "rsvd"
    on_switch: Literal["keep", "reproject", "reset"] = "keep"
    inner: Literal["adam", "adam8bit", "adafactor", "sgd"] = "adam"
    targets: Sequence[str] | None = None
    write: Literal["round", "master", "stochastic"] = "stochastic"
    seed: int = 0
    layerwise: bool = False
    clip: float | None = None

    def over(self, model: Any, *, accumulation: int = 1, max_grad_norm: float = 0.0) -> Any:
        """The optimizer; layer-wise, its ``layers`` say the norm of the gradients and can be removed."""
        optimizer = super().over(model, accumulation=accumulation, max_grad_norm=max_grad_norm)
        sides = [min(placed.parameter.shape) for placed in self.report(model) if placed.projected]
        if sides and self.rank >= (most := max(sides)) and self.proj != "identity":
            notice(f"rank: {self.rank}: what is projected has {most} directions at most, so that this saves no memory")
        if self.layerwise:
            from rankpipe.train.optimizers.lowrank import LayerWise

            optimizer.layers = LayerWise(optimizer, accumulation, self.clip)
        return optimizer

    def clipped_to(self, max_grad_norm: float) -> None:
        """Layer-wise, gradients are gone before the norm of all is known."""
        if self.layerwise and max_grad_norm:
            fault = (
                f"layerwise: weights move before the norm of all gradients is known, so that max_grad_norm="
                f"{max_grad_norm} cannot be kept; say max_grad_norm: 0, and clip: {max_grad_norm} clips each "
                "parameter's gradient by itself"
            )
            raise RecipeError([fault])

    def report(self, model: Any) -> list[Placed]:
        """Each trainable parameter with its group, and why it is in that one."""
        return sort(model, self.targets if self.targets is None else tuple(self.targets), self.method_name)

    @property
    def method_name(self) -> str:
        """For errors."""
        return type(self).__name__.lower()

    def _made(self, model: Any) -> Any:
        from rankpipe.train.optimizers.lowrank import LowRank

        names = ("eps", "rank", "gap", "on_switch", "inner", "write", "seed")
        options: dict[str, Any] = {name: getattr(self, name) for name in names} | {"betas": tuple(self.betas)}
        return LowRank(self._groups(model), self._method(), **options)

    def _method(self) -> Any:
        """What makes the step of the whole matrix; None is back through the projection."""
        return None

    def _of_group(self, projected: bool) -> dict[str, Any]:
        return {"proj": self.proj, "scale": self.scale} if projected else {"proj": "identity", "scale": 1.0}

    def _faults(self) -> Sequence[str]:
        found = [*super()._faults()]
        if self.clip is not None and not self.layerwise:
            found += ["clip is of layerwise: true; else say max_grad_norm"]
        elif self.clip is not None and not self.clip > 0:
            found += [f"clip={self.clip}: must be more than 0, or nothing moves; leave it out to clip nothing"]
        return found


@dataclass(frozen=True)
class GaLore8bit(GaLore):
    """GaLore with Adam's moments in eight bits: ``galore_adamw_8bit`` of transformers, and on a CPU, too."""

    inner: Literal["adam", "adam8bit", "adafactor", "sgd"] = "adam8bit"


@dataclass(frozen=True)
class GaLoreAdafactor(GaLore):
    """GaLore with Adafactor: ``galore_adafactor`` of transformers."""

    inner: Literal["adam", "adam8bit", "adafactor", "sgd"] = "adafactor"


@dataclass(frozen=True)
class LayerWiseGaLore(GaLore):
    """GaLore that moves each weight during ``backward()``: ``galore_adamw_layerwise`` of transformers."""

    layerwise: bool = True


@dataclass(frozen=True)
class LayerWiseGaLore8bit(GaLore8bit):
    """The same with moments in eight bits: ``galore_adamw_8bit_layerwise`` of transformers."""

    layerwise: bool = True


@dataclass(frozen=True)
class LayerWiseGaLoreAdafactor(GaLoreAdafactor):
    """The same with Adafactor: ``galore_adafactor_layerwise`` of transformers."""

    layerwise: bool = True
