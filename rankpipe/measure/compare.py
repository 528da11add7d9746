"""Is one run better than another, or was it the queries? Paired tests, intervals, and the queries that decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rankpipe.catalog import near
from rankpipe.errors import DataError
from rankpipe.measure.ranking import Average, Evaluation, evaluate
from rankpipe.measure.rbo import rbo
from rankpipe.trec import Qrels, Run, ordered

Floats = NDArray[np.float64]
TIE = 1e-9  # differences smaller than this are rounding
SHOWN = 5  # queries most hurt and most helped
JUDGED_LOW, JUDGED_GAP = 0.8, 0.05  # Judged@10 below the one, or further apart than the other, is worth a warning
MISSING_MANY = 0.05  # so is a larger share of queries without any document
FEW = 25  # and so are fewer queries than this
AT_ONCE = 1 << 22  # resampled values held in memory at a time


@dataclass(frozen=True)
class Change:
    """A query, and what it was worth before and after."""

    query: str
    before: float
    after: float

    @property
    def delta(self) -> float:
        """After less before; 0 where they differ by rounding only."""
        delta = self.after - self.before
        return delta if abs(delta) >= TIE else 0.0


@dataclass(frozen=True)
class Difference:
    """One system against the baseline by one measure. A p-value is None where the test says nothing.

    The t-test needs two queries and differences that are not all alike; the randomisation test needs two queries.
    Systems that differ nowhere have p = 1. The Holm-corrected p-values are corrected for all comparisons made
    together.
    """

    system: str
    measure: str
    mean: float  # over the queries, also of what trec_eval sums
    baseline_mean: float
    delta: float
    interval: tuple[float, float] | None  # 95 % bootstrap interval of delta; None for one query
    t_p: float | None
    t_holm: float | None
    randomisation_p: float | None
    randomisation_holm: float | None
    wins: int
    ties: int
    losses: int
    hurt: tuple[Change, ...]  # worst first
    helped: tuple[Change, ...]  # best first


@dataclass(frozen=True)
class Comparison:
    """Systems against a baseline, over the same queries."""

    baseline: str
    evaluations: dict[str, Evaluation]
    differences: tuple[Difference, ...]  # system by system, measure by measure
    overlap: dict[
        str, float
    ]  # system -> mean RBO (p = 0.9) with the baseline, over the queries both found anything for
    warnings: tuple[str, ...]


def compare(
    runs: Mapping[str, Run],
    qrels: Qrels,
    measures: Sequence[str],
    *,
    baseline: str | None = None,
    average: Average = "judged",
    seed: int = 0,
    resamples: int = 10_000,
) -> Comparison:
    """Compare every run with the baseline, query by query.

    Tests: the paired t-test and Fisher's randomisation test, both two-sided (Smucker, Allan and Carterette, CIKM
    2007), Holm-corrected over all systems and measures; percentile bootstrap intervals.

    :param baseline: the name of a run; the first one if None.
    :param average: "retrieved" compares over those judged queries that *every* run has documents for.
    :param seed: of the resampling; the same for each pair, so that a pair's figures don't depend on the others.
    :param resamples: of the bootstrap and of the randomisation test, which is exact if there are no more sign patterns.
    :raises DataError: If there are not two runs, the baseline is none of them, or they cannot be evaluated.
    """
    if len(runs) < 2:
        raise DataError(f"{len(runs)} run to compare: name two or more")
    base = next(iter(runs)) if baseline is None else baseline
    if base not in runs:
        raise DataError(f"no run {base!r} to be the baseline{near(base, list(runs))}")
    if average == "retrieved":
        qrels = {q: grades for q, grades in qrels.items() if all(run.get(q) for run in runs.values())}
    evaluations = {name: evaluate(run, qrels, measures, average=average) for name, run in runs.items()}
    differences = [
        _difference(name, measure, evaluations[base].values[measure], values, seed, resamples)
        for name, evaluation in evaluations.items()
        for measure, values in evaluation.values.items()
        if name != base
    ]
    overlap = {name: _overlap(runs[base], run) for name, run in runs.items() if name != base}
    return Comparison(base, evaluations, _corrected(differences), overlap, _warnings(base, evaluations))


def worse(comparison: Comparison, measure: str, alpha: float = 0.05) -> list[Difference]:
    """The systems that are significantly worse than the baseline: randomisation test, Holm-corrected over the systems.

    Other measures that happen to be shown do not change the verdict.

    :raises DataError: If the measure is none of those compared.
    """
    known = list(dict.fromkeys(d.measure for d in comparison.differences))
    if measure not in known:
        raise DataError(f"{measure!r} was not compared{near(measure, known) or '.'} Compared: {', '.join(known)}")
    of = [d for d in comparison.differences if d.measure == measure]
    corrected = holm([d.randomisation_p for d in of])
    return [d for d, p in zip(of, corrected, strict=True) if d.delta < 0 and p is not None and p < alpha]


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> list[Change]:
    """The queries that both have a value for, the most hurt one first."""
    both = [Change(q, before[q], after[q]) for q in before if q in after]
    return sorted(both, key=lambda c: (c.delta, c.query))


def decisive(ordered: Sequence[Change]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Of queries ordered by :func:`changes`, those most hurt and those most helped, five of each at most."""
    hurt = [c for c in ordered[:SHOWN] if c.delta < 0]
    helped = [c for c in ordered[: -SHOWN - 1 : -1] if c.delta > 0]
    return tuple(hurt), tuple(helped)


def interval(values: Sequence[float] | Floats, *, seed: int = 0, resamples: int = 10_000) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean (percentile method; Efron 1979); None for fewer than two values."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        batch=max(AT_ONCE // len(values), 1),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being several (Holm 1979); None stays None and is not counted."""
    corrected: list[float | None] = [None] * len(ps)
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = min(max(least, p * (len(known) - rank)), 1.0)
        corrected[i] = least
    return corrected


def t_test(differences: Floats) -> float | None:
    """Two-sided p-value of the paired t-test; None for fewer than two queries or if all differ by the same."""
    from scipy.stats import ttest_1samp

    if not differences.any():
        return 1.0 if len(differences) > 1 else None
    if len(differences) < 2 or np.ptp(differences) < TIE:
        return None
    return float(ttest_1samp(differences, 0.0).pvalue)


def randomisation_test(differences: Floats, *, seed: int = 0, resamples: int = 10_000) -> float | None:
    """Two-sided p-value of Fisher's randomisation test, by flipping signs; None for fewer than two queries."""
    from scipy.stats import permutation_test

    if len(differences) < 2:
        return None
    return float(
        permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=resamples,
            batch=max(AT_ONCE // len(differences), 1),
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _difference(
    system: str, measure: str, before: dict[str, float], after: dict[str, float], seed: int, resamples: int
) -> Difference:
    by_query = changes(before, after)
    hurt, helped = decisive(by_query)
    delta = {c.query: c.delta for c in by_query}
    d = np.array([delta[q] for q in before])
    return Difference(
        system=system,
        measure=measure,
        mean=fmean(after.values()),
        baseline_mean=fmean(before.values()),
        delta=float(d.mean()),
        interval=interval(d, seed=seed, resamples=resamples),
        t_p=t_test(d),
        t_holm=None,
        randomisation_p=randomisation_test(d, seed=seed, resamples=resamples),
        randomisation_holm=None,
        wins=int((d > 0).sum()),
        ties=int((d == 0).sum()),
        losses=int((d < 0).sum()),
        hurt=hurt,
        helped=helped,
    )


def _corrected(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    by_t = holm([d.t_p for d in differences])
    by_randomisation = holm([d.randomisation_p for d in differences])
    return tuple(
        replace(d, t_holm=t, randomisation_holm=r) for d, t, r in zip(differences, by_t, by_randomisation, strict=True)
    )


def _overlap(a: Run, b: Run) -> float:
    """Mean RBO over the queries that both have documents for; 0 if there are none."""
    shared = [q for q in a if a[q] and b.get(q)]
    return fmean(rbo(ordered(a[q]), ordered(b[q])) for q in shared) if shared else 0.0


def _warnings(base: str, evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """What may make the figures mislead: judgements that are few, or fewer for one system than for another."""
    notes = []
    judged = {name: e.judged_at_10 for name, e in evaluations.items()}
    for name, share in judged.items():
        if abs(share - judged[base]) > JUDGED_GAP + TIE:
            less = min(name, base, key=lambda n: judged[n])
            notes.append(
                f"Judged@10 is {share:.3f} for {name} and {judged[base]:.3f} for {base}: documents without judgements "
                f"count as not relevant, so {less} may be better than it looks"
            )
    low = [f"{name} {share:.3f}" for name, share in judged.items() if share < JUDGED_LOW - TIE]
    if low:
        notes.append(
            f"Judged@10 is low ({', '.join(low)}): many of the first hits have no judgement and count as not relevant"
        )
    for name, of in evaluations.items():
        if len(of.missing) > len(of.judged) * MISSING_MANY:
            notes.append(
                f"{name} has no document for {len(of.missing)} of {len(of.judged)} judged queries, which count as 0; "
                "average over retrieved queries to compare on those that all runs have"
            )
    queries = len(next(iter(evaluations.values())).queries)
    if queries < FEW:
        notes.append(f"only {queries} {'query' if queries == 1 else 'queries'}: a real difference may well not show")
    return tuple(notes)
