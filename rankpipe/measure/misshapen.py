"""What is wrong with the recipe of an experiment before any component is looked at: keys, names, kinds of values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from rankpipe.catalog import near
from rankpipe.datasets.dataset import SelfMatch
from rankpipe.measure.ranking import Average

KEYS = ("data", "split", "self_match", "measures", "systems", "expect", "average", "baseline")
SYSTEM_KEYS = ("pipeline", "sample")
DEFAULT_MEASURES = ["nDCG@10", "R@100", "RR@10"]


def misshapen(tree: dict[str, Any]) -> list[str]:
    """Every fault of this sort, each with its place."""
    return list(_faults(tree))


def pipelines(tree: dict[str, Any]) -> bool:
    """Whether every system has one that can be read, whatever else is wrong."""
    systems = tree.get("systems")
    bodies = (
        [s.get("pipeline") if isinstance(s, dict) else s for s in systems.values()] if isinstance(systems, dict) else []
    )
    return bool(bodies) and all(isinstance(b, list) and b and _stage(b) for b in bodies)


def _faults(tree: dict[str, Any]) -> Iterator[str]:
    yield from (f"no key {k!r}{near(str(k), list(KEYS))}" for k in tree if k not in KEYS)
    yield from (f"{k}: missing" for k in ("data", "systems") if k not in tree)
    if not isinstance(tree.get("data", ""), str):
        yield f"data: {tree['data']!r} is no name or path"
    measures = tree.get("measures", DEFAULT_MEASURES)
    if not isinstance(measures, list) or not measures or not all(isinstance(m, str) for m in measures):
        yield f"measures: {measures!r} is no list of names, such as [nDCG@10, R@100]"
    if (average := tree.get("average", "judged")) not in get_args(Average):
        yield f"average: {average!r} is not one of {', '.join(get_args(Average))}"
    if (policy := tree.get("self_match", "keep")) not in get_args(SelfMatch):
        yield f"self_match: {policy!r} is not one of {', '.join(get_args(SelfMatch))}"
    systems = tree.get("systems")
    if not isinstance(systems, dict) or not systems:
        yield "systems: expected names, each with a pipeline"
        return
    for name, system in systems.items():
        yield from _system(f"systems.{name}", str(name), system)
    if "baseline" in tree and tree["baseline"] not in systems:
        yield f"baseline: no such system: {tree['baseline']!r}{near(str(tree['baseline']), list(systems))}"
    yield from _expected(tree.get("expect", {}), systems, measures)


def _system(place: str, name: str, system: Any) -> Iterator[str]:
    if not re.fullmatch(r"[\w.+-]+", name):
        yield f"{place}: a name is letters, digits and . + - _ (run files are called by it)"
    if isinstance(system, dict):
        yield from (f"{place}: no key {k!r}{near(str(k), list(SYSTEM_KEYS))}" for k in system if k not in SYSTEM_KEYS)
        sample = system.get("sample", 1)
        if not isinstance(sample, int) or isinstance(sample, bool) or sample < 1:
            yield f"{place}.sample: {sample!r} is no number of queries"
        system = system.get("pipeline")
    if not isinstance(system, list) or not system:
        yield f"{place}.pipeline: missing; a list of stages, such as [{{use: bm25, index: indexes/words}}]"
    elif not all(_stage(s) for s in system):
        yield f"{place}: a stage is a mapping such as {{use: top, k: 10}}, or a pipeline"


def _stage(node: Any) -> bool:
    return all(map(_stage, node)) if isinstance(node, list) else isinstance(node, dict) and "use" in node


def _expected(expect: Any, systems: dict[str, Any], measures: Any) -> Iterator[str]:
    if not isinstance(expect, dict) or not all(isinstance(bounds, dict) for bounds in expect.values()):
        yield "expect: for each system its measures and their bounds, such as {bm25: {nDCG@10: [0.67, 1]}}"
        return
    for name, bounds in expect.items():
        if name not in systems:
            yield f"expect.{name}: no such system{near(str(name), list(systems))}"
        for measure, ends in bounds.items():
            if measure not in measures:
                yield f"expect.{name}: {measure!r} is not measured; add it to measures"
            numbers = isinstance(ends, list) and len(ends) == 2 and all(isinstance(e, int | float) for e in ends)
            if not numbers or ends[0] > ends[1]:
                yield f"expect.{name}.{measure}: {ends!r} is no [least, most]"
