"""Which parameter is projected, decayed, or a head: told by the kinds of modules and their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rankpipe.catalog import near, need
from rankpipe.errors import RecipeError

HEADS = ("score", "classifier", "classification_head")  # how a part of a path ends: all below it is the score head
Kind = Literal["target", "linear", "embedding or logits", "score head", "other"]
Owners = dict[int, list[tuple[str, Any, str]]]  # of a parameter's id: paths, modules, names in them; several if tied


@dataclass(frozen=True)
class Placed:
    """A parameter in its group."""

    name: str
    parameter: Any
    kind: Kind

    @property
    def projected(self) -> bool:
        """Whether its gradient is."""
        return self.kind == "target"

    @property
    def decays(self) -> bool:
        """All but norms and biases do, which have one dimension."""
        return self.projected or self.parameter.dim() > 1

    @property
    def head(self) -> bool:
        """Whether it makes the score."""
        return self.kind == "score head"


def sort(model: Any, targets: Sequence[str] | None = (), method: str = "this optimizer") -> list[Placed]:
    """Every trainable parameter, in the model's order.

    Projected are the weights of ``targets``: never those of embeddings, of what gives the logits (tied or not), of the
    score head, nor any bias.

    :param targets: names of linear layers: ``q_proj`` are all that are called exactly so; with dots it is a whole path,
        ``model.layers.*.mlp.up_proj``, in which ``*`` is any one part. None is every linear layer; () is none.
    :param method: what projects, for errors.
    :raises RecipeError: If a target cannot be projected, or nothing is left to project.
    """
    nn, owners = need("torch", name=method, extra="train").nn, _owners(model)
    picked = chosen(dict(model.named_modules()), targets, nn.Linear)
    ends = [get() for name in ("get_input_embeddings", "get_output_embeddings") if (get := getattr(model, name, None))]

    def kind(p: Any) -> Kind:
        its = owners[id(p)]
        if any(isinstance(module, nn.Embedding) or any(module is end for end in ends) for _, module, _ in its):
            return "embedding or logits"
        if any(is_head(path) for path, _, _ in its):
            return "score head"
        if not all(isinstance(module, nn.Linear) and own == "weight" for _, module, own in its):
            return "other"
        return "target" if any(path in picked for path, _, _ in its) else "linear"

    placed = [Placed(name, p, kind(p)) for name, p in model.named_parameters() if p.requires_grad]
    faults = [
        f"targets: {path} is never projected: {p.kind}"
        for p in placed
        if p.kind in ("embedding or logits", "score head")
        for path, _, own in owners[id(p.parameter)]
        if targets and path in picked and own == "weight"
    ]
    if targets != ():
        faults += [
            f"{method}: {path} is an adapter, of low rank already: train it with adamw" for path in _adapters(owners)
        ]
        faults += (
            [] if faults or any(p.projected for p in placed) else [f"{method}: no trainable linear layer to project"]
        )
    if faults:
        raise RecipeError(faults)
    return placed


def is_head(path: str) -> bool:
    """Whether this is the score head or a part of it, by PEFT's rule: a name that *ends* so (pre_classifier) is one."""
    return any(part.endswith(HEADS) for part in path.split("."))


def _owners(model: Any) -> Owners:
    owners: Owners = {}
    for path, module in model.named_modules():
        for own, p in module.named_parameters(recurse=False):
            owners.setdefault(id(p), []).append((path, module, own))
    return owners


def chosen(modules: dict[str, Any], targets: Sequence[str] | None, linear: type | tuple[type, ...]) -> Collection[str]:
    """The paths of the linear layers that the targets name.

    :raises RecipeError: If one names none, or something else.
    """
    linears = [path for path, module in modules.items() if isinstance(module, linear)]
    if targets is None:
        return {*linears}
    there = "; linear layers are " + ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in linears))
    picked: set[str] = set()
    faults = []
    for target in targets:
        found = [path for path in modules if _is(path, target)]
        known = [*modules] if "." in target else [path.rpartition(".")[2] for path in modules]
        faults += [] if found else [f"targets: no module is called exactly {target!r}{near(target, known) or there}"]
        other = [path for path in found if not isinstance(modules[path], linear)]
        faults += [f"targets: {path} is a {type(modules[path]).__name__}, no linear layer" for path in other[:1]]
        picked |= {*found}
    if faults:
        raise RecipeError(faults)
    return picked


def _is(path: str, target: str) -> bool:
    if "." not in target:
        return path.rpartition(".")[2] == target
    parts, wanted = path.split("."), target.split(".")
    return len(parts) == len(wanted) and all(w in (p, "*") for p, w in zip(parts, wanted, strict=True))


def _adapters(owners: Owners) -> list[str]:
    """The first adapter, if the model has one."""
    return [path for its in owners.values() for path, _, _ in its if "lora_A" in path.split(".")][:1]
