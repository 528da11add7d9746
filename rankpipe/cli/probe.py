"""probe: whether a reranker is steady."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe.cli import app, show
from rankpipe.cli.reranking import By, Given, heads

if TYPE_CHECKING:
    from rankpipe.rerank.probe import BatchInvariance, PositionBias

SHOWN = 10  # lines of a table
MEANS = {
    "tau": "Kendall's tau of two shuffles' orders (1: equal, 0: by chance)",
    "overlap": "their first ten in common",
    "same_first": "the same passage first",
    "slope": "rank against place in the input (0: no bias, 1: the input's order)",
}


@show.verb(app, "probe")
def probe(
    given: Given,
    by: By,
    shuffles: Annotated[int, typer.Option("--shuffles", min=2, help="Of each query's hits.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the shuffles and the sample.")] = 0,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="Only so many queries, by chance.")] = None,
) -> None:
    """Does its order depend on what is asked at once, or on the order of its input? Reranks shuffles + 2 times.

    rankpipe probe bm25.trec --data beir/scifact/test --depth 20 --sample 20
    rankpipe probe bm25.trec --data corpus.jsonl --topics topics.tsv --use first --model smollm2 --depth 20
    """
    from rankpipe import recipe
    from rankpipe.errors import RecipeError
    from rankpipe.rerank.probe import batch_invariance, position_bias

    if by.offline:
        raise RecipeError(["--offline: whether a batch matters can't be replayed; the model is to be asked"])
    node = by.node()
    if faults := recipe.misjoined([{"use": "bm25"}, node], "a retriever, then "):
        raise RecipeError(faults)
    reranker = recipe.build(node, Path.cwd())
    rankings = heads(given.rankings(), reranker)
    if sample is not None:
        rankings = Random(seed).sample(rankings, min(sample, len(rankings)))
    bias = position_bias(reranker, rankings, shuffles, seed)
    batch = batch_invariance(reranker, rankings)
    means = _means(bias, seed)
    position = {"shuffles": shuffles, "seed": seed, **means, "tau_min": bias.tau_min, "curve": bias.curve}
    told = {
        "reranker": by.name,
        "batch": {**asdict(batch), "size": reranker.batch},
        "position": {**position, "queries": [asdict(q) for q in bias.queries]},
    }
    show.emit(told, lambda: _human(batch, reranker.batch, bias, means))


def _means(bias: PositionBias, seed: int) -> dict[str, dict[str, float | None]]:
    """Each figure's mean over the queries, with its 95 % bootstrap interval."""
    from rankpipe.measure.compare import interval

    means = {}
    for name in MEANS:
        values = [v for q in bias.queries if (v := getattr(q, name)) is not None]
        low, high = interval(values, seed=seed) or (None, None)
        means[name] = {"mean": getattr(bias, name), "low": low, "high": high}
    return means


def _human(batch: BatchInvariance, size: int, bias: PositionBias, means: dict[str, dict[str, Any]]) -> None:
    windows = f", {len(batch.unlike_windows)} of {batch.windows} windows" if batch.windows else ""
    drift = f"; scores by {batch.drift:.3g} at most" if batch.drift else ""
    show.out.print(
        f"Batch of {size} against 1: {len(batch.unlike)} of {batch.queries} queries in another order{windows}{drift}",
        highlight=False,
        soft_wrap=True,
    )
    if batch.unlike:
        show.table("", ("query", "differs from rank"), [(u.query, u.rank) for u in batch.unlike[:SHOWN]])
    if len(batch.unlike) > SHOWN:
        show.remark(f"... and {len(batch.unlike) - SHOWN} more; --json lists them all")
    rows = [(said, _shown(means[name])) for name, said in MEANS.items() if means[name]["mean"] is not None]
    rows.insert(1, ("tau of the two that agree least, in all", f"{bias.tau_min:.3f}"))
    show.table(f"{bias.shuffles} shuffles of the hits of {len(bias.queries)} queries", ("", "mean [95 %]"), rows)
    show.table("What a place in the input is worth", ("place", "mean rank"), _steps(bias.curve))


def _shown(mean: dict[str, Any]) -> str:
    interval = "" if mean["low"] is None else f" [{mean['low']:.3f}, {mean['high']:.3f}]"
    return f"{mean['mean']:.3f}{interval}"


def _steps(curve: Sequence[float]) -> list[tuple[str, str]]:
    """The curve in ten steps at most."""
    width = -(-len(curve) // SHOWN)
    steps = [(start, curve[start : start + width]) for start in range(0, len(curve), width)]
    return [
        (f"{start + 1}" + (f"-{start + len(part)}" if len(part) > 1 else ""), f"{fmean(part):.1f}")
        for start, part in steps
    ]
