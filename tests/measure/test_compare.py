"""Tests and intervals against scipy's paired ones, brute force and worked examples."""

from __future__ import annotations

from itertools import product
from math import atan, pi
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import ttest_rel

from rankpipe.errors import DataError
from rankpipe.measure.compare import Change, compare, holm, interval, randomisation_test, t_test, worse
from rankpipe.trec import Qrels, Run

QRELS: Qrels = {f"q{i}": {"r": 1, "x0": 0, "x1": 0, "x2": 0, "x3": 0, "x4": 0} for i in range(12)}


def run(ranks: list[int]) -> Run:
    """A run that has the relevant document of query i at rank ``ranks[i]``."""
    return {
        f"q{i}": {d: float(-n) for n, d in enumerate([*(f"x{j}" for j in range(rank - 1)), "r"])}
        for i, rank in enumerate(ranks)
    }


BEFORE = [1, 2, 3, 1, 2, 5, 4, 1, 1, 2, 3, 1]
AFTER = [2, 1, 1, 1, 1, 1, 2, 2, 1, 1, 2, 1]


def test_figures_of_one_comparison() -> None:
    of = compare({"old": run(BEFORE), "new": run(AFTER)}, QRELS, ["RR"], baseline="old")
    [d] = of.differences
    before, after = ([1 / r for r in ranks] for ranks in (BEFORE, AFTER))
    deltas = [b - a for a, b in zip(before, after, strict=True)]
    assert (d.system, d.measure) == ("new", "RR")
    assert d.mean == pytest.approx(fmean(after))
    assert d.baseline_mean == pytest.approx(fmean(before))
    assert d.delta == pytest.approx(fmean(deltas))
    assert (d.wins, d.ties, d.losses) == (7, 3, 2)
    assert d.hurt == (Change("q0", 1.0, 0.5), Change("q7", 1.0, 0.5))
    assert d.helped[0] == Change("q5", 0.2, 1.0)
    assert [c.query for c in d.helped] == ["q5", "q2", "q9", "q4", "q1"]
    assert d.t_p == d.t_holm == pytest.approx(ttest_rel(after, before).pvalue)
    every = [abs(fmean(s * x for s, x in zip(signs, deltas, strict=True))) for signs in product((1, -1), repeat=12)]
    exact = fmean(m >= abs(fmean(deltas)) - 1e-12 for m in every)
    assert d.randomisation_p == d.randomisation_holm == pytest.approx(exact)
    assert d.interval is not None
    assert min(deltas) < d.interval[0] < d.delta < d.interval[1] < max(deltas)


def test_the_same_seed_gives_the_same_figures_whoever_else_is_compared() -> None:
    two = compare({"a": run(BEFORE), "b": run(AFTER)}, QRELS, ["RR"], resamples=500)
    again = compare({"a": run(BEFORE), "b": run(AFTER)}, QRELS, ["RR"], resamples=500)
    three = compare({"a": run(BEFORE), "c": run(BEFORE[::-1]), "b": run(AFTER)}, QRELS, ["RR"], resamples=500)
    assert two == again
    [d], e = two.differences, three.differences[1]
    assert (e.system, e.interval, e.t_p, e.randomisation_p) == ("b", d.interval, d.t_p, d.randomisation_p)
    assert (two.baseline, two.overlap.keys()) == ("a", {"b"})


def test_a_comparisons_seed_and_resamples_reach_every_figure() -> None:
    runs = {"a": run(BEFORE), "b": run(AFTER)}
    found = set()
    for told in ({"seed": 1, "resamples": 500}, {"seed": 2, "resamples": 500}, {"seed": 1, "resamples": 600}, {}):
        of = compare(runs, QRELS, ["RR"], **told)
        before, after = (np.array([*of.evaluations[name].values["RR"].values()]) for name in runs)
        [d] = of.differences
        assert d.interval == interval(after - before, **told)
        assert d.randomisation_p == randomisation_test(after - before, **told)
        found |= {d.interval, d.randomisation_p}
    assert len(found) == 8
    runs = {"a": run([1] * 40), "b": run([1 + i % 6 for i in range(40)])}
    assert compare(runs, judged(40), ["RR"]) == compare(runs, judged(40), ["RR"], seed=0, resamples=10_000)
    many = np.sin(np.arange(40)) + 0.1  # too many for the exact test
    assert interval(many) == interval(many, seed=0, resamples=10_000)
    assert randomisation_test(many) == randomisation_test(many, seed=0, resamples=10_000)


def test_two_queries_by_hand() -> None:
    d = np.array([0.1, 0.3])
    assert t_test(d) == pytest.approx(1 - 2 * atan(2) / pi)  # t = (.1 + .3) / |.1 - .3|, one degree of freedom: Cauchy
    assert randomisation_test(d) == 0.5  # ++ and -- of four
    assert interval([0.0, 1.0]) == (0.0, 1.0)  # means 0, 1/2, 1, a quarter of them 0
    assert (t_test(np.zeros(2)), randomisation_test(np.zeros(2)), interval([0.0, 0.0])) == (1, 1, (0, 0))


def test_bootstrap_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = interval(rng.normal(0.3, 1, 50), seed=trial, resamples=300)
        assert found
        hits += found[0] <= 0.3 <= found[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_randomisation_by_sampling_is_near_the_exact_p() -> None:
    d = np.array([0.3, 0.1, -0.1, 0.2, 0.4, -0.2, 0.1, 0.2, 0.0, 0.1, -0.3, 0.2, 0.1])
    exact = randomisation_test(d, resamples=1 << 13)
    sampled = randomisation_test(d, resamples=4000)
    assert sampled == pytest.approx(exact, abs=0.03)
    assert sampled != exact


def test_holm_worked_example() -> None:
    """Ordered .01 .03 .04 by hand: x3, x2, x1, and never falling."""
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_systems_and_measures() -> None:
    of = compare({"a": run(BEFORE), "b": run(AFTER), "c": run(BEFORE[::-1])}, QRELS, ["RR", "P@1"])
    assert [(d.system, d.measure) for d in of.differences] == [("b", "RR"), ("b", "P@1"), ("c", "RR"), ("c", "P@1")]
    assert [d.t_holm for d in of.differences] == holm([d.t_p for d in of.differences])
    assert of.differences[0].t_holm == pytest.approx((of.differences[0].t_p or 0) * 4)


def test_identical_runs() -> None:
    of = compare({"a": run(BEFORE), "b": run(BEFORE)}, QRELS, ["RR"])
    [d] = of.differences
    assert (d.delta, d.interval, d.t_p, d.randomisation_p, d.ties) == (0, (0, 0), 1, 1, 12)
    assert d.hurt == d.helped == ()
    assert of.overlap == {"b": pytest.approx(1)}
    assert not worse(of, "RR")
    assert not worse(compare({"a": run(BEFORE), "b": run([2, *BEFORE[1:]])}, QRELS, ["RR"]), "RR")  # p = 1


def test_a_single_query_says_nothing() -> None:
    of = compare({"a": run([1]), "b": run([2])}, {"q0": {"r": 1}}, ["RR"])
    [d] = of.differences
    assert d.delta == -0.5
    assert (d.interval, d.t_p, d.t_holm, d.randomisation_p, d.randomisation_holm) == (None,) * 5
    assert not worse(of, "RR")
    assert of.warnings[-1] == "only 1 query: a real difference may well not show"


def test_constant_differences() -> None:
    """Every query loses by the same: t has no variance to go by, the signs still tell."""
    of = compare({"a": run([1] * 12), "b": run([2] * 12)}, QRELS, ["RR"])
    [d] = of.differences
    assert (d.t_p, d.randomisation_p, d.interval) == (None, pytest.approx(2 / 2**12), (-0.5, -0.5))
    assert worse(of, "RR") == [d]
    assert not worse(of, "RR", alpha=1e-4)
    assert not worse(compare({"b": run([2] * 12), "a": run([1] * 12)}, QRELS, ["RR"]), "RR")


def test_rounding_is_no_difference() -> None:
    assert Change("q", 0.1 + 0.2, 0.3).delta == 0
    assert Change("q", 0.5, 0.5001).delta == pytest.approx(0.0001)
    assert t_test(np.zeros(1)) is None
    assert t_test(np.full(5, 0.1) + np.array([0, 1e-17, 0, 0, 1e-17])) is None


def test_over_which_queries() -> None:
    partial = {q: hits for q, hits in run(AFTER).items() if q not in ("q0", "q7")}
    judged = compare({"a": run(BEFORE), "b": partial}, QRELS, ["RR"])
    assert "b has no document for 2 of 12 judged queries" in " ".join(judged.warnings)
    retrieved = compare({"a": run(BEFORE), "b": partial}, QRELS, ["RR"], average="retrieved")
    assert judged.differences[0].losses == 2
    assert judged.differences[0].hurt[0] == Change("q0", 1.0, 0.0)
    assert retrieved.differences[0].losses == 0
    assert len(retrieved.evaluations["a"].queries) == 10
    assert retrieved.evaluations["a"].policy.startswith("mean over the 10 judged queries found in the run")
    assert not any("no document" in w for w in retrieved.warnings)


def test_runs_without_a_common_query_overlap_in_nothing() -> None:
    of = compare({"a": {"q0": {"r": 1.0}}, "b": {"q1": {"r": 1.0}}}, QRELS, ["RR"])
    assert of.overlap == {"b": 0}


def judged(queries: int) -> Qrels:
    return {f"q{i}": QRELS["q0"] for i in range(queries)}


def test_warnings_about_few_queries() -> None:
    for queries, warnings in ((25, ()), (24, ("only 24 queries: a real difference may well not show",))):
        assert compare({"a": run([1] * queries), "b": run([2] * queries)}, judged(queries), ["RR"]).warnings == warnings


def test_warnings_about_missing_queries() -> None:
    for missing in (5, 6):  # one in twenty is not many
        of = compare({"a": run([1] * 100), "b": run([1] * (100 - missing))}, judged(100), ["RR"])
        said = (
            "b has no document for 6 of 100 judged queries, which count as 0; average over retrieved queries to "
            "compare on those that all runs have"
        )
        assert [w for w in of.warnings if "no document" in w] == [said] * (missing == 6)


def test_warnings_about_judgements() -> None:
    full = run([1] * 30)
    new = {q: {f"new{d}": s for d, s in hits.items()} for q, hits in full.items()}
    of = compare({"base": full, "late": new, "even later": new}, judged(30), ["RR"])
    gap = (
        "Judged@10 is 0.000 for {name} and 1.000 for base: documents without judgements count as not relevant, so "
        "{name} may be better than it looks"
    )
    low = "many of the first hits have no judgement and count as not relevant"
    assert of.warnings == (
        gap.format(name="late"),
        gap.format(name="even later"),
        f"Judged@10 is low (late 0.000, even later 0.000): {low}",
    )
    assert "so late may be better than it looks" in compare({"late": new, "base": full}, judged(30), ["RR"]).warnings[0]


def test_how_few_judgements_are_worth_a_warning() -> None:
    """Low is under .8; apart is by more than .05."""

    def warned(*shares: list[int]) -> list[str]:
        """Of systems that have these many judged documents among ten, query by query."""
        runs = {
            f"s{s}": {f"q{q}": {f"d{i + 10 - n}": -float(i) for i in range(10)} for q, n in enumerate(share)}
            for s, share in enumerate(shares)
        }
        grades = {f"q{q}": {f"d{i}": 1 for i in range(10)} for q in range(len(shares[0]))}
        return [w[:36] for w in compare(runs, grades, ["RR"]).warnings if w.startswith("Judged")]

    assert warned([8] * 10, [8] * 10) == []  # the mean of ten times .8 is a little less
    assert warned([8] * 9 + [7], [8] * 10) == ["Judged@10 is low (s0 0.790): many of"]
    assert warned([10] * 10, [10] * 5 + [9] * 5) == []  # and 1 - .95 a little more than .05
    assert warned([10] * 10, [10] * 4 + [9] * 6) == ["Judged@10 is 0.940 for s1 and 1.000 "]


def test_refusals() -> None:
    with pytest.raises(DataError, match="1 run to compare"):
        compare({"a": run(BEFORE)}, QRELS, ["RR"])
    with pytest.raises(DataError, match="did you mean old"):
        compare({"old": run(BEFORE), "new": run(AFTER)}, QRELS, ["RR"], baseline="odl")
    with pytest.raises(DataError, match=r"'nDCG@10' was not compared\. Compared: RR, P@1$"):
        worse(compare({"a": run(BEFORE), "b": run(AFTER)}, QRELS, ["RR", "P@1"]), "nDCG@10")
