from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from rankpipe import Query, Ranking, recipe
from rankpipe.errors import ArtefactError, DataError, MissingExtra, RankpipeError, RecipeError, placed, refuse
from rankpipe.stage import Retriever, Top

HERE = "tests.test_recipe"


class Finder(Retriever):
    """A retriever that remembers its arguments."""

    def __init__(
        self, index: Path, k: int = 10, how: Literal["a", "b"] = "a", part: Any = None, b: float = 0.5
    ) -> None:
        self.index, self.k, self.how, self.part, self.b = index, k, how, part, b

    @classmethod
    def build(cls, data: object, folder: Path, *, size: int = 3) -> None:
        """Nothing."""

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        return [Ranking(q) for q in batch]


FINDER = {"use": f"{HERE}:Finder", "index": "x"}


@pytest.mark.parametrize(
    ("node", "faults"),
    [
        (FINDER, []),
        ({**FINDER, "b": 1, "how": "b"}, []),
        ({"use": "topp", "k": 1}, ["no component 'topp'; did you mean top?"]),
        ({"use": "top"}, ["top: argument 'k' is missing"]),
        ({"use": "top", "k": 1, "kk": 2}, ["top: no argument 'kk'; did you mean k?"]),
        ({"use": "top", "k": "many"}, ["top: k: 'many' is a str, expected int"]),
        ({"use": "top", "k": True}, ["top: k: True is a bool, expected int"]),
        ({**FINDER, "how": "c"}, [f"{HERE}:Finder: how: 'c' is not one of a, b"]),
        ({**FINDER, "index": 3}, [f"{HERE}:Finder: index: 3 is a int, expected Path"]),
    ],
)
def test_faults(node: dict[str, Any], faults: list[str]) -> None:
    assert recipe.check(node) == faults


PROMPT = """
passage: "[{label}] {passage}\\n"
messages: [{user: "query: {query}\\n{passages}"}]
"""


def test_a_name_where_only_a_component_fits(tmp_path: Path) -> None:
    short = {"use": "listwise", "lm": "fake", "plan": {"use": "multipass", "plan": "tournament"}, "prompt": "mine.yaml"}
    long = {
        "use": "listwise",
        "lm": {"use": "fake"},
        "plan": {"use": "multipass", "plan": {"use": "tournament"}},
        "prompt": {"use": "prompt", "file": "mine.yaml"},
    }
    assert recipe.meant([short]) == recipe.meant([long]) == [long]
    assert [place for place, _ in recipe.walk(short)] == ["lm", "plan.plan", "plan", "prompt", ""]
    assert "no such prompt file" in recipe.check(short, root=tmp_path)[0]
    (tmp_path / "mine.yaml").write_text(PROMPT)
    assert recipe.check(short, root=tmp_path) == []
    assert recipe.build(short, tmp_path).prompt == recipe.build(long, tmp_path).prompt


@pytest.mark.parametrize(
    "node",
    [
        {"use": "listwise", "lm": "nonsense", "prompt": "setwise"},  # no component; a text is wanted
        {"use": "dense", "index": "top", "model": "sliding"},  # a path, a text
        {"use": "monot5", "dtype": "float32"},  # one of a few words
        {**FINDER, "part": "sliding"},  # whatever
        {"use": "topp", "plan": "sliding"},
        {"use": ["sliding"], "plan": "sliding"},
        {"plan": "sliding"},
    ],
)
def test_any_other_text_is_a_text(node: dict[str, Any]) -> None:
    assert recipe.meant(node) == node


def test_what_can_be_one_component_only_needs_no_name() -> None:
    pytest.importorskip("datasets")
    node = {"use": "lists", "data": "d", "run": "r.trec", "negatives": {"depth": 0, "random": 5}}
    assert recipe.meant(node)["negatives"] == {"use": "negatives", "depth": 0, "random": 5}
    assert recipe.build(node, Path()).negatives.random == 5
    wrong = recipe.check(node | {"negatives": {"dept": 3}})
    assert wrong == ["negatives: negatives: no argument 'dept'; did you mean depth?"]


def test_all_faults_at_once_each_with_its_place() -> None:
    tree = {"pipeline": [{"use": "topp"}, {**FINDER, "k": "x", "part": {"use": "top", "kk": 1}}]}
    assert recipe.check(tree) == [
        "pipeline[0]: no component 'topp'; did you mean top?",
        "pipeline[1].part: top: no argument 'kk'; did you mean k?",
        "pipeline[1].part: top: argument 'k' is missing",
        f"pipeline[1]: {HERE}:Finder: k: 'x' is a str, expected int",
    ]


class Refusing:
    """Refuses by the name of an error."""

    def __init__(self, kind: str) -> None:
        kinds = {"extra": MissingExtra, "artefact": ArtefactError, "data": DataError, "recipe": RecipeError}
        raise kinds[kind]([kind])


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        (["extra"], MissingExtra),
        (["extra", "extra"], MissingExtra),
        (["artefact"], ArtefactError),
        (["recipe"], RecipeError),
        (["data"], RecipeError),
        (["extra", "artefact"], RecipeError),
        (["extra", "recipe"], RecipeError),
    ],
)
def test_faults_of_one_kind_are_errors_of_that_kind(kinds: list[str], error: type[RankpipeError]) -> None:
    faults = recipe.check({"stages": [{"use": f"{HERE}:Refusing", "kind": kind} for kind in kinds]})
    assert len(faults) == len(kinds)
    with pytest.raises(RankpipeError) as told:
        refuse(placed("eval/x", faults))
    assert type(told.value) is error
    assert all(f"eval/x: stages[{i}]: {HERE}:Refusing: " in str(told.value) for i in range(len(kinds)))
    refuse([])


def test_a_build_is_checked_like_a_call() -> None:
    node = {"use": f"{HERE}:Finder", "size": "big"}
    assert recipe.bind(node, "index", "build", given=("data", "folder")) == [
        f"index: {HERE}:Finder: size: 'big' is a str, expected int"
    ]
    assert recipe.bind({"use": "top"}, "index", "build") == ["index: top: cannot build"]


def test_builds_leaves_first_and_roots_paths(tmp_path: Path) -> None:
    made = recipe.build({**FINDER, "part": {"use": "top", "k": 2}}, tmp_path)
    assert made.index == tmp_path / "x"
    assert isinstance(made.part, Top)
    assert repr(recipe.pipeline([FINDER, {"use": "top", "k": 2}], tmp_path)) == "Finder >> Top(2)"


@pytest.mark.parametrize(
    ("stages", "faults"),
    [
        ([FINDER, {"use": "top"}], []),
        ([{"use": "top"}], ["p[0]: top takes Ranking, but is given Query"]),
        ([FINDER, FINDER], [f"p[1]: {HERE}:Finder takes Query, but is given Ranking"]),
        ([{"use": "single"}], ["p[0]: single is not a stage"]),
    ],
)
def test_wrong_joints_are_found_without_building(stages: list[dict[str, Any]], faults: list[str]) -> None:
    assert recipe.misjoined(stages, "p") == faults


def test_digest_is_of_the_content() -> None:
    assert recipe.digest({"a": 1, "b": 2}) == recipe.digest({"b": 2, "a": 1}) != recipe.digest({"a": 1, "b": 3})


def test_the_house_is_above_the_shelf(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: x")
    assert recipe.house(folder) == recipe.house(folder / "recipe.yaml") == tmp_path.resolve()
    assert recipe.house(tmp_path) == Path.cwd()


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1\nb: 2", r"recipe.yaml:\d: not YAML"), ("- a", "recipe.yaml:1: a recipe is a mapping")]
)
def test_unreadable_recipes_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(DataError, match=said):
        recipe.load(tmp_path)
    with pytest.raises(DataError, match="no such recipe"):
        recipe.load(tmp_path / "none")
