"""How a step is made of gradients: the optimizer inside the projection. The rules keep nothing themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from rankpipe.train.optimizers.lowrank.quantise import BLOCK, pack, packed_bytes, unpack

State = dict[str, Tensor]
Group = dict[str, Any]
SMALL = 4096  # numbers; fewer are kept in full precision by Adam8bit, as bitsandbytes does
PIECE = 1 << 18  # numbers that Adam8bit has in full precision at once; a multiple of BLOCK


class Rule(Protocol):
    """An optimizer for one tensor."""

    def fresh(self, grad: Tensor) -> State:
        """The state before the first step."""
        ...

    def step(self, target: Tensor, grad: Tensor, state: State, age: int, lr: float, group: Group) -> None:
        """Move ``target`` by the step number ``age`` (from 1), without weight decay."""
        ...

    def turn(self, state: State, into: Callable[[Tensor], Tensor]) -> None:
        """Write the first moment in another basis. The second one is carried as it is: it has no sign that could be
        wrong, and one begun again beside an old first moment would make steps of any size.
        """
        ...

    def state_bytes(self, shape: Sequence[int], width: int) -> int:
        """What the state of a tensor of this shape takes, ``width`` bytes a number."""
        ...


class Adam:
    """torch's own AdamW, on one tensor: what it does to a parameter, to the bit."""

    def fresh(self, grad: Tensor) -> State:
        """Two moments."""
        return {name: torch.zeros(grad.shape, dtype=grad.dtype, device=grad.device) for name in MOMENTS}

    def step(self, target: Tensor, grad: Tensor, state: State, age: int, lr: float, group: Group) -> None:
        """By torch's fused code where the group says so and it can be."""
        fused = group["fused"] and target.device.type in ("cpu", "cuda") and target.is_contiguous()
        beta1, beta2 = group["betas"]
        adamw(
            [target],
            [grad.contiguous()],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [torch.tensor(age - 1.0, device=target.device if fused else "cpu")],
            foreach=False,
            fused=fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def turn(self, state: State, into: Callable[[Tensor], Tensor]) -> None:
        """The first moment."""
        state["exp_avg"] = into(state["exp_avg"])

    def state_bytes(self, shape: Sequence[int], width: int) -> int:
        """Two numbers each."""
        return 2 * width * math.prod(shape)


class Adam8bit:
    """Adam whose moments are kept in eight bits; computed in full precision, and the step is of unrounded moments."""

    def fresh(self, grad: Tensor) -> State:
        """Moments of nothing."""
        if grad.numel() < SMALL:
            return ADAM.fresh(grad)
        made = self._packed({name: grad.new_zeros(1) for name in MOMENTS})
        made |= {name: made[name].expand(grad.shape).contiguous() for name in MOMENTS}
        return made | {scale: made[scale].new_zeros(-(-grad.numel() // BLOCK)) for scale in SCALES}

    def step(self, target: Tensor, grad: Tensor, state: State, age: int, lr: float, group: Group) -> None:
        """Unpack, step, pack; a piece at a time, so that no moment is ever whole in full precision."""
        if "exp_avg_scale" not in state:
            ADAM.step(target, grad, state, age, lr, group)
            return
        whole = target.contiguous()
        weights, slopes = whole.view(-1), grad.reshape(-1)
        for start in range(0, weights.numel(), PIECE):
            piece, blocks = slice(start, start + PIECE), slice(start // BLOCK, (start + PIECE) // BLOCK)
            held = {name: state[name].view(-1)[piece] for name in MOMENTS}
            held |= {scale: state[scale][blocks] for scale in SCALES}
            moments = self._unpacked(held)
            ADAM.step(weights[piece], slopes[piece], moments, age, lr, group)
            for name, value in self._packed(moments).items():
                held[name].copy_(value)
        if whole is not target:
            target.copy_(whole)

    def turn(self, state: State, into: Callable[[Tensor], Tensor]) -> None:
        """The first moment, unpacked and packed again."""
        moments = self._unpacked(state)
        ADAM.turn(moments, into)
        if moments is not state:
            state |= self._packed(moments)

    def state_bytes(self, shape: Sequence[int], width: int) -> int:
        """A byte each, and the scales."""
        numel = math.prod(shape)
        return 2 * (packed_bytes(numel) if numel >= SMALL else width * numel)

    def _packed(self, moments: State) -> State:
        made: State = {}
        for name in MOMENTS:
            made[name], made[f"{name}_scale"] = pack(moments[name], signed=name == "exp_avg")
        return made

    def _unpacked(self, state: State) -> State:
        if "exp_avg_scale" not in state:
            return state
        return {name: unpack(state[name], state[f"{name}_scale"], signed=name == "exp_avg") for name in MOMENTS}


class Adafactor:
    """The second moment of a matrix as a row's and a column's (Shazeer and Stern 2018), without a first one.

    The learning rate is what it says, as transformers' Trainer has it (``scale_parameter=False, relative_step=False``);
    with ``scale_parameter`` it is times the weights' size and at most one over the root of the steps, as
    ``torch.optim.Adafactor`` has it.
    """

    def fresh(self, grad: Tensor) -> State:
        """A matrix's rows and columns; all of anything smaller."""
        if grad.dim() < 2:
            return {"exp_avg_sq": torch.zeros_like(grad)}
        return {
            "exp_avg_sq_row": grad.new_zeros(grad.shape[:-1]),
            "exp_avg_sq_col": grad.new_zeros(_columns(grad.shape)),
        }

    def step(self, target: Tensor, grad: Tensor, state: State, age: int, lr: float, group: Group) -> None:
        """With the paper's constants: 1e-30, a decay of t^-0.8, updates clipped to a size of 1."""
        squares, decay = grad.square().add_(1e-30), 1 - age**-0.8
        if grad.dim() < 2:
            update = state["exp_avg_sq"].lerp_(squares, 1 - decay).rsqrt().mul_(grad)
        else:
            row = state["exp_avg_sq_row"].lerp_(squares.mean(-1), 1 - decay)
            column = state["exp_avg_sq_col"].lerp_(squares.mean(-2), 1 - decay)
            rows = (row / row.mean(-1, keepdim=True)).rsqrt_()[..., None]
            update = squares.copy_(rows * column.rsqrt()[..., None, :]).mul_(grad)
        update.div_(_size(update).clamp(min=1.0))
        if group["scale_parameter"]:
            lr = min(lr, age**-0.5) * max(1e-3, float(_size(target)))
        target.sub_(update, alpha=lr)

    def turn(self, state: State, into: Callable[[Tensor], Tensor]) -> None:
        """No first moment."""

    def state_bytes(self, shape: Sequence[int], width: int) -> int:
        """Rows and columns."""
        numbers = math.prod(shape) if len(shape) < 2 else math.prod(shape[:-1]) + math.prod(_columns(shape))
        return width * numbers


class SGD:
    """The gradient itself."""

    def fresh(self, grad: Tensor) -> State:  # noqa: ARG002
        """Nothing."""
        return {}

    def step(self, target: Tensor, grad: Tensor, state: State, age: int, lr: float, group: Group) -> None:  # noqa: ARG002
        """Down the gradient."""
        target.add_(grad, alpha=-lr)

    def turn(self, state: State, into: Callable[[Tensor], Tensor]) -> None:
        """No moments."""

    def state_bytes(self, shape: Sequence[int], width: int) -> int:  # noqa: ARG002
        """None."""
        return 0


def _columns(shape: Sequence[int]) -> list[int]:
    return [*shape[:-2], shape[-1]]


def _size(x: Tensor) -> Tensor:
    """Root mean square."""
    return torch.linalg.vector_norm(x) / x.numel() ** 0.5


MOMENTS = ("exp_avg", "exp_avg_sq")
SCALES = tuple(f"{name}_scale" for name in MOMENTS)
ADAM = Adam()
RULES: dict[str, Rule] = {"adam": ADAM, "adam8bit": Adam8bit(), "adafactor": Adafactor(), "sgd": SGD()}
