"""An optimizer as transformers' ``TrainingArguments`` ask for it, with every setting that was asked for."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import Any

from rankpipe.catalog import CATALOG, find, near
from rankpipe.errors import RecipeError
from rankpipe.train.optimizers.settings import Settings

HOME = "rankpipe.train.optimizers."
OURS = {"learning_rate": "lr", "update_proj_gap": "gap"}  # their names: ours
USUAL = {"betas": (0.9, 0.999), "eps": 1e-8}  # what transformers says where nobody said anything


def asked(args: Any) -> Settings:
    """The optimizer of ``args.optim``, ``learning_rate``, ``weight_decay``, ``adam_beta1``, ``adam_beta2``,
    ``adam_epsilon``, ``optim_args`` and ``optim_target_modules``.

    transformers itself forgets weight decay and Adam's settings where the optimizer is GaLore.

    :param args: ``transformers.TrainingArguments``.
    :raises RecipeError: If there is no such optimizer, or it has no such setting.
    """
    name = str(getattr(args.optim, "value", args.optim))
    known = [n for n, entry in CATALOG.items() if entry.target.startswith(HOME)]
    if name not in known:
        raise RecipeError([f"optim: no optimizer {name!r}{near(name, known) or '; there are ' + ', '.join(known)}"])
    kind = find(name)
    takes = [f.name for f in fields(kind)]
    said = {
        "lr": args.learning_rate,
        "weight_decay": args.weight_decay,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
    }
    said = {k: v for k, v in said.items() if k in takes or v != USUAL[k]}
    if args.optim_target_modules is not None:
        targets = args.optim_target_modules
        said["targets"] = None if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    said |= _options(args.optim_args or "")
    if said.pop("proj_type", "std") != "std":
        raise RecipeError(["optim_args: of proj_type there is only std: the shorter side of a matrix is projected"])
    if other := [k for k in said if k not in takes]:
        raise RecipeError(
            [f"{name}: no setting {k!r}{near(k, takes) or '; it has ' + ', '.join(takes)}" for k in other]
        )
    made: Settings = kind(**said)
    return made


def _options(text: str) -> dict[str, Any]:
    """``rank=128,update_proj_gap=200``, by our names."""
    pairs = [part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part]
    return {OURS.get(key, key): _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):  # a word
        return text
