"""A small square matrix between factors that do not move: LoRA-XS and LoRA-SB, on PEFT's LoRA, which has neither.

``A`` of PEFT's layer is made anew from ``R`` at every use, ``A = R V``, by a parametrization of torch: all that PEFT
does with a LoRA it does with this one. A checkpoint holds R; what is saved is a LoRA with R times V written out, which
any PEFT loads. Lost by that: that it is small (r (m + n) numbers, not r^2), and training cannot go on from it in R
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Batches, Loss
from rankpipe.train.adapters.factors import NAME, layers
from rankpipe.train.adapters.lora import LoRA
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class LoRAXS(LoRA):
    """``W + scaling * U S R V``: the largest singular vectors of W do not move (Balazy 2024, arXiv 2405.17604).

    :param deviation: of R at the beginning, normal around 0; at 0 the model is the same to the bit, and learns, too.
    """

    deviation: float = 1e-5

    only_lora: ClassVar[bool] = True

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        torch = need("torch", name=self.method_name, extra="train")
        for path, layer in layers(model):
            u, s, v = _svd(layer, layer.get_base_layer().weight, self.rank, path)
            _put(layer, u * s, torch.randn(self.rank, self.rank) * self.deviation, v)


@dataclass(frozen=True)
class LoRASB(LoRA):
    """LoRA-XS in the directions of the first step of full training (Ponkshe et al. 2024, arXiv 2411.19557).

    It does not begin as the model was, but after the best step of that rank: ``-first * sign(sum of gradients)``. It
    needs ``calibration``, some fifty examples or a thousandth of all.

    :param first: the learning rate of that step.
    """

    first: float = 1e-4

    only_lora: ClassVar[bool] = True
    by_loss: ClassVar[bool] = True
    quantised: ClassVar[bool] = False

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        if calibration is None:
            yield "lora-sb: needs calibration, batches of what the loss is of"

    def _before(self, model: Any, where: Spread, calibration: Batches | None, loss: Loss | None) -> Any:
        """The summed gradients of the layers that will be adapted."""
        weights = {path: model.get_submodule(path).weight for path in where.layers}
        return _gradients(model, weights, calibration or (), loss or _own_loss)

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:  # noqa: ARG002
        torch = need("torch", name=self.method_name, extra="train")
        for path, layer in layers(model):
            total = ready[path.removeprefix("base_model.model.")]
            u, s, v = _svd(layer, -self.first * total.sign(), self.rank, path)
            _put(layer, u, torch.diag(s / layer.scaling[NAME]), v)


def _svd(layer: Any, matrix: Any, rank: int, path: str) -> tuple[Any, Any, Any]:
    """The largest singular values and vectors, in single precision, whatever the weights are in.

    :param matrix: the layer's weight or its like; GPT-2's (inputs, outputs) is turned round.
    """
    torch = need("torch", name="an adapter", extra="train")
    if not matrix.is_floating_point():
        integrations = need("peft.utils.integrations", name="an adapter", extra="train")
        state = getattr(layer.get_base_layer(), "state", None)  # of eight bits; four have theirs in the weight
        matrix = integrations.dequantize_bnb_weight(matrix, state=state)
    matrix = matrix.T if layer.fan_in_fan_out else matrix
    if min(matrix.shape) < rank:
        raise RecipeError([f"rank: {path} is {tuple(matrix.shape)}, of less than rank {rank}"])
    u, s, v = torch.linalg.svd(matrix.detach().float(), full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]


def _put(layer: Any, b: Any, r: Any, v: Any) -> None:
    """B and V that do not move, and R between them."""
    torch = need("torch", name="an adapter", extra="train")
    for part in (layer.lora_A[NAME], layer.lora_B[NAME]):
        part.float().requires_grad_(False)
    layer.lora_B[NAME].weight.copy_(b)
    layer.lora_A[NAME].weight = torch.nn.Parameter(r.to(v))
    between = _between()(v.contiguous())
    torch.nn.utils.parametrize.register_parametrization(layer.lora_A[NAME], "weight", between, unsafe=True)


@cache
def _between() -> Any:
    nn = need("torch", name="an adapter", extra="train").nn

    class Between(nn.Module):  # type: ignore[misc,name-defined]
        """``R -> R V``."""

        def __init__(self, v: Any) -> None:
            super().__init__()
            self.register_buffer("v", v)

        def forward(self, r: Any) -> Any:
            return r @ self.v

    return Between


def _gradients(model: Any, weights: dict[str, Any], batches: Batches, loss: Loss) -> dict[str, Any]:
    """Of the loss, summed over all batches in single precision."""
    torch = need("torch", name="lora-sb", extra="train")
    sums = {path: torch.zeros_like(weight, dtype=torch.float32, device="cpu") for path, weight in weights.items()}
    moved = {name: p.requires_grad for name, p in model.named_parameters()}
    training = model.training

    def take(path: str) -> Any:
        def taken(weight: Any) -> None:
            sums[path] += weight.grad.float().cpu()
            weight.grad = None

        return taken

    model.requires_grad_(False)
    model.eval()
    handles = [w.requires_grad_(True).register_post_accumulate_grad_hook(take(path)) for path, w in weights.items()]
    try:
        for batch in batches:
            loss(model, {k: v.to(model.device) if hasattr(v, "to") else v for k, v in batch.items()}).backward()
    finally:
        for handle in handles:
            handle.remove()
        for name, p in model.named_parameters():
            p.requires_grad_(moved[name])
        model.train(training)
    return sums


def _own_loss(model: Any, batch: Any) -> Any:
    return model(**batch).loss
