"""Weights that each process has a part of (torch's FSDP2), and what takes them whole: evaluation, and what is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from torch.distributed import fsdp
from torch.distributed.tensor import DTensor, distribute_tensor

from rankpipe.errors import RecipeError

PART: Any = getattr(fsdp, "FSDPModule", ())  # what FSDP2 makes of a module; torch before 2.6 has none
MARKS = {"FSDP": "pytorch_model_fsdp*", "DeepSpeed": "global_step*"}  # of checkpoints that were written under them


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Inside, each process has all weights, so that each may ask the model as often as it likes; not to be trained.

    It computes as it does in training: DeepSpeed's engine, which knows what to round, is not asked here.
    """
    parts = [module for module in model.modules() if isinstance(module, PART)]
    groups = [group for part in parts for group in part._get_fsdp_state()._fsdp_param_groups]
    if parts:
        model._get_fsdp_state()._lazy_init()  # as its first forward pass would, which not every process makes
    meshes = [group.post_forward_mesh_info for group in groups]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        with _rounded():
            yield
    finally:
        if parts:
            model.reset_iter_state()  # forgets the order of what was asked, by which it would gather ahead
        for group, mesh in zip(groups, meshes, strict=True):
            group.post_forward_mesh_info = mesh


def _rounded() -> Any:
    """torch's autocast, where DeepSpeed is told of it (:func:`rankpipe.train.shards.prepare`)."""
    state = AcceleratorState()
    told = state.deepspeed_plugin.deepspeed_config.get("torch_autocast") if state.deepspeed_plugin else None
    return torch.autocast(state.device.type, torch.bfloat16) if told else nullcontext()


def make_whole(model: Any, *, here: bool) -> None:
    """Put whole weights on the CPU in place of a process's parts, for good; all processes take part.

    :param here: whether this process is to have them; the others keep their parts.
    """
    made: dict[Any, Any] = {}  # by the part that was there; tied weights stay tied
    for module in model.modules():
        for name, p in [*module.named_parameters(recurse=False)]:
            if isinstance(p, DTensor) and p not in made:
                whole = p.detach().full_tensor()
                made[p] = torch.nn.Parameter(whole.cpu(), requires_grad=p.requires_grad) if here else p
            if p in made:
                setattr(module, name, made[p])


def alike(value: Any, own: Any) -> Any:
    """A tensor that each process has whole, shared out as another one is, if that is."""
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def complete(optimizer: Any) -> None:
    """Give weights that have had no gradient the state of the beginning: what loads checkpoints of parts misses it.

    :param optimizer: whose state has for each weight numbers of the same shape, and scalars.
    """
    known: dict[str, Any] = next(iter(optimizer.state.values()), {})
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        if p not in optimizer.state:
            optimizer.state[p] = {k: torch.zeros_like(p.detach() if v.dim() else v) for k, v in known.items()}


def layers(model: Any) -> list[str]:
    """The classes of the modules that are gathered one after the other: transformers' own, but for those that have the
    embeddings in them, which accelerate (1.15) shares out twice.
    """
    inputs = model.get_input_embeddings()
    kinds = {type(m).__name__ for m in model.modules() if any(part is inputs for part in m.modules())}
    return sorted({*(getattr(model, "_no_split_modules", None) or ())} - kinds)


def refuse_other(checkpoint: Path, now: str | None) -> None:
    """Refuse to go on from a checkpoint that was written by processes which shared out otherwise than these, or by more
    or fewer of them: a step would have more or fewer lists, and the data another order.

    :param now: what shares out, a key of :data:`MARKS`, or None.
    :raises RecipeError: Says which.
    """
    then = next((name for name, mark in MARKS.items() if any(checkpoint.glob(mark))), None)
    writers, here = len([*checkpoint.glob("rng_state*.pth")]), PartialState().num_processes  # each wrote its own
    told = [f"under {then}" if then else f"without {now}"] if then != now else []
    told += [f"by {writers}, not {here}, processes"] if writers != here else []
    if told:
        cure = "launch it as then, or say --force to begin anew"
        raise RecipeError([f"{checkpoint}: was written {' '.join(told)}; {cure}"])
