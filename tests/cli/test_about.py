"""What ``rankpipe ls NAME`` says of everything that has a name."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankpipe import recipe
from rankpipe.catalog import CATALOG, EXTRAS
from rankpipe.cli import about, app, house
from rankpipe.rerank.features import described
from rankpipe.retrieve.passages import Passages

assert house.ls  # registers it
POINTER = re.compile(r"\b[Ss]ee :?[`A-Za-z]")  # to a place that the reader of a terminal does not have


def said_of(name: str) -> str:
    made = CliRunner().invoke(app, ["ls", name])
    assert made.exit_code == 0, made.output
    return made.stdout


@pytest.mark.parametrize("name", CATALOG)
def test_every_argument_of_every_component_is_described(name: str) -> None:
    told = about.component(name)
    arguments = [a for part in ("arguments", "index", "fit") for a in told.get(part, [])]
    assert {a["name"]: a["about"] for a in arguments if len(a["about"]) < 8 or POINTER.search(a["about"])} == {}
    assert "self" not in {a["name"] for a in arguments}
    assert not POINTER.search(told["documentation"])
    assert len(told["documentation"]) > 20
    assert " at 0x" not in str(told)


def test_only_what_makes_a_folder_has_arguments_for_it() -> None:
    assert {name for name in CATALOG if "fit" in about.component(name)} == {"ltr"}
    assert {name for name in CATALOG if "index" in about.component(name)} == {
        "bm25", "lucene", "dense", "sparse", "colbert", "milvus",
    }  # fmt: skip
    assert "rankpipe fit" not in said_of("listwise")
    assert recipe.bind({"use": "listwise"}, "", method="fit") == ["listwise: cannot fit"]


def test_passages_and_other_names_of_indexes_have_a_page() -> None:
    assert {a["name"] for a in about.component("passages")["arguments"]} == {f.name for f in fields(Passages)}
    assert "how an index cuts long documents" in said_of("passages")
    guide = (Path(__file__).parents[2] / "docs" / "guide-indexes.md").read_text("utf-8")
    for f in fields(Passages):
        default = {True: "true", None: "none", "max": "`max`"}.get(f.default, f.default)
        assert f"| `passages.{f.name}` | {default} |" in guide
    assert "makes an index of the kind dense" in said_of("faiss")
    assert "efSearch" in said_of("faiss")
    late = said_of("late")
    assert "late: a vector for each token" in late
    assert "makes an index of the kind colbert" in late
    assert "candidates" in late


def test_what_classes_share_is_said_of_each() -> None:
    for name in ("listwise", "first", "icr"):
        assert "windows that the budget did not allow" in about.component(name)["documentation"]
    for name in ("hf", "vllm"):
        [thinking] = [a for a in about.component(name)["arguments"] if a["name"] == "thinking"]
        assert "to think first" in thinking["about"]


def test_functions_are_no_arguments_of_a_recipe() -> None:
    names = {a["name"] for a in about.component("manners")["arguments"]}
    assert ("tries" in names, names & {"sleep", "chance"}) == (True, set())
    [manners] = [a for a in about.component("http")["arguments"] if a["name"] == "manners"]
    assert manners["default"].startswith("Manners(parallel=8,")


@pytest.mark.parametrize("name", described())
def test_a_feature_has_a_page(name: str) -> None:
    said = said_of(name)
    assert f"The feature {name} of ltr" in said
    assert described()[name] in said


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_has_a_page(name: str) -> None:
    said = said_of(name)
    assert f"pip install 'rankpipe[{name}]'" in said
    assert all(module in said for module in EXTRAS[name])
    assert all(part in said for part, entry in CATALOG.items() if entry.extra == name)


def test_a_name_that_is_nearly_one() -> None:
    made = CliRunner().invoke(app, ["ls", "coverd"])
    assert made.exit_code == 4
    assert "did you mean covered" in made.stderr
