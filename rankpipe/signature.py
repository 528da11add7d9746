"""What a component takes: its arguments, their kinds as its source spells them, and what does not fit."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

from rankpipe.catalog import find, near

EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")  # a number, but in YAML, which wants a point in it


def misfits(call: Callable[..., Any], arguments: dict[str, Any], given: Sequence[str]) -> list[str]:
    """Every argument that a component does not take, or not so, or lacks.

    :param given: arguments that it is handed beside these.
    """
    takes = {k: p for k, p in parameters(call).items() if k not in given}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    unknown = [] if open_ended else [k for k in arguments if k not in takes]
    faults = [f"no argument {k!r}{near(k, [*takes]) or '; it takes ' + ', '.join(takes)}" for k in unknown]
    for name, p in takes.items():
        if name in arguments and name in spread(call):
            faults += [] if isinstance(arguments[name], list) else [f"{name}: expected a list"]
        elif name in arguments:
            faults += [f"{name}: {f}" for f in _wrong_kind(spelling(p), arguments[name])]
        elif p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD:
            faults.append(f"argument {name!r} is missing")
    return faults


def parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a component, and of those that several share (``**common: Unpack[Common]``, PEP 692) each."""
    made = dict(inspect.signature(call).parameters)
    for name, group in shared(call).items():
        del made[name]
        for k, kind in get_type_hints(group).items():
            made[k] = inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=defaults(group)[k])
    return made


def defaults(group: Any) -> dict[str, Any]:
    """What shared arguments are by default: ``k1: Annotated[float, 0.9]``; None, if it is not said."""
    kinds = get_type_hints(group, include_extras=True)
    return {name: getattr(kind, "__metadata__", [None])[0] for name, kind in kinds.items()}


def shared(call: Callable[..., Any]) -> dict[str, Any]:
    """The groups of arguments (a TypedDict each) that a component shares with others."""
    grouped = [name for name, p in inspect.signature(call).parameters.items() if "Unpack[" in str(p.annotation)]
    hints = get_type_hints(call.__init__ if inspect.isclass(call) else call) if grouped else {}
    return {name: get_args(hints[name])[0] for name in grouped}


def spelled(name: str) -> dict[str, str]:
    """The arguments of a component, and each one's kind as its source has it.

    :raises RecipeError: If there is no such component.
    """
    return {k: spelling(p) for k, p in parameters(find(name)).items()}


def spelling(parameter: inspect.Parameter) -> str:
    """A parameter's annotation as written in its source, without the names of modules."""
    kind = parameter.annotation
    return re.sub(r"\b[a-z_]+\.", "", kind if isinstance(kind, str) else inspect.formatannotation(kind))


def spread(call: Callable[..., Any]) -> list[str]:
    """The argument that takes any number of values, ``*name``: a recipe gives it a list."""
    return [name for name, p in inspect.signature(call).parameters.items() if p.kind is p.VAR_POSITIONAL]


def _wrong_kind(annotation: str, value: Any) -> list[str]:
    """Check plain values against plain annotations; anything richer is left to the constructor."""
    if isinstance(value, dict | list):
        return []
    kinds = {"int": int, "float": (int, float), "str": str, "bool": bool, "Path": str, "None": type(None)}
    if choices := re.fullmatch(r"Literal\[(.*)\]", annotation):
        known = ast.literal_eval(f"[{choices[1]}]")
        return [] if value in known else [f"{value!r} is not one of {', '.join(map(str, known))}"]
    parts = annotation.split(" | ")
    if not all(part in kinds for part in parts):
        return []
    fits = any(
        isinstance(value, kinds[part]) and (not isinstance(value, bool) or part == "bool")  # type: ignore[arg-type]
        for part in parts
    )
    cure = "; YAML takes it for a text: write it with a point and without quotes, as 1.0e-4"
    meant = isinstance(value, str) and "float" in parts and EXPONENT.fullmatch(value)
    return [] if fits else [f"{value!r} is a {type(value).__name__}, expected {annotation}{cure if meant else ''}"]
