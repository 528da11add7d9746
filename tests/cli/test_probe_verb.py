"""probe as a user types it."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import Rankpipe, rankpipe

__all__ = ["rankpipe"]
FAKE = ("--use", "listwise", "--set", "lm={use: fake, noise: 1}", "--set", "plan={use: sliding, size: 4, step: 2}")


def test_probe(rankpipe: Rankpipe, tiny_path: Path) -> None:
    rankpipe("index", "build", "words", "--data", tiny_path)
    rankpipe("search", "words", "--data", tiny_path, "--out", "a.trec")
    first = ("probe", "a.trec", "--data", tiny_path)
    made = json.loads(rankpipe(*first, *FAKE, "--shuffles", 3, "--json").stdout)
    assert made["batch"]["queries"] == 8
    assert (made["batch"]["unlike"], made["batch"]["unlike_windows"]) == ([], [])
    assert made["batch"]["windows"] >= 8
    position = made["position"]
    assert (position["shuffles"], position["seed"]) == (3, 0)
    assert position["tau"]["low"] <= position["tau"]["mean"] <= position["tau"]["high"]
    assert position["tau"]["mean"] == pytest.approx(sum(q["tau"] for q in position["queries"]) / 8)
    assert position["tau"]["mean"] < 1
    told = rankpipe(*first, *FAKE, "--sample", 3, "--depth", 6).stdout
    for text in (
        "0 of 3 queries in another order, 0 of ",
        "5 shuffles of the hits of 3 queries",
        "Kendall's tau",
        "5  ",
    ):
        assert text in told
    assert "its order" in rankpipe("probe", code=2).stdout
    for words, said, code in (
        (("--use", "top", "--set", "k=2"), "drops hits", 2),
        (("--offline", "--cache", "c.sqlite", *FAKE), "can't be replayed", 2),
        (("--use", "bm25", "--set", "index=words"), "a retriever", 2),
    ):
        assert said in rankpipe(*first, *words, code=code).stderr, words
