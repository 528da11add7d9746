"""Measures of a run against judgements: what (``nDCG@10``) is the user's, how (which C code) is ir_measures'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isnan
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Literal

from rankpipe.errors import DataError
from rankpipe.trec import Qrels, Run, ordered

if TYPE_CHECKING:
    from ir_measures import Measure

Average = Literal["judged", "retrieved"]
JUDGED = "Judged@10"


@dataclass(frozen=True)
class Evaluation:
    """What a run is worth. The values never travel without what they are a mean of.

    ``values`` and ``means`` are keyed by the measure as the user spelled it. A mean is trec_eval's: of ``NumRet``,
    ``NumRel``, ``NumRelRet`` and ``NumQ`` it is the sum.
    """

    values: dict[str, dict[str, float]]  # measure -> query id -> value, over the queries in ``queries``
    means: dict[str, float]
    queries: tuple[str, ...]  # those averaged over
    judged: tuple[str, ...]  # queries with judgements
    missing: tuple[str, ...]  # judged queries for which the run has no document
    unjudged_queries: tuple[str, ...]  # queries of the run without judgements: ignored
    judged_at_10: float  # mean share of judged documents among the first 10 hits, over the same queries
    average: Average

    @property
    def policy(self) -> str:
        """Over what the means are taken, in words."""
        if self.average == "judged":
            words = f"mean over all {_queries(len(self.judged), 'judged')}"
            words += f"; {_named(self.missing)} missing from the run, counted as 0" if self.missing else ""
        else:
            words = f"mean over the {_queries(len(self.queries), 'judged')} found in the run"
            words += f"; {_named(self.missing)} missing and left out" if self.missing else ""
        if self.unjudged_queries:
            words += f"; {_queries(len(self.unjudged_queries))} without judgements ignored"
        return words


def evaluate(run: Run, qrels: Qrels, measures: Sequence[str], *, average: Average = "judged") -> Evaluation:
    """Measure a run, per query and in the mean, with ties broken as trec_eval does for every measure.

    The providers behind ir_measures break ties in two ways (trec_eval's by id, falling; the others' by id, rising).
    So the run is put into trec_eval's order first (single precision, then id, falling), and the providers are handed
    strictly falling whole numbers. Query and document ids are numbered for them, too: one of the providers takes
    only numbers. Measures are computed one at a time, because ir_measures 0.4.3 lets two of one name
    (``nDCG@10`` and ``nDCG(gains={1: 2})@10``) overwrite each other. ``ERR`` and ``nDCG(dcg='exp-log2')`` come from
    TREC's gdeval.pl, rounded to five digits and for grades up to 4.

    :param measures: ir_measures' names, trec_eval's, and the usual aliases (see :func:`parse`).
    :param average: "judged" takes the mean over all judged queries, missing ones counting as 0 (``trec_eval -c``);
        "retrieved" over those judged queries that the run has documents for (``trec_eval`` without ``-c``).
    :raises DataError: If a measure is unknown or cannot be computed here, a score is NaN, there are no judgements,
        or the run and the judgements have no query in common.
    """
    judged = tuple(q for q, grades in qrels.items() if grades)
    _joinable(run, judged)
    found = [q for q in judged if run.get(q)]
    queries = judged if average == "judged" else tuple(found)
    if not queries:
        raise DataError("the run has no document for any judged query: nothing to average over")
    numbered = _numbered(run, qrels, found)
    values: dict[str, dict[str, float]] = {}
    means: dict[str, float] = {}
    for name in dict.fromkeys([*measures, JUDGED]):
        measure = parse(name)
        computed = _compute(name, measure, *numbered)
        known = {q: computed[str(i)] for i, q in enumerate(found) if str(i) in computed}
        values[name] = {q: known[q] if q in known else _absent(measure, qrels[q].values()) for q in queries}
        means[name] = _mean(measure, values[name].values())
    judged_at_10 = means[JUDGED]
    if JUDGED not in measures:
        del values[JUDGED], means[JUDGED]
    missing = tuple(q for q in judged if not run.get(q))
    unjudged = tuple(q for q in run if not qrels.get(q))
    return Evaluation(values, means, queries, judged, missing, unjudged, judged_at_10, average)


def parse(name: str) -> Measure:
    """The measure a name stands for: ``nDCG@10``, ``AP(rel=2)@100``, ``MRR@10``, trec_eval's ``ndcg_cut_10``, ``map``.

    :raises DataError: If it is no measure, or lacks a parameter or has a wrong one; says the nearest names.
    """
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
        measure.validate_params()
    except AssertionError as error:
        raise DataError(f"{name!r}: {_plain(error)}; write it like nDCG@10 or AP(rel=2)@100") from None
    except (ValueError, NameError):
        measure = _trec_eval(name)
    for parameter in ("cutoff", "rel"):  # below 1, trec_eval's C code would end the process
        if measure.params.get(parameter, 1) < 1:
            raise DataError(f"{name!r}: {parameter} must be 1 or more")
    return measure


def _trec_eval(name: str) -> Measure:
    """trec_eval's spelling, of one measure: ``ndcg_cut_10`` or ``ndcg_cut.10``, not ``ndcg_cut`` (nine of them)."""
    import ir_measures
    import pytrec_eval

    if name in pytrec_eval.supported_nicknames:
        raise DataError(f"{name!r} is a set of measures; name the ones you want")
    try:
        found = ir_measures.parse_trec_measure(name) if re.fullmatch(r"[A-Za-z_]+([._][0-9.]+)?", name) else []
    except ValueError:
        found = []
    if not found:
        raise DataError(f"no measure {name!r}{_near(name)}") from None
    if len(found) != 1:
        one = next(iter(found[0].params.values()))
        raise DataError(f"{name!r} stands for {len(found)} measures; say one, such as {name}_{one}")
    return found[0]


def _near(name: str) -> str:
    """Names that differ little, in case or in letters."""
    import ir_measures
    import pytrec_eval

    head, at, cut = name.partition("@")
    known = {} if at else {k.casefold(): k for k in pytrec_eval.supported_measures}
    known |= {k.casefold(): m.__name__ for k, m in ir_measures.measures.registry.items()}
    close = dict.fromkeys(known[k] for k in get_close_matches(head.split("(")[0].casefold(), known))
    return "; did you mean " + " or ".join(c + at + cut for c in close) + "?" if close else ""


def _plain(error: AssertionError) -> str:
    """ir_measures' complaint without the address of its "not provided" object."""
    return str(error).split("=<object")[0].replace("invalid param ", "wrong or missing parameter ")


def _joinable(run: Run, judged: Sequence[str]) -> None:
    if not judged:
        raise DataError("there are no judgements")
    if not run:
        raise DataError("the run is empty")
    if not any(q in run for q in judged):
        raise DataError(
            f"none of the run's {len(run)} queries is judged (the run has {next(iter(run))!r}, the judgements "
            f"{judged[0]!r}); are the two of the same collection, and the ids spelled the same?"
        )


def _numbered(run: Run, qrels: Qrels, queries: Sequence[str]) -> tuple[Run, Qrels]:
    """The same run and judgements with queries and documents numbered, and scores that fall by 1 from hit to hit.

    A query with negative grades only is given one document graded 0, which nobody finds: without it trec_eval's C
    code writes outside its memory.
    """
    ranked: Run = {}
    grades: Qrels = {}
    for i, query in enumerate(queries):
        if bad := [d for d, score in run[query].items() if isnan(score)]:
            raise DataError(f"query {query!r}: the score of document {bad[0]!r} is not a number")
        names = {doc: str(rank) for rank, doc in enumerate(ordered(run[query]))}
        ranked[str(i)] = {name: float(len(names) - rank) for rank, name in enumerate(names.values())}
        grades[str(i)] = {names.get(doc, f"-{j}"): grade for j, (doc, grade) in enumerate(qrels[query].items())}
        if max(qrels[query].values()) < 0:
            grades[str(i)]["-"] = 0
    return ranked, grades


def _compute(name: str, measure: Measure, run: Run, qrels: Qrels) -> dict[str, float]:
    """Value per numbered query, for those queries the provider has a value for."""
    import ir_measures

    if not run:
        return {}
    try:
        return {m.query_id: float(m.value) for m in ir_measures.iter_calc([measure], qrels, run)}
    except ValueError as error:
        raise DataError(f"{name!r} cannot be computed here: {error}") from None
    except CalledProcessError as error:
        raise DataError(f"{name!r}: TREC's gdeval.pl failed ({error}); it takes grades up to 4") from None


def _absent(measure: Measure, grades: Iterable[int]) -> float:
    """What a judged query counts for which nothing was found: as ``trec_eval -c``, 0 but for counts of judgements."""
    if measure.NAME == "NumQ":
        return 1.0
    if measure.NAME == "NumRel":
        return float(sum(g >= 1 for g in grades))
    return float(measure.DEFAULT)


def _mean(measure: Measure, values: Iterable[float]) -> float:
    total = measure.aggregator()
    for value in values:
        total.add(value)
    return float(total.result())


def _queries(n: int, kind: str = "") -> str:
    return f"{n} {kind} {'query' if n == 1 else 'queries'}".replace("  ", " ")


def _named(ids: Sequence[str]) -> str:
    """``3 of them (q1, q2, q3)``; the first three names if there are more."""
    some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} of them ({some})"
