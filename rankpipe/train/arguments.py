"""The keys ``training`` and ``optimizer`` of a recipe: transformers' ``TrainingArguments``, and what we say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rankpipe import recipe, weights
from rankpipe.catalog import near, need
from rankpipe.errors import RecipeError
from rankpipe.progress import notice
from rankpipe.train import shards
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.dev import Dev
from rankpipe.train.optimizers.adam8bit import BitsAndBytes
from rankpipe.train.optimizers.adamw import AdamW
from rankpipe.train.optimizers.arguments import asked
from rankpipe.train.optimizers.galore import GaLore
from rankpipe.train.optimizers.settings import Settings

OURS = {  # said by other keys of the recipe, or by what a ranking head needs
    "output_dir": "the recipe's folder", "eval_strategy": "dev", "eval_steps": "dev: {every: ...}",
    "save_strategy": "dev", "load_best_model_at_end": "dev", "metric_for_best_model": "dev: {measures: ...}",
    "greater_is_better": "dev", "do_train": "rankpipe train", "do_eval": "dev", "do_predict": "rankpipe rerank",
    "remove_unused_columns": "the head", "disable_tqdm": "rankpipe train --quiet", "label_names": "the head",
    "prediction_loss_only": "the head", "resume_from_checkpoint": "rankpipe train, which goes on by itself",
    "label_smoothing_factor": "the loss", "save_only_model": "rankpipe train, which goes on to the same weights",
    "per_device_eval_batch_size": "the reranker", "eval_delay": "dev: {every: ...}", "include_for_metrics": "dev",
    "eval_on_start": "dev", "optim_target_modules": "optimizer: {targets: ...}",
}  # fmt: skip
OPTIM = ("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")  # of the optimizer that optim names
BY_LENGTH = ("group_by_length", "batch_rebalance")
COUNTS = ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
FILES = ("deepspeed", "fsdp_config", "accelerator_config")  # may be read from one
POSITIVE = ("num_train_epochs", "logging_steps", "save_steps", "learning_rate")
EVERY = 10  # steps between rows of the log
CLIP = 1.0


def check(said: Mapping[str, Any], optimizer: Any) -> None:
    """Refuse arguments that there are not, or that something else says.

    :raises RecipeError: Says which, and what says them.
    :raises MissingExtra: If transformers is not installed.
    """
    if not isinstance(said, Mapping):
        raise RecipeError(["expected transformers.TrainingArguments by name, as {max_steps: 100}"])
    transformers = need("transformers", name="training", extra="train")
    with weights.quiet():  # it imports bitsandbytes, where that is
        kind = transformers.TrainingArguments
    known = [f.name for f in fields(kind) if f.init]
    faults = [f"no argument {key!r}{near(key, known)}" for key in said if key not in known]
    faults += [f"{key}: is said by {OURS[key]}" for key in said if key in OURS]
    if said.get("save_total_limit") == 1:
        faults.append("save_total_limit: 1 would remove a checkpoint before the next one is whole; say 2 or more")
    faults += [fault for f in fields(kind) if f.name in said for fault in _wrong(f.name, said[f.name], f.default)]
    absent = [
        (key, said[key]) for key in FILES if str(said.get(key)).endswith(".json") and not Path(said[key]).exists()
    ]
    faults += [f"{key}: {path}: no such file" for key, path in absent]
    if said.get("fp16") and not _accelerated():
        faults.append("fp16: is for GPUs; a processor has bf16: true")
    if (strategy := said.get("train_sampling_strategy")) in BY_LENGTH:
        faults.append(f"train_sampling_strategy: {strategy} goes by lengths, and lists have none until they are shown")
    faults += _loggers(said.get("report_to"))
    own = optimizer if isinstance(optimizer, dict) else {}
    for key, name in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
        if key in said and name in own:
            faults.append(f"{key}: the optimizer says {name}, too; say one of them")
    if optimizer is not None:
        faults += [f"{key}: the recipe says optimizer; say it there" for key in OPTIM if key in said]
    if faults:
        raise RecipeError(faults)


def made(said: Mapping[str, Any], folder: Path, dev: Dev | None, *, ordered: bool = False) -> Any:
    """The ``TrainingArguments``.

    :param folder: of checkpoints.
    :param ordered: whether examples are taken in their order.
    """
    kind = need("transformers", name="training", extra="train").TrainingArguments
    usual: dict[str, Any] = {"logging_steps": EVERY, "report_to": "none", "max_grad_norm": CLIP, "save_total_limit": 2}
    usual |= {"logging_nan_inf_filter": False}
    usual |= {"dataloader_pin_memory": False, "use_cpu": True} if not _accelerated() else {}
    ours: dict[str, Any] = {
        "output_dir": str(folder), "remove_unused_columns": False, "disable_tqdm": True, "save_strategy": "steps",
        "label_names": ["labels"], "restore_callback_states_from_checkpoint": True,
    }  # fmt: skip
    usual |= {"train_sampling_strategy": "sequential"} if ordered else {}
    if dev:
        usual |= {"save_steps": dev.every}
        ours |= {
            "eval_strategy": "steps", "eval_steps": dev.every, "eval_on_start": True, "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{dev.measures[0]}", "greater_is_better": True,
        }  # fmt: skip
    try:
        args = kind(**{**usual, **said, **ours})
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError([f"training: {error}"]) from error
    shards.prepare(args)
    return args


def optimizer(node: dict[str, Any] | None, args: Any) -> Settings:
    """The recipe's optimizer, with the learning rate and weight decay of ``training`` where it says none; else the one
    that ``training.optim`` names.
    """
    if node is None:
        return asked(args)
    node = {"use": node} if isinstance(node, str) else node
    usual = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    built: Settings = recipe.build({**usual, **node}, Path())
    return built


def fit(made: Settings, args: Any, adapter: Adapter | None, dtype: str) -> None:
    """Refuse an optimizer that cannot do what else the recipe says, and tell what it does badly.

    :param dtype: of the model's weights.
    :raises RecipeError: Says what can be.
    """
    made.clipped_to(args.max_grad_norm)
    if dtype == "bfloat16" and not adapter and isinstance(made, AdamW | BitsAndBytes):
        cure = "say adam8bit, adafactor or galore, or dtype: float32 and training: {bf16: true}"
        notice(
            f"dtype: bfloat16: a step that is small beside its weight is rounded to nothing by this optimizer; {cure}"
        )
    if isinstance(made, GaLore) and (faults := [*_projected(made, args, adapter)]):
        raise RecipeError(faults)


def _projected(made: GaLore, args: Any, adapter: Adapter | None) -> Iterator[str]:
    """What GaLore cannot be with."""
    if adapter and (made.targets is None or made.targets):
        cure = "say adamw or adam8bit, or leave the adapter out"
        yield f"optimizer: {made.method_name} projects whole matrices, no adapter, of low rank already; {cure}"
    if args.fp16 and made.layerwise:
        cure = "say bf16: true, or layerwise: false"
        yield f"training: fp16: weights would move by gradients that are still scaled up; {cure}"


def _wrong(key: str, value: Any, usual: Any) -> Iterator[str]:
    """What is wrong with a number, where that is what there is usually."""
    if isinstance(usual, bool) or not isinstance(usual, int | float):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{key}: {value!r} is a {type(value).__name__}, expected a number"
    elif key in COUNTS and not (value >= 1 and value == int(value)):
        yield f"{key}: {value}; expected a whole number, 1 or more"
    elif key in POSITIVE and not value > 0:
        yield f"{key}: {value}; expected more than 0"


def _loggers(named: Any) -> list[str]:
    """What cannot be reported to: loggers that there are not, or that are not installed."""
    integrations = need("transformers.integrations", name="training", extra="train")
    known, here = integrations.INTEGRATION_TO_CALLBACK, integrations.get_available_reporting_integrations()
    faults = []
    for name in [named] if isinstance(named, str) else named or []:
        if name not in known and name not in ("all", "none"):
            faults.append(f"report_to: no logger {name!r}{near(name, [*known])}")
        elif name in known and name not in here:
            faults.append(f"report_to: {name} is not installed; pip install {name}")
    return faults


def _accelerated() -> bool:
    return bool(need("torch", name="training", extra="train").accelerator.is_available())
