"""Processes that share a training out: the weights, too (torch's FSDP2), or the optimizer only (DeepSpeed's ZeRO)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.qlora import BITS
from rankpipe.train.optimizers.settings import Settings

FSDP = "FSDP_"  # how accelerate's launcher begins the names of what it was told
LAUNCH = "accelerate launch --use_fsdp --fsdp_version 2"
KEPT = "SHARDED_STATE_DICT"  # checkpoints, in which each process writes its part


def fsdp(args: Any) -> dict[str, str]:
    """What FSDP was asked for, by transformers' names; empty if it was not.

    :param args: ``transformers.TrainingArguments``.
    """
    if args.fsdp:
        return {"version": "2"} | {key: str(value).lower() for key, value in args.fsdp_config.items()}
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":
        return {}
    said = {key.removeprefix(FSDP).lower(): value for key, value in os.environ.items() if key.startswith(FSDP)}
    return {"version": "1", "cpu_offload": said.pop("offload_params", "false")} | said


def zero_stage(args: Any) -> int:
    """DeepSpeed's stage, 0 without it."""
    plugin = getattr(args, "deepspeed_plugin", None)
    return plugin.zero_stage if plugin else 0


def prepare(args: Any) -> None:
    """Where the recipe asks for FSDP, have checkpoints written in parts, and weights loaded by each process. DeepSpeed
    is to compute in bfloat16 as other processes do, with weights and sums of gradients as they are: its own ``bf16``
    rounds the weights, and would have them measured and published so.
    """
    if args.fsdp_plugin_args is not None:
        args.fsdp_plugin_args |= {"state_dict_type": KEPT, "cpu_ram_efficient_loading": False}
    if zero_stage(args) and args.mixed_precision == "bf16":
        autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        args.deepspeed_plugin.deepspeed_config |= {"bf16": {}, "torch_autocast": autocast}


def refuse(args: Any, settings: Settings, adapter: Adapter | None, dtype: str, *, ema: bool) -> None:
    """Refuse what cannot be in parts.

    :param args: ``transformers.TrainingArguments``.
    :param settings: the optimizer.
    :param dtype: of the model's weights.
    :raises RecipeError: Says what can be.
    """
    asked, stage = fsdp(args), zero_stage(args)
    faults = [*_of_fsdp(asked)] if asked else []
    faults += [*_of_zero(args, stage, ema)] if stage else []
    if (asked or stage) and not settings.elementwise:
        name = type(settings).__name__
        faults.append(f"optimizer: {name} sees whole matrices, and each process has a part of them here; say adamw")
    if (asked or stage) and adapter and not adapter.in_parts:
        told = f"adapter: {adapter.method_name} looks between steps at weights or gradients that are in parts here"
        faults.append(f"{told}; say lora, or launch with --multi_gpu")
    if (asked or stage) and dtype in BITS:
        faults.append(f"dtype: {dtype}: such weights are not taken apart; say bfloat16, or launch with --multi_gpu")
    if faults:
        raise RecipeError(faults)


def refuse_alone(args: Any, taken: bool) -> None:
    """Refuse FSDP that was asked for and is not there: accelerate (1.15) would go on without it, and not say so.

    :param taken: whether accelerate has taken it up.
    :raises RecipeError: Says where it would be.
    """
    if fsdp(args) and not taken:
        alone = "there is one process, which would have all weights"
        told = alone if args.world_size == 1 else f"accelerate shares nothing out on {args.device.type}"
        raise RecipeError([f"fsdp: {told}; {LAUNCH} --num_processes 2, on as many GPUs, or leave it out"])


def _of_fsdp(asked: dict[str, str]) -> Iterator[str]:
    kind = getattr(need("torch.distributed.fsdp", name="training", extra="train"), "FSDPModule", None)
    if not hasattr(kind, "reset_iter_state"):
        yield "fsdp: this torch cannot go on with a step after a measurement; pip install 'torch>=2.13'"
    if asked["version"] != "2":
        yield f"fsdp: version {asked['version']} flattens weights; {LAUNCH}, or fsdp_config: {{version: 2}}"
    if asked.get("state_dict_type", KEPT).upper() != KEPT:
        yield f"fsdp: state_dict_type: checkpoints are written in parts; say {KEPT}, or nothing"
    if asked.get("activation_checkpointing") == "true":
        yield "fsdp: activation_checkpointing: layers are renamed by it; say training: {gradient_checkpointing: true}"
    if asked.get("cpu_offload") == "true":
        yield "fsdp: what is measured and published is gathered on GPUs; leave cpu_offload out"
    if asked.get("auto_wrap_policy", "").upper() == "SIZE_BASED_WRAP":
        yield "fsdp: auto_wrap_policy: by size, lists of layers are wrapped, too; say TRANSFORMER_BASED_WRAP"


def _of_zero(args: Any, stage: int, ema: bool) -> Iterator[str]:
    if stage == 3:
        yield f"deepspeed: stage 3 has weights in parts, which are not gathered here; say stage 2, or {LAUNCH}"
    for key in {"optimizer", "scheduler"} & {*args.deepspeed_plugin.deepspeed_config}:
        yield f"deepspeed: {key}: the recipe says it; leave it out there"
    if args.mixed_precision == "fp16":
        yield "fp16: DeepSpeed rounds the weights to it; say training: {bf16: true}"
    if args.mixed_precision == "bf16" and find_spec("deepspeed.runtime.torch_autocast") is None:
        yield "bf16: this DeepSpeed rounds the weights to it; pip install -U deepspeed"
    if ema:
        yield "ema: is not kept by DeepSpeed's checkpoints; leave it out"
