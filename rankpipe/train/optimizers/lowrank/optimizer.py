"""The optimizer: what is projected, when the basis turns, how weights are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack

import torch
from torch import Tensor

from rankpipe.errors import ModelError, RecipeError
from rankpipe.train.optimizers.lowrank.projections import PROJECTIONS, Projection, drawing
from rankpipe.train.optimizers.lowrank.rules import RULES, Group, State
from rankpipe.train.optimizers.storage import state_bytes


class Options(TypedDict, total=False):
    """What a group of parameters may say; see :class:`~rankpipe.train.optimizers.galore.GaLore`."""

    lr: float
    betas: Sequence[float]
    eps: float
    weight_decay: float
    inner: str
    proj: str
    rank: int
    gap: int
    scale: float
    on_switch: str
    write: str
    seed: int
    fused: bool
    scale_parameter: bool


DEFAULTS = Options(
    lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, inner="adam", proj="identity", rank=128, gap=200,
    scale=1.0, on_switch="keep", write="stochastic", seed=0, fused=True, scale_parameter=False,
)  # fmt: skip
SHAPING = ("inner", "proj", "rank", "gap", "on_switch", "write", "seed")  # with others, a state means something else


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix at one step, its shorter side first, as a method sees it."""

    grad: Tensor  # (m, n)
    low: Tensor  # (r, n): the gradient, projected
    direction: Tensor  # (r, n): the rule's step there, at a learning rate of 1
    up: Callable[[Tensor], Tensor]  # (r, n) to (m, n)
    state: State  # the method's own numbers may lie here, too


class Method(Protocol):
    """How a step of the whole matrix is made from the projected one. One of its own is a small file."""

    def full(self, seen: Matrix) -> Tensor:
        """The step (m, n), at a learning rate of 1."""
        ...

    def own_bytes(self, width: int) -> int:
        """What it keeps for each matrix, ``width`` bytes a number."""
        ...


class LowRank(torch.optim.Optimizer):  # type: ignore[misc]
    """AdamW, Adafactor or SGD in a subspace of each gradient that is found anew every ``gap`` steps (GaLore).

    State is tensors only: ``step``, the rule's moments, the basis ``P``, a ``master`` copy of the weights if asked for;
    in single precision or more, whatever the weights are in. A group with ``proj="identity"``, the default, is the
    plain rule's: with ``inner="adam"`` what ``torch.optim.AdamW`` does, to the bit.

    A step with a gradient that is not finite changes nothing, and is counted (``skipped``).

    :param method: how the projected step becomes a whole one; None is GaLore, back through the projection.
    :raises RecipeError: If a parameter cannot be projected; says why.
    """

    def __init__(self, params: Iterable[Any], method: Method | None = None, **options: Unpack[Options]) -> None:
        if unknown := options.keys() - DEFAULTS.keys():
            raise TypeError(f"no such options: {', '.join(sorted(unknown))}")
        self.method = method
        super().__init__(params, {**DEFAULTS, **options, "skipped": 0})

    def add_param_group(self, param_group: Group) -> None:
        """One more group; its ``names`` are those that errors call the parameters by.

        :raises RecipeError: If a parameter cannot be projected.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for i, p in enumerate(group["params"]):
            _refuse(p, group, group["names"][i] if "names" in group else f"parameter {i}")

    @property
    def skipped(self) -> int:
        """Updates that were not made, because a gradient was not finite."""
        return int(self.param_groups[0]["skipped"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update([p for _, p, _ in self._all() if p.grad is not None])
        return loss

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, params: Sequence[Tensor], clip: float | None = None) -> float:
        """Move these parameters by their gradients, or none of them if any gradient is not finite.

        :param clip: scale the gradients so that their norm is at most this.
        :return: the norm of their gradients, together.
        """
        if not params:
            return 0.0
        if any(p.grad.is_sparse for p in params):
            raise ModelError("sparse gradients: make the embedding with sparse=False")
        norms = [torch.linalg.vector_norm(p.grad, dtype=_width(p)).to(params[0].device) for p in params]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        if not norm < float("inf") and not all(bool(p.grad.isfinite().all()) for p in params):
            self.param_groups[0]["skipped"] += 1
            return norm
        if clip is not None and norm > clip:
            for p in params:
                p.grad.mul_(clip / norm)
        wanted = {id(p) for p in params}
        for place, p, group in self._all():
            if id(p) in wanted:
                self._move(place, p, group)
        return norm

    def _move(self, place: int, p: Tensor, group: Group) -> None:
        state: State = self.state[p]
        rule, projection, lr = RULES[group["inner"]], PROJECTIONS[group["proj"]], group["lr"]
        turned = projection is not None and p.shape[0] > p.shape[1]
        weights = self._weights(p, state, group)
        grad = (p.grad.T if turned else p.grad).to(weights.dtype)
        age, low = int(state["step"]) if "step" in state else 0, grad
        if projection is not None:  # (m, n), m <= n
            basis = self._basis(projection, place, grad, age, state, group)
            if basis is None:
                return
            low = projection.down(grad, basis)
        if "step" not in state:
            state |= rule.fresh(low) | {"step": torch.tensor(0.0)}
        state["step"] += 1
        if group["weight_decay"]:
            weights.mul_(1 - lr * group["weight_decay"])
        if projection is None:
            rule.step(weights, low, state, age + 1, lr * group["scale"], group)
        else:
            since = age % group["gap"] if group["on_switch"] == "reset" else age
            direction = torch.zeros(low.shape, dtype=low.dtype, device=low.device)
            rule.step(direction, low, state, since + 1, 1.0, group)
            seen = Matrix(grad, low, direction, lambda r: projection.up(r, basis, torch.empty_like(grad)), state)
            step = self.method.full(seen) if self.method else seen.up(direction)
            weights.add_(step.T if turned else step, alpha=lr * group["scale"])
        _write(p, weights, group, place, age)

    def _basis(
        self, projection: Projection, place: int, grad: Tensor, age: int, state: State, group: Group
    ) -> Tensor | None:
        """The basis of this step, a new one where it is time; None where no gradient has shown any yet."""
        turn, rest = divmod(age, group["gap"])
        old = state.get("P")

        def made(turn: int) -> Tensor:
            return projection.fit(
                grad, old, min(group["rank"], len(grad)), drawing("basis", group["seed"], place, turn)
            )

        if not projection.stored:
            new, old = made(turn), made(turn - 1) if age and not rest else None
        elif rest or not grad.any():  # a gradient of zeros shows nothing
            new = old
        else:
            new = state["P"] = _shared(made(turn))
        if age and not rest:
            self._switch(projection, old, new, grad, state, group)
        return new

    def _switch(
        self, projection: Projection, old: Tensor | None, new: Tensor | None, grad: Tensor, state: State, group: Group
    ) -> None:
        """What the moments are worth in the new basis."""
        rule = RULES[group["inner"]]
        if group["on_switch"] == "reproject":
            rule.turn(state, lambda low: projection.down(projection.up(low, old, torch.empty_like(grad)), new))
        elif group["on_switch"] == "reset":
            state |= rule.fresh(projection.down(grad, new))

    def _weights(self, p: Tensor, state: State, group: Group) -> Tensor:
        """The weights to compute with: the parameter itself, or as more exact numbers."""
        if p.dtype == _width(p):
            return p
        if group["write"] != "master":
            return p.to(_width(p))
        if "master" not in state:
            state["master"] = p.to(_width(p))
        return state["master"]

    def state_bytes(self) -> int:
        """The memory that the state holds, by storage."""
        return state_bytes(self)

    def formula_bytes(self) -> int:
        """What it will hold once every parameter has had a gradient, from shapes alone."""
        return sum(self._bytes_of(p, group) for _, p, group in self._all())

    def _bytes_of(self, p: Tensor, group: Group) -> int:
        width, shape = _width(p).itemsize, list(p.shape)
        projection, own = PROJECTIONS[group["proj"]], 0
        if projection is not None:
            rows, columns = sorted(shape)
            rank = min(group["rank"], rows)
            own = projection.basis_bytes(rows, rank, width) + (self.method.own_bytes(width) if self.method else 0)
            shape = [rank, columns]
        master = width * p.numel() if group["write"] == "master" and p.dtype != _width(p) else 0
        return 4 + RULES[group["inner"]].state_bytes(shape, width) + own + master

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave: every tensor as it was, not cast to the kind of the weights as torch would.

        :raises ModelError: If it is another optimizer's, or one of other options.
        """
        saved = state_dict["param_groups"]
        for mine, theirs in zip(self.param_groups, saved, strict=False):
            if other := [k for k in SHAPING if theirs.get(k) != mine[k]]:
                said = ", ".join(f"{k} {theirs.get(k)!r} (here {mine[k]!r})" for k in other)
                raise ModelError(f"the optimizer's state was kept with {said}: go on with these, or begin anew")
        super().load_state_dict({**state_dict, "state": {}})
        places = [place for group in saved for place in group["params"]]
        for place, (_, p, _) in zip(places, self._all(), strict=True):
            for name, value in state_dict["state"].get(place, {}).items():
                self.state[p][name] = value.clone() if name == "step" else value.to(p.device, copy=True)

    def _all(self) -> Iterator[tuple[int, Tensor, Group]]:
        """Every parameter with its place, by which its random numbers are told, and its group."""
        pairs = ((p, group) for group in self.param_groups for p in group["params"])
        for place, (p, group) in enumerate(pairs):
            yield place, p, group


def _refuse(p: Tensor, group: Group, name: str) -> None:
    """What no projection can do.

    :raises RecipeError: Says which parameter, why, and the cure.
    """
    faults = [f"{k}: {group[k]!r} is not one of {', '.join(t)}" for k, t in TABLES.items() if group[k] not in t]
    if not faults and PROJECTIONS[group["proj"]] is not None:
        whole = "low-rank steps need whole matrices: train with plain data parallelism, or with adamw"
        if hasattr(p, "placements"):
            faults = [f"{name} {tuple(p.shape)} is a DTensor, spread over processes; {whole}"]
        elif p.dim() == 1 or hasattr(p, "ds_id"):
            faults = [f"{name} {tuple(p.shape)} is flat, as FSDP and DeepSpeed make parameters; {whole}"]
        elif p.dim() != 2:
            faults = [f"{name} {tuple(p.shape)} is no matrix; put it into a group with proj='identity'"]
    if group["write"] == "stochastic" and p.dtype == torch.float16:
        faults += [f"{name} is in float16, which has no stochastic rounding here; say write='master'"]
    if faults:
        raise RecipeError(faults)


def _width(p: Tensor) -> torch.dtype:
    return torch.promote_types(p.dtype, torch.float32)


def _shared(basis: Tensor) -> Tensor:
    """The first process's basis, so that nothing that differs between processors can part them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(basis := basis.contiguous(), src=0)
    return basis


def _write(p: Tensor, weights: Tensor, group: Group, place: int, age: int) -> None:
    """Round the weights to the parameter's kind; by chance, so that on average nothing is lost, if so asked."""
    if weights is p:
        return
    if group["write"] == "stochastic":
        bits, draw = weights.view(torch.int32), drawing("noise", group["seed"], place, age, device=p.device)
        noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=draw)
        weights = bits.add_(noise).bitwise_and_(-1 << 16).view(torch.float32)
    p.copy_(weights)


TABLES: dict[str, Sequence[str]] = {
    "inner": tuple(RULES),
    "proj": tuple(PROJECTIONS),
    "on_switch": ("keep", "reproject", "reset"),
    "write": ("round", "master", "stochastic"),
}
