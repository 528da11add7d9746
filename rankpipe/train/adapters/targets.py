"""Which layers of a model are adapted, and which are its score head: told by kinds of modules and their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError
from rankpipe.train.optimizers.groups import HEADS, chosen, is_head

ALL = "all-linear"


@dataclass(frozen=True)
class Spread:
    """Where an adapter goes."""

    layers: tuple[str, ...]  # paths of the adapted layers
    names: tuple[str, ...]  # the same as PEFT's target_modules: the last part of a path where that is enough
    heads: tuple[str, ...]  # PEFT's modules_to_save: these, and what else was drawn
    task: str | None  # PEFT's task_type


def drawn(model: Any, names: Collection[str]) -> None:
    """Tell adapters that these weights of a model were not in its files: they are trained and saved in full."""
    model.drawn = {name.rpartition(".")[0] for name in names}


def spread(model: Any, targets: str | Sequence[str], method: str) -> Spread:
    """Where an adapter of this model goes: never to its score head, embeddings, what gives its logits, or was drawn.

    :param targets: ``all-linear``, or names of linear layers: ``q_proj`` are all that are called exactly so; with dots
        it is a whole path, ``model.layers.*.mlp.up_proj``, in which ``*`` is any one part.
    :raises RecipeError: If the model has an adapter, a target cannot be adapted, or nothing is left to adapt.
    """
    nn = need("torch", name=method, extra="train").nn
    conv1d = need("transformers.pytorch_utils", name=method, extra="train").Conv1D  # GPT-2's linear layer
    if hasattr(model, "peft_config"):
        raise RecipeError([f"{method}: the model has an adapter already: merge it first, or train that one"])
    modules = dict(model.named_modules())
    named = None if targets == ALL else [targets] if isinstance(targets, str) else [*targets]
    wanted = chosen(modules, named, (nn.Linear, conv1d))
    kept_out = {path: why for path in wanted if (why := _kept_out(path, modules[path], model))}
    if named is not None and kept_out:
        raise RecipeError([f"targets: {path} is never adapted: {why}" for path, why in kept_out.items()])
    layers = tuple(path for path in modules if path in wanted and path not in kept_out)
    if not layers:
        raise RecipeError([f"{method}: no linear layer to adapt"])
    heads = sorted({name for path in modules for name in HEADS if path.endswith(name)})
    others = sorted(path for path in getattr(model, "drawn", ()) if not is_head(path))
    return Spread(layers, _short(layers, modules), (*heads, *others), _task(model, heads))


def _kept_out(path: str, module: Any, model: Any) -> str:
    """Why this layer is not adapted, if it is not."""
    if is_head(path):
        return "score head"
    if path in getattr(model, "drawn", ()):
        return "not in the model's files, so that all of it is trained"
    ends = [get() for name in ("get_input_embeddings", "get_output_embeddings") if (get := getattr(model, name, None))]
    tied = any(end is not None and module.weight is end.weight for end in ends)
    return "embedding or logits" if tied else ""


def _short(layers: Collection[str], modules: Collection[str]) -> tuple[str, ...]:
    """The last parts of the paths, if no other module is called so; else the paths."""
    leaves = {path.rpartition(".")[2] for path in layers}
    alike = {path for path in modules if path.rpartition(".")[2] in leaves}
    return tuple(sorted(leaves)) if alike == {*layers} else tuple(layers)


def _task(model: Any, heads: Sequence[str]) -> str | None:
    config = getattr(model, "config", None)
    if config is None:
        return None
    if heads:
        return "SEQ_CLS"
    if getattr(model, "can_generate", bool)():
        return "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
    return "FEATURE_EXTRACTION"
