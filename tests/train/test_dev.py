"""Development queries: which they are, and that nothing is learned from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Query, Ranking
from rankpipe.errors import RecipeError
from rankpipe.progress import listening
from rankpipe.train.dev import Dev
from rankpipe.train.lists import Lists, Part
from rankpipe.train.mixture import Mixture
from rankpipe.train.negatives import Negatives
from rankpipe.train.split import relevant
from rankpipe.train.tuning import Tuning
from tests.heard import Heard

pytest.importorskip("datasets")


@pytest.fixture
def lists(tiny_path: Path, first_stage: Path) -> Lists:
    """All queries of the tiny collection."""
    return Lists(str(tiny_path), first_stage, length=(2, 20), split="test")


@pytest.fixture
def two(first_stage: Path, tmp_path: Path) -> Path:
    """Its run of two of them; to q8 something is relevant that is to q4, too."""
    rows = first_stage.read_text().splitlines(keepends=True)
    (tmp_path / "two.trec").write_text("".join(row for row in rows if row.split()[0] in ("q1", "q4")))
    return tmp_path / "two.trec"


def test_queries_of_a_collection_of_its_own_are_no_lists(lists: Lists, two: Path) -> None:
    dev = Dev(every=1, data=lists.data, run=two)
    heard = Heard()
    with listening(heard):
        part, _ = dev.beside(lists).parts()
    held = dev.held(lists, Part({}, {}))
    assert len(held.qrels) == len(held.rankings) == 2
    assert held.qrels.keys().isdisjoint(part.qrels)
    assert relevant(held.qrels).isdisjoint(d for hits in part.run.values() for d in hits)
    every, _ = lists.parts()
    assert every.qrels.keys() - part.qrels.keys() == {"q1", "q4", "q8"}
    told, left = heard.notices
    hits = sum(len(every.run[q]) - len(hits) for q, hits in part.run.items())
    assert left == f"{lists.data}: {hits} hits of others left out, for what is relevant to queries held out"
    assert f"3 of 8 queries of {lists.data} are development queries, or share relevant documents with them" in told
    both = dev.beside(Mixture([lists, lists], seed=3)).parts()[0]
    assert both.qrels.keys() == {f"{n}:{q}" for n in (0, 1) for q in part.qrels}


def test_a_query_of_another_name_is_the_same(lists: Lists, two: Path, tmp_path: Path, tiny_path: Path) -> None:
    """Of another collection, of which a document has the name of one that is relevant here, which says nothing."""
    held = Dev(every=1, data=lists.data, run=two).held(lists, Part({}, {}))
    every, _ = lists.parts()
    doc = min(relevant({q: grades for q, grades in every.qrels.items() if q not in held.qrels}))
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    (other / "corpus.jsonl").write_text(f'{{"_id": "{doc}", "text": "words"}}\n')
    texts = [r.query.text for r in held.rankings]
    (other / "queries.jsonl").write_text("".join(f'{{"_id": "x{i}", "text": "{t}"}}\n' for i, t in enumerate(texts)))
    judged = "".join(f"x{i}\t{doc}\t1\n" for i in range(2))
    (other / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    (tmp_path / "other.trec").write_text(f"x0 Q0 {doc} 1 1.0 x\nx1 Q0 {doc} 1 1.0 x\n")
    part, _ = Dev(every=1, data=str(other), run=tmp_path / "other.trec").beside(lists).parts()
    assert every.qrels.keys() - part.qrels.keys() == held.qrels.keys()


def test_what_is_relevant_to_them_is_not_drawn(lists: Lists, two: Path) -> None:
    dev = Dev(every=1, data=lists.data, run=two)
    drawing = replace(lists, negatives=Negatives(depth=0, random=20))
    beside = dev.beside(drawing)
    part, held = beside.parts()[0], dev.held(lists, Part({}, {}))
    assert relevant(held.qrels).isdisjoint(d.id for e in beside.examples(part) for d in e.docs)
    assert beside.checksums != drawing.checksums
    assert dev.beside(lists).checksums == lists.checksums


def test_the_same_queries_are_refused(lists: Lists, first_stage: Path) -> None:
    dev = Dev(every=1, data=lists.data, run=first_stage)
    n = len(lists.parts()[0].qrels)
    with pytest.raises(RecipeError, match=f"{n} of {n} queries .* leaves nothing to learn from; take share"):
        dev.beside(lists).parts()


def test_a_share_is_apart_anyway(lists: Lists) -> None:
    assert Dev(every=1, share=0.3).beside(lists) is lists


def test_so_many_are_drawn_from_all_sources() -> None:
    """Of 400 held-out queries of a mixture, whose first source has most: 40 are of the sources as all are."""
    rankings = [Ranking(Query(f"{n}:{i}", "?"), ()) for n, many in enumerate((300, 60, 40)) for i in range(many)]
    qrels = {r.query.id: {"d": 1} for r in rankings}
    drawn = [r.query.id for r in Dev(every=1, share=0.1, queries=40)._taken(rankings, qrels).rankings]
    counts = Counter(q[0] for q in drawn)
    assert len(drawn) == 40
    assert 24 <= counts["0"] <= 36
    assert min(counts["1"], counts["2"]) > 0
    again = Dev(every=1, share=0.1, queries=40)._taken(rankings[::-1], qrels)
    assert [r.query.id for r in again.rankings] == drawn[::-1]
    other = Dev(every=1, share=0.1, queries=40, seed=1)._taken(rankings, qrels)
    assert {*other.qrels} != {*drawn}
    assert len(Dev(every=1, share=0.1)._taken(rankings, qrels | {"0:0": {}}).rankings) == 399


def test_a_training_learns_from_other_queries(written: Any, tiny_path: Path, two: Path) -> None:
    for package in ("peft", "accelerate"):
        pytest.importorskip(package)
    tuning = Tuning(written(dev={"data": str(tiny_path), "run": str(two), "every": 2}))
    examples, held = tuning._data(tuning._arguments())
    assert held is not None
    assert {*examples["query_id"]}.isdisjoint(held.qrels)
    assert all({*row["relevant"]}.isdisjoint(relevant(held.qrels)) for row in examples)
