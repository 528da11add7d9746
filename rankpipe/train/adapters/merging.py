"""An adapter goes into its base, rounded once; and what that loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.factors import base_layer, factors, layers, past, product


@dataclass(frozen=True)
class LayerLoss:
    """What rounding did to one layer."""

    path: str
    largest: float  # the largest error of a weight
    error: float  # Frobenius norms: of all errors,
    update: float  # and of what was to be added


@dataclass(frozen=True)
class MergeLoss:
    """What rounding does to a merge: the base's dtype cannot hold the sum. In float32 it is next to nothing."""

    layers: Sequence[LayerLoss]

    @property
    def largest(self) -> float:
        """The largest error of a weight."""
        return max((layer.largest for layer in self.layers), default=0.0)

    @property
    def of_update(self) -> float:
        """The norm of all errors, relative to that of the whole update: at 0.5, half of it is gone."""
        update = sum(layer.update**2 for layer in self.layers) ** 0.5
        return sum(layer.error**2 for layer in self.layers) ** 0.5 / update if update else 0.0

    @property
    def worst(self) -> LayerLoss | None:
        """The layer whose update lost most."""
        return max(self.layers, key=lambda layer: layer.error / layer.update if layer.update else 0.0, default=None)

    def __str__(self) -> str:
        if not self.largest:
            return "rounding loses nothing"
        most = f", most in {self.worst.path}" if self.worst else ""
        return f"rounding is {self.of_update:.2g} of the update, a weight is off by {self.largest:.2g} at most{most}"


def merge(model: Any, load: Callable[[], Any] | None = None) -> tuple[Any, MergeLoss]:
    """The base model with the adapter in its weights, each sum made in single precision and rounded once; and the loss.

    Where the base has something of the adapter (PiSSA, ReLoRA), that is taken out of it first, rounded: in half
    precision not all weights become what they were.

    :param load: loads the base as it was, which is merged into then.
    :raises RecipeError: If the base is quantised.
    """
    losses = []
    fresh = load() if load and any(past(layer) for _, layer in layers(model)) else None
    for path, layer in layers(model):
        weight, loss = _merged(path, layer, fresh)
        layer.get_base_layer().weight.data = weight
        losses.append(loss)
    return model.unload(), MergeLoss(tuple(losses))


def merge_loss(model: Any) -> MergeLoss:
    """What :func:`merge` would lose; the model stays as it is."""
    return MergeLoss(tuple(_merged(path, layer)[1] for path, layer in layers(model)))


def rounded(path: str, before: Any, after: Any, dtype: Any) -> tuple[Any, LayerLoss]:
    """The sum in the base's dtype, and what that loses."""
    weight = after.to(dtype)
    error = after - weight.float()
    return weight, LayerLoss(path, float(error.abs().max()), float(error.norm()), float((after - before).norm()))


def _merged(path: str, layer: Any, fresh: Any = None) -> tuple[Any, LayerLoss]:
    """The weight of a layer with its adapter.

    :param fresh: the base as it was.
    """
    torch, base = need("torch", name="merge", extra="train"), layer.get_base_layer()
    if not base.weight.is_floating_point():
        raise RecipeError([f"merge: {path} is quantised: load the base in bfloat16 and the adapter on it, then merge"])
    original = base.weight.data
    with torch.no_grad():
        before = original.float()
        if past(layer):
            if fresh is not None:
                before = base_layer(fresh, path).weight.to(original.device).float()
            else:
                before = sum((-product(layer, b, a) for b, a in past(layer)), before).to(original.dtype).float()
            return rounded(path, before, before + product(layer, *factors(layer)), original.dtype)
        try:
            base.weight.data = before.clone()
            layer.merge(safe_merge=True)
            after = base.weight.data
        finally:
            base.weight.data = original
            layer.merged_adapters.clear()
        return rounded(path, before, after, original.dtype)
