"""Measures against trec_eval's C code, brute force and published figures."""

from __future__ import annotations

import random
from math import nan
from pathlib import Path

import pytest
import pytrec_eval

from rankpipe.errors import DataError
from rankpipe.measure.ranking import evaluate, parse
from rankpipe.trec import Qrels, Run, ordered, read_qrels, read_run

# our name: (trec_eval's name, the smallest relevant grade)
SAME = {
    "nDCG": ("ndcg", 1), "nDCG@10": ("ndcg_cut_10", 1), "NDCG@3": ("ndcg_cut_3", 1), "ndcg_cut_5": ("ndcg_cut_5", 1),
    "ndcg_cut.7": ("ndcg_cut_7", 1), "AP": ("map", 1), "map": ("map", 1), "MAP@5": ("map_cut_5", 1),
    "AP(rel=2)@100": ("map_cut_100", 2), "RR": ("recip_rank", 1), "MRR(rel=2)": ("recip_rank", 2), "P_5": ("P_5", 1),
    "recip_rank": ("recip_rank", 1), "P@5": ("P_5", 1), "P(rel=2)@10": ("P_10", 2), "Recall@10": ("recall_10", 1),
    "R(rel=2)@20": ("recall_20", 2), "recall_1000": ("recall_1000", 1), "Rprec": ("Rprec", 1), "Bpref": ("bpref", 1),
    "Bpref(rel=2)": ("bpref", 2), "infAP": ("infAP", 1), "Success@1": ("success_1", 1), "success_5": ("success_5", 1),
    "IPrec@0.0": ("iprec_at_recall_0.00", 1), "IPrec@0.5": ("iprec_at_recall_0.50", 1), "NumRet": ("num_ret", 1),
    "NumRelRet": ("num_rel_ret", 1), "num_rel_ret": ("num_rel_ret", 1), "NumRel": ("num_rel", 1), "NumQ": ("num_q", 1),
    "SetP": ("set_P", 1), "SetR": ("set_recall", 1), "SetAP": ("set_map", 1), "SetF": ("set_F", 1),
}  # fmt: skip
SUMS = ("NumRet", "NumRelRet", "num_rel_ret", "NumRel", "NumQ")


def random_case(rng: random.Random) -> tuple[Run, Qrels]:
    """Ties, ties in single precision only, missing queries, negative grades, unjudged documents and queries."""
    docs = [f"{rng.choice('aAzZé0')}{i}" for i in range(rng.randint(1, 40))]
    grades = rng.choice([(0, 1), (-2, -1, 0, 1, 2, 3), (-1, 0), (0, 0, 0, 1)])
    qrels = {f"q{i}": {d: rng.choice(grades) for d in docs if rng.random() < 0.5} for i in range(rng.randint(1, 8))}
    qrels["q0"][docs[0]] = 1
    run: Run = {}
    for query in [*qrels, "unjudged"]:
        if query == "q0" or rng.random() < 0.7:
            found = rng.sample(docs, rng.randint(1, len(docs)))
            run[query] = {d: rng.choice([round(rng.gauss(0, 2)), 1 + rng.random() * 1e-8, rng.random()]) for d in found}
    return run, qrels


def trec_eval(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """The C code, given the run as it is; by our names. It may crash on a query with negative grades only, so such a
    query gets a document graded 0 that is never found."""
    qrels = {q: grades if max(grades.values(), default=0) >= 0 else {**grades, "no": 0} for q, grades in qrels.items()}
    told = {
        rel: pytrec_eval.RelevanceEvaluator(qrels, {m for m, r in SAME.values() if r == rel}, rel).evaluate(run)
        for rel in (1, 2)
    }
    return {name: {q: told[rel][q][m] for q in told[rel]} for name, (m, rel) in SAME.items()}


def check_against_trec_eval(seed: int) -> None:
    run, qrels = random_case(random.Random(seed))
    truth = trec_eval(run, qrels)
    for average in ("judged", "retrieved"):
        ours = evaluate(run, qrels, [*SAME, "RR@10", "Judged@10"], average=average)
        for name, values in truth.items():
            assert {q: v for q, v in ours.values[name].items() if q not in ours.missing} == values, (seed, name)
            absent = {q: v for q, v in ours.values[name].items() if q in ours.missing}
            if name not in ("NumRel", "NumQ"):
                assert not any(absent.values())
            total = sum(values.values()) + sum(absent.values())
            mean = total if name in SUMS else total / len(ours.queries)
            assert ours.means[name] == pytest.approx(mean, abs=1e-12), (seed, name)
        for q, value in truth["RR"].items():  # trec_eval -M 10 -m recip_rank
            assert ours.values["RR@10"][q] == (value if value >= 0.1 else 0), (seed, q)
            top = ordered(run[q])[:10]
            assert ours.values["Judged@10"][q] == sum(d in qrels[q] for d in top) / len(top)
        assert ours.judged_at_10 == ours.means["Judged@10"]


def test_equals_trec_eval_on_random_runs() -> None:
    for seed in range(150):
        check_against_trec_eval(seed)


@pytest.mark.slow
def test_equals_trec_eval_on_1000_random_runs() -> None:
    for seed in range(1000):
        check_against_trec_eval(seed)


QRELS: Qrels = {"1": {"a": 1, "b": 0, "c": 2}, "2": {"a": -1, "b": 0}, "3": {"c": 1}}
RUN: Run = {"1": {"x": 3.0, "a": 2.0, "c": 1.0}, "2": {"a": 1.0}, "4": {"a": 1.0}}


def test_ties_are_broken_one_way_for_every_measure() -> None:
    """ir_measures alone gives nDCG@1 = 1 (id falling) but RR@1 = 0 (id rising) here."""
    of = evaluate({"1": {"a": 1.0, "b": 1.0}}, {"1": {"b": 1}}, ["nDCG@1", "RR@1", "RR", "P@1", "Judged@1", "ERR@1"])
    assert of.means == {"nDCG@1": 1, "RR@1": 1, "RR": 1, "P@1": 1, "Judged@1": 1, "ERR@1": 0.0625}


def test_policy_and_counts() -> None:
    judged, retrieved = (evaluate(RUN, QRELS, ["RR"], average=a) for a in ("judged", "retrieved"))
    assert judged.values == {"RR": {"1": 0.5, "2": 0, "3": 0}}
    assert judged.means["RR"] == pytest.approx(0.5 / 3)
    assert retrieved.values == {"RR": {"1": 0.5, "2": 0}}
    assert retrieved.means["RR"] == 0.25
    assert judged.judged == retrieved.judged == ("1", "2", "3")
    assert judged.missing == retrieved.missing == ("3",)
    assert judged.unjudged_queries == ("4",)
    assert retrieved.judged_at_10 == pytest.approx((2 / 3 + 1) / 2)
    assert judged.policy == (
        "mean over all 3 judged queries; 1 of them (3) missing from the run, counted as 0; "
        "1 query without judgements ignored"
    )
    assert retrieved.policy == (
        "mean over the 2 judged queries found in the run; 1 of them (3) missing and left out; "
        "1 query without judgements ignored"
    )


@pytest.mark.parametrize(
    ("missing", "said"), [(3, "3 of them (q1, q2, q3) missing"), (4, "4 of them (q1, q2, q3, ...) missing")]
)
def test_a_few_of_the_missing_are_named(missing: int, said: str) -> None:
    of = evaluate({"q0": {"a": 1.0}}, {f"q{i}": {"a": 1} for i in range(missing + 1)}, ["RR"])
    assert said in of.policy


def test_empty_result_lists_are_missing_queries() -> None:
    assert evaluate({"1": {}, "2": {"b": 1.0}}, QRELS, ["nDCG@10"]).missing == ("1", "3")
    assert evaluate({"1": {}}, QRELS, ["nDCG@10", "NumRel", "NumQ"]).means == {"nDCG@10": 0, "NumRel": 3, "NumQ": 3}


def test_measures_of_one_name_do_not_disturb_each_other() -> None:
    """ir_measures 0.4.3, asked for both at once, gives one of them twice or not at all."""
    alone = [evaluate(RUN, QRELS, [m]).means[m] for m in ("nDCG@10", "nDCG(gains={1: 9})@10")]
    assert list(evaluate(RUN, QRELS, ["nDCG@10", "nDCG(gains={1: 9})@10"]).means.values()) == alone
    assert alone[0] != alone[1]


def test_ids_may_be_anything() -> None:
    """gdeval.pl would take the query "DL-19" for "19" and refuse "what is"."""
    run = {"what is": {"a b": 2.0, "é": 1.0}, "DL-19": {"a": 1.0}, "19": {"b": 1.0}}
    of = evaluate(run, {"what is": {"é": 1}, "DL-19": {"a": 1}, "19": {"a": 1}}, ["nDCG(dcg='exp-log2')@10"])
    [values] = of.values.values()
    assert values == {"what is": 0.63093, "DL-19": 1, "19": 0}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ndcg@10", r"did you mean nDCG@10 or \S+@10( or \S+@10)?\?$"), ("nDGC", r"did you mean nDCG or \S+"),
        ("nDGC(rel=2)@10", "did you mean nDCG@10"), ("recip_ranc", r"did you mean recip_rank\?$"),
        ("recip_ranc@10", "no measure 'recip_ranc@10'$"),
        ("P", "'P': wrong or missing parameter cutoff; write it like"), ("P@0", "cutoff must be"),
        ("recall_0", "cutoff must be"), ("P(rel=0)@5", "rel must be"), ("ndcg_cut", "such as ndcg_cut_5"),
        ("official", "a set of measures"), ("P_5x", "no measure"), ("AP@-1", "no measure"), ("", "no measure"),
        ("11pt_avg", "no measure"), ("nDCG(depth=3)@10", "unsupported params"),
        ("import os", "no measure 'import os'$"),
    ],
)  # fmt: skip
def test_bad_measures_are_named(name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse(name)


@pytest.mark.parametrize(
    ("run", "qrels", "measure", "says"),
    [
        ({}, QRELS, "RR", "^the run is empty$"),
        (RUN, {"1": {}}, "RR", "^there are no judgements$"),
        (
            {"01": {"a": 1.0}},
            QRELS,
            "RR",
            r"none of the run's 1 queries is judged \(the run has '01', the judgements '1'\)",
        ),
        ({"1": {"a": nan}}, QRELS, "RR", "query '1': the score of document 'a'"),
        (
            RUN,
            QRELS,
            "alpha_nDCG@10",
            r"(?s)'alpha_nDCG@10' cannot be computed here: .*pip install ir-measures\[pyndeval\]",
        ),
        (RUN, {"1": {"a": 5}}, "ERR@10", "'ERR@10': .*grades up to 4"),
    ],
)
def test_bad_input_is_named(run: Run, qrels: Qrels, measure: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        evaluate(run, qrels, [measure])


def test_nothing_to_average_over() -> None:
    with pytest.raises(DataError, match=r"^the run has no document for any judged query: nothing to average over$"):
        evaluate({"1": {}}, QRELS, ["RR"], average="retrieved")


PUBLISHED = {  # Pyserini's reproduction matrix and RankLLM's runs: nDCG@10, and Recall@100 where it is given
    "BM25": (".5058", ".4531"), "BM25_RM3": (".5216",), "SPLADE_P_P_ENSEMBLE_DISTIL": (".7308", ".5549"),
    "D_BERT_KD_TASB": (".7210",), "OPEN_AI_ADA2": (".7035",), "REP_LLAMA": (".7384",),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_first_stages_of_trec_dl_2019(data_root: Path, name: str) -> None:
    """The published Recall@100 counts grade 1 as relevant, though TREC DL's own convention is grade 2."""
    pool = data_root / "trec-dl19-pool"
    of = evaluate(
        read_run(pool / "runs" / f"{name}.trec").run,
        read_qrels(pool / "qrels" / "test.tsv"),
        ["nDCG@10", "R(rel=1)@100"],
    )
    assert len(of.judged) == 43
    assert not of.missing
    ours = [f"{mean:.4f}".lstrip("0") for mean in of.means.values()]
    assert ours[: len(PUBLISHED[name])] == list(PUBLISHED[name])
