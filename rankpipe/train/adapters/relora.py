"""ReLoRA (Lialin et al. 2023, arXiv 2307.05695), PeriodicLoRA (Meng et al. 2024, arXiv 2402.16141): LoRA in stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.progress import notice
from rankpipe.train.adapters.adapter import Batches
from rankpipe.train.adapters.callbacks import Callback
from rankpipe.train.adapters.factors import NAME, base_layer, forget, layers, past, product, remember
from rankpipe.train.adapters.lora import LoRA
from rankpipe.train.adapters.merging import MergeLoss, rounded


@dataclass(frozen=True)
class ReLoRA(LoRA):
    """LoRA that goes into the base every so often and begins anew, so that ranks add up: ``stages * rank`` at the end.

    At a stage's end the model is the same but for rounding (:class:`~rankpipe.train.adapters.merging.MergeLoss`), A is
    drawn again, B is 0 and the optimizer forgets both. It is saved as one LoRA over the base as it was, the stages side
    by side. PeriodicLoRA's momentum between stages is not here.

    :param every: steps of a stage.
    :param stages: how many; the last one goes on to the end.
    :param warmup: steps after each stage's beginning in which learning rates rise; all of them, by ``warmth``.
    """

    every: int = 500
    stages: int = 4
    warmup: int = 20

    only_lora: ClassVar[bool] = True
    averages: ClassVar[bool] = False  # over a base that has part of them
    quantised: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False  # products go into the base

    def callbacks(self) -> list[Callback]:
        """Stages end after a step."""
        return [Stages(self.every, self.stages, self.seed or 0)]

    def warmth(self, step: int) -> float:
        """From near 0 to 1 in each stage but the first, which the trainer's own schedule warms."""
        stage = min((step - 1) // self.every, self.stages - 1)
        return min(1.0, (step - stage * self.every) / (self.warmup + 1)) if stage else 1.0

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        if steps is not None and steps <= self.every * (self.stages - 1):
            yield f"relora: {steps} steps end before stage {self.stages} begins, every {self.every} steps"


class Stages(Callback):
    """Ends stages; ``losses`` says what each lost to rounding."""

    def __init__(self, every: int, stages: int, seed: int) -> None:
        self.every, self.stages, self.seed = every, stages, seed
        self.losses: list[MergeLoss] = []

    def on_step(self, model: Any, optimizer: Any, step: int) -> None:
        """After the last step of a stage, if it is not the last stage."""
        if step % self.every or step // self.every >= self.stages:
            return
        losses = []
        for index, (path, layer) in enumerate(layers(model)):
            a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            remember(layer, layer.scaling[NAME] * b, a)
            losses.append(_into_base(path, layer, *past(layer)[-1]))
            _begin_anew(a, b, self.seed + 1_000_003 * step + index)
            for p in (a, b):
                optimizer.state.pop(p, None)
        self.losses.append(MergeLoss(tuple(losses)))
        notice(f"stage {len(self.losses)} of {self.stages} is in the base: {self.losses[-1]}")

    def state(self, model: Any) -> dict[str, Any]:
        """The factors of all stages that ended."""
        return {
            f"{stage}.{kind}.{path}": t
            for path, layer in layers(model)
            for stage, pair in enumerate(past(layer))
            for kind, t in zip("BA", pair, strict=True)
        }

    def rewind(self, model: Any, load: Callable[[], Any]) -> None:
        """The base as it was, if stages went into it."""
        if not (ended := [(path, layer) for path, layer in layers(model) if past(layer)]):
            return
        fresh = load()
        for path, layer in ended:
            layer.get_base_layer().weight.data.copy_(base_layer(fresh, path).weight)
            forget(layer)

    def restore(self, model: Any, state: dict[str, Any]) -> None:
        """Into the base, in the same order and with the same rounding."""
        for path, layer in layers(model):
            for stage in range(self.stages):
                if (b := state.get(f"{stage}.B.{path}")) is not None:
                    remember(layer, b, state[f"{stage}.A.{path}"])
                    _into_base(path, layer, *past(layer)[-1])


def _into_base(path: str, layer: Any, b: Any, a: Any) -> Any:
    base = layer.get_base_layer()
    torch = need("torch", name="relora", extra="train")
    with torch.no_grad():
        before = base.weight.detach().float()
        weight, loss = rounded(path, before, before + product(layer, b, a), base.weight.dtype)
        base.weight.copy_(weight)
    return loss


def _begin_anew(a: Any, b: Any, seed: int) -> None:
    torch = need("torch", name="relora", extra="train")
    with torch.no_grad():
        drawn = torch.empty(a.shape)
        torch.nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=torch.Generator().manual_seed(seed))
        a.copy_(drawn)
        b.zero_()
