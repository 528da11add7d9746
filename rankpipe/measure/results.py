"""The record of an experiment, filed as ``eval/NAME/results/<commit>.json``: every figure with where it comes from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankpipe.catalog import near
from rankpipe.data import Ranking, Step
from rankpipe.disk import write
from rankpipe.errors import ArtefactError, DataError
from rankpipe.measure.compare import compare, interval
from rankpipe.measure.ranking import Average, Evaluation
from rankpipe.provenance import commit, versions
from rankpipe.store import Data
from rankpipe.trec import Qrels, Run


@dataclass(frozen=True)
class Value:
    """A measure's mean, and the 95 % bootstrap interval of the per-query mean (None for one query)."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Cost:
    """What one stage cost: a query's mean; ``repaired``, ``cut`` and ``skipped`` are counts of all queries."""

    stage: str
    seconds: float = 0.0
    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    repaired: int = 0
    cut: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class SystemResult:
    """One system's figures, and what they are a mean of."""

    values: dict[str, Value]  # by measure
    queries: int  # averaged over
    judged: int
    missing: int
    unjudged_queries: int
    judged_at_10: float
    policy: str
    costs: tuple[Cost, ...] = ()

    @classmethod
    def of(cls, evaluation: Evaluation, rankings: Iterable[Ranking] = (), *, seed: int = 0) -> SystemResult:
        """From an evaluation, and the rankings it was made of if their cost is of interest."""
        values = {}
        for name, of_query in evaluation.values.items():
            low, high = interval([*of_query.values()], seed=seed) or (None, None)
            values[name] = Value(evaluation.means[name], low, high)
        return cls(
            values=values,
            queries=len(evaluation.queries),
            judged=len(evaluation.judged),
            missing=len(evaluation.missing),
            unjudged_queries=len(evaluation.unjudged_queries),
            judged_at_10=evaluation.judged_at_10,
            policy=evaluation.policy,
            costs=costs(rankings),
        )

    @property
    def seconds(self) -> float:
        """All stages together, the mean of a query."""
        return sum(c.seconds for c in self.costs)


@dataclass(frozen=True)
class Against:
    """How far a system is from the recipe's baseline by one measure, query by query, and how surely; as
    :class:`~rankpipe.measure.compare.Difference` has it.
    """

    delta: float
    low: float | None
    high: float | None
    t_p: float | None
    t_holm: float | None
    randomisation_p: float | None
    randomisation_holm: float | None


@dataclass(frozen=True)
class Result:
    """An experiment: which recipe, on what, by which code on which machine, and what came out."""

    recipe: str  # its name: the folder on the shelf
    recipe_hash: str
    data: Data
    seed: int
    systems: dict[str, SystemResult]
    baseline: str | None = None
    against: dict[str, dict[str, Against]] = field(default_factory=dict)  # the baseline, by system and measure
    builds: dict[str, str] = field(default_factory=dict)  # of artefacts, by folder
    commit: str = field(default_factory=commit)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, str | int] = field(default_factory=lambda: machine())
    created: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


def compared(
    runs: Mapping[str, Run], qrels: Qrels, measures: Sequence[str], baseline: str, average: Average
) -> dict[str, dict[str, Against]]:
    """Each run against the baseline, by measure; nothing where there is no other, or the baseline is none of them."""
    made: dict[str, dict[str, Against]] = {}
    if baseline not in runs or len(runs) < 2:
        return made
    for d in compare(runs, qrels, measures, baseline=baseline, average=average).differences:
        low, high = d.interval or (None, None)
        found = Against(d.delta, low, high, d.t_p, d.t_holm, d.randomisation_p, d.randomisation_holm)
        made.setdefault(d.system, {})[d.measure] = found
    return made


def costs(rankings: Iterable[Ranking]) -> tuple[Cost, ...]:
    """What each stage cost, in the order in which stages first appear; a stage a query went through twice is summed."""
    of_stage: dict[str, list[Step]] = {}
    queries = 0
    for queries, ranking in enumerate(rankings, 1):  # noqa: B007  counts them
        for step in ranking.steps:
            of_stage.setdefault(step.stage, []).append(step)

    def mean(amounts: Iterable[float]) -> float:
        return round(sum(amounts) / queries, 6)

    return tuple(
        Cost(
            stage=stage,
            seconds=mean(s.seconds for s in steps),
            calls=mean(s.calls for s in steps),
            tokens_in=mean(s.tokens_in for s in steps),
            tokens_out=mean(s.tokens_out for s in steps),
            repaired=sum(s.repaired for s in steps),
            cut=sum(s.cut for s in steps),
            skipped=sum(s.skipped for s in steps),
        )
        for stage, steps in of_stage.items()
    )


def file(result: Result, folder: Path) -> Path:
    """Write ``folder/results/<commit>.json``, whole or not at all; the same commit's earlier result is replaced.

    :raises DiskError: If it cannot be written.
    """
    path = folder / "results" / f"{result.commit}.json"
    with write(path) as f:
        json.dump(asdict(result), f, indent=1, ensure_ascii=False)
        f.write("\n")
    return path


def read(path: Path) -> Result:
    """A filed result.

    :raises ArtefactError: If it is absent or not one of ours.
    """
    tree = read_json(path)
    try:
        systems = {name: _system(s) for name, s in tree.pop("systems").items()}
        against = {
            name: {measure: Against(**d) for measure, d in of.items()} for name, of in tree.pop("against", {}).items()
        }
        return Result(**(tree | {"data": Data(**tree["data"]), "systems": systems, "against": against}))
    except (TypeError, KeyError, AttributeError) as error:
        raise ArtefactError(f"{path}: not the result of an experiment ({error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """Any result file: an experiment's or a benchmark's.

    :raises ArtefactError: If it cannot be read or is no JSON object with a ``created`` time.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: not a readable result ({error})") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("created"), str):
        raise ArtefactError(f"{path}: not a result: expected a JSON object with the time it was 'created'")
    return tree


def latest(folder: Path) -> Path:
    """The newest file in ``folder/results``, by the time written in it.

    :raises ArtefactError: If there is none; says how to make one.
    """
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        cure = f"; make one with: rankpipe run {folder}" if (folder / "recipe.yaml").exists() else ""
        raise ArtefactError(f"{folder}: no results here{cure}")
    return max(files, key=lambda f: read_json(f)["created"])


def expected(result: Result, bounds: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Every figure outside a recipe's ``expect: {system: {measure: [least, most]}}``; an empty list if all keep to it.

    :raises DataError: If a bound names a system or measure that was not measured, or is no pair of numbers.
    """
    failures = []
    for name, of_measure in bounds.items():
        if name not in result.systems:
            raise DataError(f"expect.{name}: no such system{near(name, list(result.systems))}")
        values = result.systems[name].values
        for measure, bound in of_measure.items():
            if measure not in values:
                raise DataError(f"expect.{name}.{measure}: not measured{near(measure, list(values))}")
            if not isinstance(bound, Sequence) or len(bound) != 2:
                raise DataError(f"expect.{name}.{measure}: {bound!r} is not [least, most]")
            least, most = bound
            if not least <= (mean := values[measure].mean) <= most:
                failures.append(f"{name}: {measure} is {mean:.4f}, expected {least:g} to {most:g}")
    return failures


def machine() -> dict[str, str | int]:
    """The processor's name and its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count() or 1}


def _system(tree: dict[str, Any]) -> SystemResult:
    values = {name: Value(**value) for name, value in tree["values"].items()}
    return SystemResult(**(tree | {"values": values, "costs": tuple(Cost(**c) for c in tree["costs"])}))
