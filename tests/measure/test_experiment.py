import shutil
from pathlib import Path

import pytest
import yaml

from rankpipe import store, trec
from rankpipe.errors import RecipeError
from rankpipe.measure.experiment import Experiment
from rankpipe.measure.results import expected
from rankpipe.rerank.prompts import TEMPLATES
from tests.lm.server import say, serving

RECIPE = {
    "data": "mine",
    "measures": ["nDCG@10", "R@100"],
    "systems": {
        "bm25": [{"use": "bm25", "index": "indexes/words"}],
        "cut": [[{"use": "bm25", "index": "indexes/words"}], {"use": "top", "k": 5}],
        "llm": {
            "sample": 3,
            "pipeline": [
                {"use": "bm25", "index": "indexes/words"},
                {"use": "listwise", "lm": {"use": "fake"}, "plan": {"use": "single", "size": 5}},
            ],
        },
    },
    "expect": {"bm25": {"nDCG@10": [0.3, 1]}, "cut": {"R@100": [0, 0.01]}},
}


@pytest.fixture
def house(tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_path, tmp_path / "mine")
    for shelf, recipe in (("indexes/words", {"data": "mine", "index": {"use": "bm25"}}), ("eval/mine", RECIPE)):
        (tmp_path / shelf).mkdir(parents=True)
        (tmp_path / shelf / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return tmp_path


def test_from_recipe_to_result(house: Path) -> None:
    made = Experiment(house / "eval" / "mine")
    assert made.check() == []
    outcomes = made.run()
    result, evaluations = made.measure(outcomes)
    assert [o.system.name for o in outcomes] == ["bm25", "cut", "llm"]
    assert [len(o.rankings) for o in outcomes] == [8, 8, 3]
    assert (result.systems["bm25"].queries, result.systems["llm"].queries) == (8, 3)
    assert all(len(r.hits) <= 5 for r in outcomes[1].rankings)
    assert [c.stage for c in result.systems["llm"].costs] == ["BM25", "Listwise"]
    assert expected(result, made.tree["expect"]) == [
        f"cut: R@100 is {result.systems['cut'].values['R@100'].mean:.4f}, expected 0 to 0.01"
    ]
    written = trec.read_run(store.read_manifest(made.folder).path / "bm25.trec")
    assert written.run == trec.to_run(outcomes[0].rankings)
    assert written.tags == ("bm25",)
    assert evaluations["bm25"].means["nDCG@10"] == result.systems["bm25"].values["nDCG@10"].mean


def test_a_second_run_does_no_reranking(house: Path) -> None:
    first = Experiment(house / "eval" / "mine")
    before = first.run()
    assert sum(getattr(s, "fresh", 0) for s in first._built.values()) == 3
    again = Experiment(house / "eval" / "mine")
    after = again.run()
    assert sum(getattr(s, "fresh", 0) for s in again._built.values()) == 0
    assert [r.hits for o in before for r in o.rankings] == [r.hits for o in after for r in o.rankings]
    forced = Experiment(house / "eval" / "mine")
    forced.run(force=True)
    assert sum(getattr(s, "fresh", 0) for s in forced._built.values()) == 3


def test_an_index_made_otherwise_is_another_recipe(house: Path) -> None:
    def hashed() -> str:
        made = Experiment(house / "eval" / "mine")
        return made.measure(made.run())[0].recipe_hash

    before = hashed()
    (house / "indexes" / "words" / "recipe.yaml").write_text("data: mine\nindex: {use: bm25, k1: 1.2}\n")
    assert hashed() != before


def test_another_prompt_in_the_same_file_is_asked_anew(house: Path) -> None:
    mine = house / "mine.yaml"
    mine.write_text((TEMPLATES / "rank_zephyr.yaml").read_text())
    recipe = yaml.safe_load((house / "eval" / "mine" / "recipe.yaml").read_text())
    recipe["systems"]["llm"]["pipeline"][1]["prompt"] = {"use": "prompt", "file": "mine.yaml"}
    (house / "eval" / "mine" / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for change, fresh in (("", 3), ("", 0), ("# changed\n", 3)):
        mine.write_text(mine.read_text() + change)
        made = Experiment(house / "eval" / "mine")
        made.run()
        assert sum(getattr(s, "fresh", 0) for s in made._built.values()) == fresh


def test_a_changed_corpus_rebuilds_the_index(house: Path) -> None:
    Experiment(house / "eval" / "mine").run()
    with open(house / "mine" / "corpus.jsonl", "a") as f:
        f.write('{"_id": "new", "text": "a new document"}\n')
    Experiment(house / "eval" / "mine").run()
    assert store.read_manifest(house / "indexes" / "words").facts["documents"] == 21


def test_all_faults_at_once(house: Path) -> None:
    recipe = {
        "data": "nowhere",
        "measurs": [],
        "measures": ["nDCGG@10"],
        "systems": {
            "a b": [{"use": "bm52", "index": "indexes/none"}],
            "c": [{"use": "top", "k": 3}],
        },
        "expect": {"d": {}},
    }
    (house / "eval" / "mine" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    faults = Experiment(house / "eval" / "mine").check()
    for said in (
        "no key 'measurs'; did you mean measures?",
        "systems.a b: a name is letters",
        "systems.a b[0]: no component 'bm52'; did you mean bm25?",
        "systems.c[0]: top takes Ranking, but is given Query",
        "no index here, and no recipe to build one by",
        "measures: no measure 'nDCGG@10'",
        "expect.d: no such system",
        "data: nowhere: no such path",
    ):
        assert any(said in fault for fault in faults), (said, faults)
    with pytest.raises(RecipeError, match="8 faults"):
        Experiment(house / "eval" / "mine").run()


def test_the_question_itself_is_no_hit_where_the_collection_says_so(house: Path) -> None:
    made = Experiment(house / "eval" / "mine")
    queries = made.data.queries
    doc = next(iter(made.data.docs()))
    from dataclasses import replace

    from rankpipe import Query

    made.__dict__["data"] = replace(made.data, queries=(Query(doc.id, doc.text), *queries), self_match="drop")
    [ranking] = [r for r in made.run()[0].rankings if r.query.id == doc.id]
    assert ranking.hits
    assert doc.id not in [h.doc.id for h in ranking.hits]


def test_a_reranker_on_a_server_is_asked_once_and_its_key_is_nowhere(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-not-for-anybody-0123456789"
    monkeypatch.setenv("MY_KEY", secret)
    results = {"results": [{"index": 0, "relevance_score": 0.5}]}
    with serving(rerank=[say(results)]) as server:
        api = {"use": "api", "dialect": "cohere", "model": "rerank-x", "url": server.url, "key": "MY_KEY", "depth": 1}
        tree = {**RECIPE, "systems": {"api": [{"use": "bm25", "index": "indexes/words"}, api]}, "expect": {}}
        (house / "eval" / "mine" / "recipe.yaml").write_text(yaml.safe_dump(tree))
        made = [Experiment(house / "eval" / "mine").run() for _ in range(2)]
    assert [r.hits for r in made[0][0].rankings] == [r.hits for r in made[1][0].rankings]
    asked = server.bodies("/v1/rerank")
    assert sum(s.calls for r in made[0][0].rankings for s in r.steps) == len(asked)
    assert {headers["Authorization"] for _, _, headers in server.asked} == {f"Bearer {secret}"}
    for file in (p for p in house.rglob("*") if p.is_file()):
        assert secret.encode() not in file.read_bytes(), file
