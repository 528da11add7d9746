"""Learning to rank: the features by hand, and trees that learn what is plain to see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import isnan, log, nextafter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from rankpipe import store
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ArtefactError, DataError, RecipeError
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.features import NEEDS, TABLE, Statistics, chosen, described
from rankpipe.rerank.learners import LambdaMART, Learner, YetiRank
from rankpipe.rerank.ltr import LearnedRanker
from rankpipe.rerank.scores import apart
from rankpipe.rerank.signals import Signals
from rankpipe.trec import Qrels, ordered, to_run

SMALL = {"trees": 30, "min_leaf": 5}
LEARNERS: dict[str, Callable[..., Learner]] = {
    "lightgbm": lambda **more: LambdaMART(**{**SMALL, **more}),
    "catboost": lambda **more: YetiRank(**{"trees": 30, **more}),
}


@pytest.fixture(params=LEARNERS)
def learner(request: pytest.FixtureRequest) -> Callable[..., Learner]:
    pytest.importorskip(request.param)
    return LEARNERS[request.param]


def judged(queries: int = 40, seed: int = 1) -> tuple[list[Ranking], Qrels]:
    """What is relevant says the query's second word, and stands far down: the first stage knows nothing."""
    random = Random(seed)
    rankings, qrels = [], Qrels()
    for q in range(queries):
        hits = []
        for i in range(20):
            good = random.random() < 0.2
            words = ["apple", *random.choices(["pear", "plum", "fig"], k=random.randint(3, 9))]
            words.insert(random.randint(0, len(words)), "quince" if good else "medlar")
            doc = Doc(f"q{q}d{i}", " ".join(words))
            hits.append(Hit(doc, float(20 - i)))
            qrels.setdefault(f"q{q}", {})[doc.id] = int(good)
        rankings.append(Ranking(Query(f"q{q}", "apple quince"), tuple(hits)))
    return rankings, qrels


def ndcg(rankings: list[Ranking], qrels: Qrels) -> float:
    import ir_measures

    run = {r.query.id: {h.doc.id: h.score for h in r.hits} for r in rankings}
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10])


def known(query: str, doc: Doc, seen: list[Doc]) -> dict[str, float]:
    """All features of one hit, the third of its ranking."""
    bare = Signals(tuple(TABLE), Statistics(0, {}, 0, 0), {}, {})
    names = tuple(name for name in TABLE if name not in NEEDS)
    signals = Signals(names, Statistics.of(seen, bare.words), {}, {})
    hits = (Hit(Doc("x", "x y"), 9.0), Hit(Doc("y", ""), 7.0), Hit(doc, 4.0))
    [made] = signals.of([Ranking(Query("q", query), hits)], [range(3)])
    return dict(zip(names, made.matrix[2].tolist(), strict=True))


def test_features_by_hand() -> None:
    doc = Doc("d", "Red foxes are red, and the fox sleeps.", "The fox")  # stems, without stop words:
    text, title = ["red", "fox", "red", "fox", "sleep"], ["fox"]
    seen = [doc, Doc("e", "fox tea"), Doc("f", "tea tea cup")]
    found = known("red fox tea", doc, seen)

    def rarity(df: int) -> float:
        return log(1 + (3 - df + 0.5) / (df + 0.5))

    def bm25(words: list[str], mean: float) -> float:
        norm = 0.9 * (1 - 0.4 + 0.4 * len(words) / mean)
        counts = {"red": (words.count("red"), 1), "fox": (words.count("fox"), 2)}
        return sum(rarity(df) * n / (n + norm) for n, df in counts.values() if n)

    mean = (5 + 2 + 3) / 3
    assert found == pytest.approx(
        {
            "first_score": 4, "first_rank": 3, "behind": 5, "query_words": 3, "title_words": 1, "text_words": 5,
            "bm25_title": bm25(title, 1), "bm25_text": bm25(text, mean), "bm25_contents": bm25(title + text, mean + 1),
            "covered": 2 / 3, "covered_by_title": 1 / 3, "bigrams": 1 / 2, "density": 5 / 6,
            "covered_rarity": (rarity(1) + rarity(2)) / (rarity(1) + 2 * rarity(2)),
            "first_match": 0, "last_match": 4,
        }
    )  # fmt: skip


def test_features_of_some_hits_are_those_they_have_among_all() -> None:
    [ranking], _ = judged(1)
    bare = Signals(tuple(name for name in TABLE if name not in NEEDS), Statistics(0, {}, 0, 0), {}, {})
    signals = Signals(bare.features, Statistics.of([h.doc for h in ranking.hits], bare.words), {}, {})
    [whole] = signals.of([ranking], [range(20)])
    head, rest = signals.of([ranking, ranking], [range(3), range(3, 20)])
    assert np.array_equal(np.concatenate([head.matrix, rest.matrix]), whole.matrix, equal_nan=True)


def test_what_cannot_be_known_is_no_number() -> None:
    untitled = known("red fox", Doc("d", "tea"), [Doc("e", "tea")])
    assert {name for name, value in untitled.items() if isnan(value)} == {
        "bm25_title", "bm25_text", "covered_by_title", "first_match", "last_match"
    }  # fmt: skip
    nothing = known("", Doc("d", ""), [Doc("e", "tea")])
    assert {name for name, value in nothing.items() if not isnan(value) and value} == {
        "first_score", "first_rank", "behind"
    }  # fmt: skip


def test_every_feature_says_what_it_is() -> None:
    assert all(function.__doc__ and function.__name__ == name for name, function in TABLE.items())
    assert NEEDS.keys() <= TABLE.keys()


def test_the_guide_has_all_features() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guide-reranking.md"
    table = "".join(f"| `{name}` | {about} |\n" for name, about in described().items())
    assert f"\n| feature | what it is |\n| --- | --- |\n{table}\n" in guide.read_text("utf-8")


def test_features_are_chosen_by_name() -> None:
    assert chosen(None, {"encoder": None, "cross": None}) == tuple(n for n in TABLE if n not in NEEDS)
    assert "cosine" in chosen(None, {"encoder": "bge-small", "cross": None})
    with pytest.raises(RecipeError) as told:
        chosen(["first_rnk", "cosine", "covered", "covered"], {"encoder": None, "cross": None})
    assert "did you mean first_rank or" in str(told.value)
    assert "cosine needs encoder" in str(told.value)
    assert "each once" in str(told.value)


def test_it_learns_what_is_plain_to_see(learner: Callable[..., Learner], tmp_path: Path) -> None:
    rankings, qrels = judged()
    unseen, judgements = judged(10, seed=2)
    ranker = LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=learner())
    assert ndcg(unseen, judgements) < 0.6
    assert ndcg(list(ranker(unseen)), judgements) == 1
    facts = ranker.manifest.facts
    assert max(facts["importance"], key=facts["importance"].get) in ("covered", "covered_rarity", "bm25_contents")
    assert (facts["hits"], facts["queries"] + facts["queries_left_out"]) == (20 * facts["queries"], 40)
    assert ranker.manifest.data.name == "rankings"


def scores(ranker: LearnedRanker, rankings: list[Ranking]) -> list[list[tuple[str, float]]]:
    return [[(h.doc.id, h.score) for h in r.hits] for r in ranker(rankings)]


def test_what_is_kept_scores_as_what_was_learned_to_the_bit(learner: Callable[..., Learner], tmp_path: Path) -> None:
    rankings, qrels = judged()
    made = scores(LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=learner()), rankings)
    assert scores(LearnedRanker(tmp_path / "ltr"), rankings) == made
    again = scores(LearnedRanker.fit(rankings, qrels, tmp_path / "again", learner=learner()), rankings)
    assert again == made
    other = scores(LearnedRanker.fit(rankings, qrels, tmp_path / "other", learner=learner(trees=7)), rankings)
    assert other != made


def test_lightgbm_predicts_what_it_was_trained_to(tmp_path: Path) -> None:
    """The library itself, from a matrix made once more."""
    lightgbm = pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    ranker = LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=LambdaMART(**SMALL))
    x = np.concatenate([k.matrix for k in ranker.signals.of(rankings, [range(20)] * len(rankings))])
    y = [grade for r in rankings for h in r.hits for grade in [qrels[r.query.id][h.doc.id]]]
    rows = [i for i, r in enumerate(rankings) if len({qrels[r.query.id][h.doc.id] for h in r.hits}) > 1]
    keep = [20 * i + j for i in rows for j in range(20)]
    data = lightgbm.Dataset(x[keep], np.array(y)[keep], group=[20] * len(rows), params={"verbosity": -1})
    options: dict[str, Any] = {
        "objective": "lambdarank", "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 5, "seed": 0,
        "verbosity": -1, "deterministic": True, "force_row_wise": True, "label_gain": [0, 1],
    }  # fmt: skip
    plain = lightgbm.train(options, data, num_boost_round=30)
    assert np.array_equal(plain.predict(x), ranker.scorer(x))


def test_hits_below_the_depth_stay_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=LambdaMART(**SMALL), depth=15)
    [made, none] = LearnedRanker(tmp_path / "ltr", depth=3).apply([rankings[0], Ranking(Query("n", "none"))])
    assert [h.doc.id for h in made.hits[3:]] == [h.doc.id for h in rankings[0].hits[3:]]
    assert [a.score - b.score for a, b in zip(made.hits[2:], made.hits[3:], strict=False)] == pytest.approx([1] * 17)
    assert none.hits == ()
    assert LearnedRanker(tmp_path / "ltr").depth == 15
    with pytest.raises(RecipeError, match="depth: 0"):
        LearnedRanker(tmp_path / "ltr", depth=0)


def test_budgets_of_what_asks_no_model(tmp_path: Path) -> None:
    """Seconds only: trees are no calls."""
    pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=LambdaMART(**SMALL))
    whole = scores(LearnedRanker(tmp_path / "ltr"), rankings[:3])
    for budget in (Budget(calls=0), Budget(tokens=0), Budget(seconds=1e9)):
        made = LearnedRanker(tmp_path / "ltr", budget=budget).apply(rankings[:3])
        assert [[(h.doc.id, h.score) for h in r.hits] for r in made] == whole
        assert [(r.steps[-1].calls, r.steps[-1].skipped) for r in made] == [(0, 0)] * 3
    for seconds, scored in ((0, 0), (1e-9, 1)):
        for made, given in zip(
            LearnedRanker(tmp_path / "ltr", budget=Budget(seconds=seconds)).apply(rankings[:3]), rankings, strict=False
        ):
            assert [h.doc for h in made.hits] == [h.doc for h in given.hits]
            assert (made.steps[-1].calls, made.steps[-1].skipped) == (0, 20 - scored)


def changed(folder: Path, **facts: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"] |= facts
    manifest.pop("checksum", None)  # not damaged, but of another version
    path.write_text(json.dumps(manifest))


def test_other_features_are_refused(learner: Callable[..., Learner], tmp_path: Path) -> None:
    rankings, qrels = judged()
    folder = tmp_path / "ltr"
    LearnedRanker.fit(rankings, qrels, folder, learner=learner(), features=["covered", "first_rank"])
    changed(folder, features=["first_rank", "covered"])
    with pytest.raises(ArtefactError, match="learned from covered, first_rank, but is told of first_rank, covered"):
        LearnedRanker(folder)
    changed(folder, features=["covered", "page_rank"])
    with pytest.raises(ArtefactError, match="knows the features page_rank, which this version does not"):
        LearnedRanker(folder)


def test_nothing_learned_is_an_error(tmp_path: Path) -> None:
    """26 hits are too few for two leaves of 20."""
    pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    few = [replace(r, hits=r.hits[:13]) for r in rankings]
    few = [r for r in few if len({qrels[r.query.id][h.doc.id] for h in r.hits}) > 1][:2]
    with pytest.raises(DataError, match=r"nothing was learned from 26 hits: .* min_leaf=20"):
        LearnedRanker.fit(few, qrels, tmp_path / "ltr")
    assert not (tmp_path / "ltr").exists()
    LearnedRanker.fit(few, qrels, tmp_path / "ltr", learner=LambdaMART(min_leaf=1))


def test_equal_scores_are_set_apart() -> None:
    assert apart([]) == []
    assert apart([1.0, 3.0, 2.0]) == [1.0, 3.0, 2.0]
    made = apart([1.0, 2.0, 1.0, 2.0, 1.0])
    assert sorted(range(5), key=lambda i: -made[i]) == [1, 3, 0, 2, 4]
    assert len(set(made)) == 5
    assert made == pytest.approx([1.0, 2.0, 1.0, 2.0, 1.0], abs=1e-12)
    close = apart([1.0, 1.0, nextafter(1.0, 0.0)])
    assert close[0] > close[1] > close[2]


def test_hits_that_cannot_be_told_apart_stay_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    coarse = LambdaMART(trees=2, leaves=2)
    ranker = LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=coarse, features=["covered"])
    for given, made in zip(rankings, ranker(rankings), strict=True):
        ids = [h.doc.id for h in given.hits]
        raw = dict(zip(ids, ranker.scorer(ranker.signals.of([given], [range(20)])[0].matrix), strict=True))
        assert len(set(raw.values())) <= 4
        order = sorted(ids, key=lambda doc: -raw[doc])
        assert [h.doc.id for h in made.hits] == order
        assert ordered(to_run([made])[given.query.id]) == order  # as trec_eval sees it, too


def test_nothing_to_learn(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    rankings, _ = judged(3)
    with pytest.raises(DataError, match="none of 3 rankings has both"):
        LearnedRanker.fit(rankings, {}, tmp_path / "ltr")
    with pytest.raises(RecipeError, match=r"learner: 3 is none; there are \{use: lambdamart\}, \{use: yetirank\}"):
        LearnedRanker.fit(*judged(3), tmp_path / "ltr", learner=3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"trees: 0; expected 1 or more(.|\n)*learning_rate: 2"):
        LambdaMART(trees=0, learning_rate=2)
    assert not (tmp_path / "ltr").exists()
    with pytest.raises(ArtefactError, match="nothing built here"):
        LearnedRanker(tmp_path / "ltr")


def test_models_are_features_and_must_stay_the_same(tmp_path: Path, embedded: Callable[[str], Path]) -> None:
    pytest.importorskip("lightgbm")
    embedded("bge-small")
    embedded("minilm-l12")
    rankings, qrels = judged(3)
    ranker = LearnedRanker.fit(
        rankings, qrels, tmp_path / "ltr", learner=LambdaMART(trees=3, min_leaf=1), encoder="bge-small",
        cross="minilm-l12", depth=6,
    )  # fmt: skip
    [made] = ranker.apply(rankings[:1])
    assert (made.steps[-1].calls, made.steps[-1].cut) == (6, 0)
    matrix = dict(zip(ranker.signals.features, ranker.signals.of(rankings[:1], [range(6)])[0].matrix.T, strict=True))
    from rankpipe.rerank.cross import CrossEncoder
    from rankpipe.retrieve.encode import encoder

    vectors = encoder("bge-small")
    hits = rankings[0].hits[:6]
    asked, told = vectors.encode_queries(["apple quince"]), vectors.encode_docs([h.doc.contents for h in hits])
    assert matrix["cosine"] == pytest.approx((told @ asked[0]).tolist(), abs=1e-6)  # bge's are of length 1 already
    logits = [s.score for s in CrossEncoder("minilm-l12").scorer([("apple quince", h.doc.contents) for h in hits])]
    assert matrix["cross_score"].tolist() == logits
    whole = {h.doc.id: h.score for h in made.hits}
    for budget, calls in ((Budget(calls=4), 4), (Budget(calls=0), 0), (Budget(seconds=1e9), 6)):
        [made] = LearnedRanker(tmp_path / "ltr", budget=budget).apply(rankings[:1])
        assert (made.steps[-1].calls, made.steps[-1].skipped) == (calls, 6 - calls)
        assert {h.doc.id: h.score for h in made.hits[:calls]} == {h.doc.id: whole[h.doc.id] for h in hits[:calls]}
    with pytest.raises(RecipeError, match=r"budget\.tokens: how many a pair has is known when it has been read"):
        LearnedRanker(tmp_path / "ltr", budget=Budget(tokens=9))
    changed(tmp_path / "ltr", identities={"cross": "wheel:another"})
    with pytest.raises(ArtefactError, match="was trained with cross minilm-l12 wheel:another"):
        LearnedRanker(tmp_path / "ltr").apply(rankings[:1])


def test_the_manifest_says_how_it_was_made(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    rankings, qrels = judged()
    LearnedRanker.fit(rankings, qrels, tmp_path / "ltr", learner=LambdaMART(**SMALL), name="fruit")
    manifest = store.read_manifest(tmp_path / "ltr")
    assert (manifest.kind, manifest.data.name, sorted(manifest.files)) == (
        "ltr", "fruit", ["lightgbm.txt", "statistics.json"]
    )  # fmt: skip
    assert manifest.recipe["learner"] == {
        "use": "lambdamart", "trees": 30, "leaves": 15, "learning_rate": 0.05, "min_leaf": 5, "truncation": 30,
        "seed": 0,
    }  # fmt: skip
    (manifest.path / "lightgbm.txt").write_text("tree")
    with pytest.raises(ArtefactError, match=r"lightgbm.txt has 4 bytes"):
        LearnedRanker(tmp_path / "ltr")


def test_importing_and_constructing_a_learner_is_free() -> None:
    pytest.importorskip("lightgbm")
    code = "import sys; from rankpipe.rerank.ltr import LambdaMART; LambdaMART(); assert 'lightgbm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
