"""What projections capture of real gradients, and how long it takes to find all of them anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from time import perf_counter
from typing import Any

from common import Row
from train_systems import RANK, Task, read

from rankpipe import weights
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Ranker
from rankpipe.train.heads.windows import ListwiseHead
from rankpipe.train.losses import PermutationLM
from rankpipe.train.objective import Objective
from rankpipe.train.optimizers.groups import sort

LISTS = 4  # of a gradient: with fewer tokens than a few times the rank it is of low rank by itself
WAYS = {
    "svd": "svd", "eigh": "eigh", "rsvd, cold": "rsvd", "rsvd, warm": "rsvd", "columns": "columns", "random": "random"
}  # fmt: skip
KEPT = "rsvd, kept"  # the other lists' basis, not brought up to date


def bases(task: Task) -> list[Row]:
    """Each projection of the gradients of some lists; the warm one starts from the basis of other lists' gradients."""
    import torch

    torch.set_num_threads(task.threads)
    with weights.quiet():
        ranker, examples = read(replace(task, steps=2 * LISTS))
        before, after = (gradients(ranker, task, examples[i : i + LISTS]) for i in (0, LISTS))
    seen: dict[str, list[Row]] = {name: [] for name in (*WAYS, KEPT)}
    for place, (old, grad) in enumerate(zip(before, after, strict=True)):
        for name, row in projected(old, grad, place).items():
            seen[name].append(row)
    return [
        {
            "projection": name, "matrices": len(rows), "rank": RANK, "dtype": task.dtype,
            "energy": round(mean(r["energy"] for r in rows), 4), "to_svd": round(mean(r["to_svd"] for r in rows), 4),
            "least": round(min(r["to_svd"] for r in rows), 4), "seconds": round(sum(r["seconds"] for r in rows), 3),
        }
        for name, rows in seen.items()
    ]  # fmt: skip


def gradients(ranker: Ranker, task: Task, examples: Sequence[Example]) -> list[Any]:
    """Of the projected matrices, their shorter sides first; the mean over the lists."""
    model, objective = ranker.load(task.dtype), Objective(PermutationLM(), ListwiseHead())
    batches = [ranker.batch([example], reply=True) for example in examples]
    counts = objective.counts(batches)
    for batch in batches:
        objective(ranker.forward(model, batch), batch, counts)[0].backward()
    found = [p.parameter.grad.float() for p in sort(model, None) if p.projected]
    return [grad if grad.shape[0] <= grad.shape[1] else grad.T for grad in found]


def projected(old: Any, grad: Any, place: int) -> dict[str, Row]:
    """Of one matrix, by each way: the share of its energy, the share of what SVD captures, and seconds."""
    import torch

    from rankpipe.train.optimizers.lowrank.projections import PROJECTIONS, drawing

    randomised = PROJECTIONS["rsvd"]
    assert randomised
    warm = randomised.fit(old, None, min(RANK, len(old)), drawing("before", place))
    energies: dict[str, float] = {KEPT: captured(warm.T @ grad, grad)}
    seconds: dict[str, float] = {KEPT: 0.0}
    for name, kind in WAYS.items():
        projection = PROJECTIONS[kind]
        assert projection
        start = perf_counter()
        basis = projection.fit(grad, warm if "warm" in name else None, min(RANK, len(grad)), drawing(name, place))
        seconds[name] = perf_counter() - start
        basis = torch.linalg.qr(basis)[0] if kind == "random" else basis  # its directions are no unit vectors
        energies[name] = captured(projection.down(grad, basis), grad)
    return {
        name: {"energy": energy, "to_svd": energy / energies["svd"], "seconds": seconds[name]}
        for name, energy in energies.items()
    }


def captured(low: Any, grad: Any) -> float:
    """The share of a gradient's energy that a projection of it has."""
    return float(low.square().sum() / grad.square().sum())
