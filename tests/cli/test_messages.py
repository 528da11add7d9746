"""Small things that a command says: numbers and their nouns, what was mistaken for what, which key differs."""

import shutil
from pathlib import Path

import pytest

from rankpipe.cli import options
from rankpipe.errors import several
from tests.cli.test_cli import Rankpipe, rankpipe

__all__ = ["rankpipe"]


def test_several() -> None:
    assert [several(n, "window") for n in (0, 1, 2)] == ["0 windows", "1 window", "2 windows"]
    assert several(1, "query has", "queries have") == "1 query has"


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (None, options.DEFAULT_MEASURES),
        (["P@5 MRR"], ["P@5", "MRR"]),
        (["P@5, nDCG@10 ", "map"], ["P@5", "nDCG@10", "map"]),
        (["AP(rel=2, judged_only=True)@5 RR(rel=2)"], ["AP(rel=2, judged_only=True)@5", "RR(rel=2)"]),
        (["P.5,10"], ["P.5,10"]),
    ],
)
def test_several_measures_in_one(said: list[str] | None, asked: list[str]) -> None:
    assert options.measured(said) == asked


def test_what_was_taken_for_what(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 2.5 it\n")
    (tmp_path / "qrels.txt").write_text("q1 0 d1 2\n")
    judgements = rankpipe("eval", "qrels.txt", "--qrels", "qrels.txt", code=4).stderr
    assert "qrels.txt:1: judgements, where a run is expected; eval and compare take them with --qrels" in judgements
    beir = tiny_path / "qrels" / "test.tsv"
    assert f"{beir}:1: judgements, where a run is" in rankpipe("rerank", beir, "--data", tiny_path, code=4).stderr
    swapped = rankpipe("eval", "run.trec", "--qrels", "run.trec", code=4).stderr
    assert "run.trec:1: a run, where judgements are expected" in swapped


def test_which_key_of_a_recipe_differs(rankpipe: Rankpipe, tiny_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_path, tmp_path / "mine")
    build = ("index", "build", "words", "--data", "mine")
    rankpipe(*build, "--set", "k1=1.5")
    refused = rankpipe(*build, "--set", "b=0.3", code=6).stderr
    assert "says something else (index.k1: 1.5 there, nothing here; index.b: nothing there, 0.3 here); " in refused
    recipe = tmp_path / "words" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("1.5", "1.7"))
    again = rankpipe("index", "build", "words").stderr
    assert "words: built by another recipe (k1 changed); building it again" in again
    assert "building it again" not in rankpipe("index", "build", "words", "--force").stderr
