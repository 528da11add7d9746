import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import rankpipe
from rankpipe import Query, disk, store, trec
from rankpipe.errors import DataError, RecipeError
from rankpipe.journal import Kept
from rankpipe.measure.compare import compare
from rankpipe.measure.experiment import Experiment
from rankpipe.measure.identity import _code
from rankpipe.measure.results import Result, expected, file, read
from rankpipe.rerank.prompts import TEMPLATES
from tests.engines import Others
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


def write(house: Path, **changes: Any) -> Path:
    """The recipe with other values of some keys; None takes a key out."""
    tree = {k: v for k, v in (RECIPE | changes).items() if v is not None}
    path = house / "eval" / "mine" / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def asked(made: Experiment) -> int:
    """Rankings that its rerankers had to make."""
    return sum(s.totals.asked for s in made._built.values() if isinstance(s, Kept))


def fresh(house: Path) -> int:
    """How many rankings a run asks a reranker for."""
    made = Experiment(house / "eval" / "mine")
    made.run()
    return asked(made)


def system(sampel: int = 0, sample: object = None, **stages: dict[str, object]) -> dict[str, object]:
    """BM25 and what comes after it, as a system of a recipe."""
    keys = {k: v for k, v in (("sampel", sampel), ("sample", sample)) if v}
    after = [{"use": use, **options} for use, options in stages.items()]
    return {"pipeline": [{"use": "bm25", "index": "indexes/words"}, *after], **keys}


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
    runs = {o.system.name: trec.to_run(o.rankings) for o in outcomes[:2]}  # the sampled one is compared with nothing
    found = compare(runs, made.data.qrels, made.measures, baseline="bm25").differences
    assert {(d.system, d.measure): (d.delta, d.interval, d.t_p, d.randomisation_p) for d in found} == {
        (name, measure): (a.delta, (a.low, a.high), a.t_p, a.randomisation_p)
        for name, of in result.against.items() for measure, a in of.items()
    }  # fmt: skip
    assert read(file(result, house)) == result
    assert expected(result, made.tree["expect"]) == [
        f"cut: R@100 is {result.systems['cut'].values['R@100'].mean:.4f}, expected 0 to 0.01"
    ]
    written = trec.read_run(store.read_manifest(made.folder).path / "bm25.trec")
    assert written.run == trec.to_run(outcomes[0].rankings)
    assert written.tags == ("bm25",)
    assert evaluations["bm25"].means["nDCG@10"] == result.systems["bm25"].values["nDCG@10"].mean
    assert evaluations["bm25"].average == "judged"
    assert Experiment(write(house, measures=None)).measures == ["nDCG@10", "R@100", "RR@10"]


def test_others_do_the_same(house: Path) -> None:
    """In blocks of three queries, by what was read, whatever is there now; they write nothing themselves."""
    path = write(house, self_match="drop")
    alone = Experiment(path)
    expected = alone.run()
    made = store.read_manifest(path.parent)
    runs = {name: (made.path / name).read_bytes() for name in made.files}
    [kept] = (path.parent / "kept").iterdir()
    rows = sorted(kept.read_bytes().splitlines())
    kept.write_bytes(b'{"key": "half of a li')
    there = Experiment(path)
    path.write_text("data: nothing")
    outcomes = there.run(engine=Others(), block=3)
    assert outcomes[0] != expected[0], "but for the seconds"
    again = store.read_manifest(path.parent)
    assert (again.facts, again.recipe) == (made.facts, made.recipe)
    assert {name: (again.path / name).read_bytes() for name in again.files} == runs
    assert [[h.doc.text for h in r.hits] for r in outcomes[1].rankings] == [
        [h.doc.text for h in r.hits] for r in expected[1].rankings
    ]
    assert len(kept.read_bytes().splitlines()) == len(rows) == 3
    write(house, self_match="drop")
    Experiment(path).run(engine=Others(), block=2)
    assert len(kept.read_bytes().splitlines()) == 3, "all was kept"
    assert fresh(house) == 0


def test_where_the_figures_come_from(house: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        return subprocess.run(["git", *who, *words], cwd=house, check=True, capture_output=True, text=True).stdout

    path = write(house)
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    made = Experiment(path)
    write(house, measures=["RR"])  # the run is of what was read
    outcomes = made.run()
    result, _ = made.measure(outcomes)
    assert (result.recipe, result.data, result.seed) == ("mine", made.data.data, 0)
    assert result.commit == git("rev-parse", "--short=12", "HEAD").strip()  # nothing had changed then
    again = Experiment(path.parent)
    assert (again.name, again.folder, again._commit) == ("mine", path.parent, result.commit + "+")
    manifest = store.read_manifest(path.parent)
    assert (manifest.kind, manifest.recipe_hash) == ("runs", rankpipe.recipe.digest(made.tree))
    lowered = {o.system.name: sum(trec.strict(r)[1] for r in o.rankings) for o in outcomes}
    assert manifest.facts == {
        "self_matches_dropped": 0,
        **{o.system.name: {"queries": len(o.rankings), "scores_lowered": lowered[o.system.name]} for o in outcomes},
    }


def test_a_recipe_may_average_over_what_was_found(house: Path) -> None:
    made = Experiment(write(house, average="retrieved", expect=None))
    result, evaluations = made.measure(made.run())
    assert {e.average for e in evaluations.values()} == {"retrieved"}
    assert result.systems["bm25"].policy.startswith("mean over the")


def test_many_queries_go_through_in_blocks_and_share_what_systems_begin_with(house: Path) -> None:
    systems = RECIPE["systems"]
    made = Experiment(write(house, systems={name: systems[name] for name in ("llm", "cut", "bm25")}))
    queries = made.data.queries
    few = {r.query.text: r for r in made.run()[2].rankings}
    many = tuple(Query(f"{i}", queries[i % 8].text) for i in range(600))
    made.__dict__["data"] = replace(made.data, queries=many)
    outcomes = {o.system.name: o.rankings for o in made.run()}
    assert [r.query for r in outcomes["bm25"]] == [r.query for r in outcomes["cut"]] == [*many]
    assert all(r.hits == few[r.query.text].hits for r in outcomes["bm25"])
    assert all(r.hits == few[r.query.text].hits[:5] for r in outcomes["cut"])
    assert len(outcomes["llm"]) == 3


def test_a_second_run_does_no_reranking(house: Path) -> None:
    first = Experiment(house / "eval" / "mine")
    before = first.run()
    assert asked(first) == 3
    again = Experiment(house / "eval" / "mine")
    after = again.run()
    assert asked(again) == 0
    assert [r.hits for o in before for r in o.rankings] == [r.hits for o in after for r in o.rankings]
    forced = Experiment(house / "eval" / "mine")
    forced.run(force=True)
    assert asked(forced) == 3


def test_an_index_made_otherwise_is_another_recipe(house: Path) -> None:
    def measured() -> Result:
        made = Experiment(house / "eval" / "mine")
        return made.measure(made.run())[0]

    before = measured()
    (house / "indexes" / "words" / "recipe.yaml").write_text("data: mine\nindex: {use: bm25, k1: 1.2}\n")
    after = measured()
    assert after.recipe_hash != before.recipe_hash
    assert {*before.builds} == {*after.builds} == {"indexes/words"}
    assert after.builds == {"indexes/words": store.read_manifest(house / "indexes" / "words").build} != before.builds


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
        assert asked(made) == fresh


BACKWARDS = """
from pathlib import Path
from rankpipe.stage import Reranker

class Backwards(Reranker):
    def __init__(self, words: Path, model: str) -> None:
        pass

    def run(self, batch):
        return [r.reordered(range(len(r.hits))[::-1]) for r in batch]
"""


def test_a_stage_whose_code_files_or_weights_changed_is_asked_anew(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(house)
    monkeypatch.delitem(sys.modules, "backwards_of_mine", raising=False)
    for name, content in (("backwards_of_mine.py", BACKWARDS), ("words/a.txt", "a"), ("model/weights", "1")):
        (house / name).parent.mkdir(exist_ok=True)
        (house / name).write_text(content)
    stage = {"use": "backwards_of_mine:Backwards", "words": "words", "model": "model"}
    write(house, systems={"mine": [{"use": "bm25", "index": "indexes/words"}, stage]}, expect=None)
    assert (fresh(house), fresh(house)) == (8, 0)
    for name in ("backwards_of_mine.py", "words/a.txt", "model/weights"):
        with open(house / name, "a") as f:
            f.write("#")
        assert (fresh(house), fresh(house)) == (8, 0), name
    shutil.rmtree(house / "words")
    with pytest.raises(DataError, match="words: no such file or folder"):
        fresh(house)
    for content in ("a", "b"):
        (house / "words").write_text(content)
        assert (fresh(house), fresh(house)) == (8, 0)


def test_the_code_of_our_stages_is_their_room_and_the_ground_floor() -> None:
    root = Path(rankpipe.__file__).parent
    files = [f for f in root.rglob("*") if f.is_relative_to(root / "rerank") and f.suffix in (".py", ".yaml")]
    files += [f for f in root.iterdir() if f.suffix == ".py"]
    assert len(files) > 20
    assert sorted(_code(root / "rerank" / "listwise.py")) == sorted(disk.sha256(f) for f in files)


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


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"systems": ["bm25"]}, ["systems: expected names, each with a pipeline"]),
        ({"systems": None, "data": None}, ["data: missing", "systems: missing", "systems: expected names"]),
        ({"systems": {"a": {"sample": 3}}, "expect": None}, ["systems.a.pipeline: missing"]),
        ({"systems": {"a": []}, "expect": None}, ["systems.a.pipeline: missing"]),
        ({"systems": {"a": [3]}, "expect": None}, ["systems.a: a stage is a mapping"]),
        ({"expect": None}, []),
        ({"expect": {"no": {}}}, ["expect.no: no such system"]),
        (
            {"expect": {"bm25": {"RR": [0, 1], "R@100": 3}}},
            ["expect.bm25: 'RR' is not measured", "expect.bm25.R@100: 3"],
        ),
        ({"average": "judgedd"}, ["average: 'judgedd' is not one of judged, retrieved"]),
        ({"baseline": "bm52"}, ["baseline: no such system: 'bm52'; did you mean bm25?"]),
        ({"measures": "nDCG@10", "expect": None}, ["measures: 'nDCG@10' is no list of names"]),
        ({"measures": [], "expect": None}, ["measures: [] is no list of names"]),
        ({"data": ["tiny"]}, ["data: ['tiny'] is no name or path"]),
        ({"systems": {"a": system(sampel=3)}, "expect": None}, ["systems.a: no key 'sampel'; did you mean sample?"]),
        ({"systems": {"a": system(sample="many")}, "expect": None}, ["systems.a.sample: 'many' is no number"]),
        ({"systems": {"a": system(top={"k": 0})}, "expect": None}, ["systems.a[1]: top: k: 0 hits"]),
        (
            {
                "systems": {"a": system(listwise={"lm": {"use": "fake"}, "plan": {"use": "sliding", "step": 30}})},
                "expect": None,
            },
            ["systems.a[1].plan: sliding: "],
        ),
        (
            {"systems": {"a": system(listwise={"lm": 3})}, "expect": None},
            ["systems.a[1]: listwise: lm: 3 is no language"],
        ),
        (
            {"systems": {"a": system(listwise={"lm": {"use": "fake"}, "prompt": "rank_zefyr"})}, "expect": None},
            ["systems.a[1]: listwise: no prompt 'rank_zefyr'"],
        ),
        (
            {"systems": {"a": system(**{"cross-encoder": {"depth": 0}})}, "expect": None},
            ["systems.a[1]: cross-encoder: depth"],
        ),
    ],
)
def test_faults_of_the_recipe(house: Path, changes: dict[str, Any], faults: list[str]) -> None:
    found = Experiment(write(house, **changes)).check()
    assert len(found) == len(faults)
    assert all(fault.startswith(said) for fault, said in zip(found, faults, strict=True))


def test_faults_of_an_index(house: Path) -> None:
    Experiment(house / "eval" / "mine").run()
    index = house / "indexes" / "words"
    (index / "recipe.yaml").write_text("data: mine\nindex: {use: bm52}\n")
    faults = Experiment(write(house, measurs=[])).check()
    assert faults[0].startswith("no key 'measurs'")
    assert faults[1].startswith(f"{index}: ")
    assert "did you mean bm25?" in faults[1]
    (index / "recipe.yaml").write_text("data: mine\nindex: {use: bm25, k1: -3, stemmer: klingon}\n")
    faults = Experiment(write(house)).check()
    assert [f.partition(": index: ")[2][:20] for f in faults] == ["k1: -3; expected 0 o", "stemmer: no algorith"]
    (index / "recipe.yaml").unlink()  # what is built needs no recipe
    assert Experiment(write(house)).check() == []


def test_the_question_itself_is_no_hit_where_the_collection_says_so(house: Path) -> None:
    made = Experiment(house / "eval" / "mine")
    queries = made.data.queries
    docs = [*made.data.docs()][:2]
    selves = tuple(Query(d.id, d.text) for d in docs)
    found = {}
    for policy in ("keep", "drop"):
        made = Experiment(house / "eval" / "mine")
        made.__dict__["data"] = replace(made.data, queries=(*selves, *queries), self_match=policy)
        found[policy] = {r.query.id: [h.doc.id for h in r.hits] for r in made.run()[0].rankings}
        dropped = store.read_manifest(made.folder).facts["self_matches_dropped"]
        assert dropped == (2 if policy == "drop" else 0)
    for query, hits in found["keep"].items():
        assert (query in hits) == (query in [d.id for d in docs])
        assert found["drop"][query] == [d for d in hits if d != query]


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
    for path in (p for p in house.rglob("*") if p.is_file()):
        assert secret.encode() not in path.read_bytes(), path


def test_a_cache_of_answers_may_be_new_or_full(house: Path) -> None:
    llm = {"use": "listwise", "lm": {"use": "cache", "lm": {"use": "fake"}, "path": "answers.db"}}
    path = write(house, systems={"llm": [{"use": "bm25", "index": "indexes/words"}, llm]}, expect=None)
    assert Experiment(path).check() == []
    assert not (house / "answers.db").exists()
    for fresh in (8, 0):
        made = Experiment(path)
        made.run()
        assert asked(made) == fresh
