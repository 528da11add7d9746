"""What is learned from: lists of a run, labelled, drawn, in parts that share nothing relevant."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe import store
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.errors import DataError, RecipeError
from rankpipe.progress import listening
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.scores import ByScore, rescored
from rankpipe.train import arguments
from rankpipe.train.examples import Example, drawn
from rankpipe.train.labels import Judged, Recorded, Said, Teacher
from rankpipe.train.lists import MANY, Lists, Part
from rankpipe.train.mixture import Mixture
from rankpipe.train.negatives import Negatives
from rankpipe.train.split import apart, relevant, some, split
from rankpipe.train.teach import pool
from tests.heard import Heard

pytest.importorskip("datasets")

QRELS = st.dictionaries(
    st.sampled_from([f"q{i}" for i in range(12)]),
    st.dictionaries(st.sampled_from([f"d{i}" for i in range(15)]), st.integers(0, 2), min_size=1, max_size=3),
    min_size=2,
)


@given(QRELS, st.integers(0, 3))
def test_no_document_relevant_in_one_part_is_in_the_others_lists(qrels: dict[str, dict[str, int]], seed: int) -> None:
    run = {q: {f"d{i}": 1.0 / (i + 1) for i in range(15)} for q in qrels}
    try:
        mine, theirs = split(qrels, 0.5, seed)
    except DataError:
        return  # all hang together
    assert mine.keys().isdisjoint(theirs)
    assert mine.keys() | theirs.keys() == qrels.keys()
    for (ours, judged), others in ((apart(run, mine, [theirs]), theirs), (apart(run, theirs, [mine]), mine)):
        assert ours.keys() == judged.keys()
        assert not {d for hits in ours.values() for d in hits} & relevant(others)
        assert relevant(judged) == relevant({q: qrels[q] for q in judged})  # nothing of its own is lost


def test_a_split_is_decided_by_its_seed_and_takes_its_share() -> None:
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(40)}
    assert split(qrels, 0.25, 1) == split(qrels, 0.25, 1) != split(qrels, 0.25, 2)
    assert len(split(qrels, 0.25, 1)[1]) == 10


def test_a_split_of_what_hangs_together_is_refused() -> None:
    with pytest.raises(DataError, match="leaves a part empty"):
        split({q: {"same": 1} for q in "abcd"}, 0.5, 0)


def test_queries_of_another_collections_relevant_documents_are_left_out() -> None:
    run, kept = apart({"a": {"x": 1.0, "y": 0.5}, "b": {"x": 1.0}}, {"a": {"y": 1}, "b": {"x": 1}}, [{"t": {"x": 1}}])
    assert (run, kept) == ({"a": {"y": 0.5}}, {"a": {"y": 1}})


POOL = Example(Query("q", "?"), tuple(Doc(str(i), "") for i in range(9)), (0, 0, 0, 1, 0, 0, 0, 0, 0))


@given(st.text(max_size=3), st.booleans())
def test_the_best_document_is_in_every_list(seed: str, shuffle: bool) -> None:
    made = drawn(POOL, (2, 5), shuffle, seed)
    assert 2 <= len(made.docs) <= 5
    assert len({d.id for d in made.docs}) == len(made.docs)
    assert made == drawn(POOL, (2, 5), shuffle, seed)
    assert [d.id for d, label in zip(made.docs, made.labels, strict=True) if label] == ["3"]
    assert shuffle or [d.id for d in made.docs] == sorted(d.id for d in made.docs)


def test_lists_are_of_all_lengths_and_orders() -> None:
    made = [drawn(POOL, (2, 5), True, str(i)) for i in range(200)]
    assert {len(e.docs) for e in made} == {2, 3, 4, 5}
    assert {[d.id for d in e.docs].index("3") for e in made} == {0, 1, 2, 3, 4}


@pytest.fixture(scope="module")
def lists(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Lists:
    """Of the tiny collection: twelve documents are what each query's run has."""
    run = tmp_path_factory.mktemp("run") / "run.trec"
    made = Lists(str(tiny_path), run, split="test")
    docs = [d.id for d in made.collection.docs()][:12]
    rows = [f"{q.id} Q0 {d} {i + 1} {1 / (i + 1)} x\n" for q in made.collection.queries for i, d in enumerate(docs)]
    run.write_text("".join(rows))
    return replace(made, copies=2, length=(2, 6))


def test_lists_have_what_is_relevant_and_are_the_same_again(lists: Lists) -> None:
    part, _ = lists.parts()
    made = [*lists.examples(part)]
    assert made == [*lists.examples(part)] != [*replace(lists, seed=1).examples(part)]
    assert len(made) == 2 * len(part.qrels)
    for e in made:
        grades = lists.collection.qrels[e.query.id]
        assert e.labels == tuple(grades.get(d.id, 0) for d in e.docs)
        assert max(e.labels) == max(grades.values())
        assert {*e.relevant} == relevant({"": grades})


def test_what_is_above_those_that_are_skipped_is_not_known_by_its_place(lists: Lists) -> None:
    qrels = {f"q{i}": {"d0": 1} for i in range(20)}
    run = {q: {f"d{i}": -float(i) for i in range(8)} for q in qrels}
    in_order = replace(lists, shuffle=False, copies=1, length=(6, 6), negatives=Negatives(skip=3, depth=8))
    in_order.__dict__["collection"] = Dataset.of(
        [Doc(f"d{i}", "text") for i in range(8)], [Query(q, "?") for q in qrels], qrels
    )
    made = [[d.id for d in e.docs] for e in in_order.examples(Part(run, qrels))]
    assert {ids.index("d0") for ids in made} == {0, 1, 2, 3, 4, 5}


def test_what_the_run_missed_is_not_known_by_its_place(lists: Lists) -> None:
    """Of 30 queries, whose run finds what is drawn nowhere, and what is relevant nowhere or below its first hits."""
    docs = [Doc(f"d{i}", "text") for i in range(40)]
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(30)}
    run = {q: {f"d{i}": -float(i) for i in range(30, 34)} for q in qrels}
    below = {q: hits | ({next(iter(qrels[q])): -99.0} if i % 2 else {}) for i, (q, hits) in enumerate(run.items())}
    in_order = replace(lists, shuffle=False, copies=1, length=(9, 9), negatives=Negatives(depth=4, random=3))
    in_order.__dict__["collection"] = Dataset.of(docs, [Query(q, "?") for q in qrels], qrels)
    made = [[d.id for d in e.docs] for e in in_order.examples(Part(below, qrels))]
    assert made == [[d.id for d in e.docs] for e in in_order.examples(Part(below, qrels))]
    assert all([d for d in ids if d in run[q]] == [*run[q]] for q, ids in zip(run, made, strict=True))
    for missed in (True, False):
        places = [i for q, ids in zip(run, made, strict=True) for i, d in enumerate(ids)
                  if d not in run[q] and (d in qrels[q]) is missed]  # fmt: skip
        assert {*places} >= {0, 1, 2, 3, 4, 5}
    other = replace(in_order, seed=1)
    other.__dict__["collection"] = in_order.collection
    assert made != [[d.id for d in e.docs] for e in other.examples(Part(below, qrels))]


def test_lists_are_kept_as_arrow(lists: Lists, tmp_path: Path) -> None:
    part, held = lists.parts(0.3)
    assert part.qrels
    assert held.qrels
    node = {"use": "lists"}
    kept = lists.ensure(tmp_path, node, part)
    assert [Example.of(row) for row in kept] == [*lists.examples(part)]
    before = (tmp_path / "manifest.json").read_bytes()
    lists.ensure(tmp_path, node, part)
    assert (tmp_path / "manifest.json").read_bytes() == before
    with store.publish(tmp_path, kind="lists", recipe=node, data=store.read_manifest(tmp_path).data) as draft:
        (draft.folder / "lists.arrow").write_bytes(b"")  # of a version that wrote other columns
    assert [Example.of(row) for row in lists.ensure(tmp_path, node, part)] == [*lists.examples(part)]
    lists.ensure(tmp_path, node, held)
    assert (tmp_path / "manifest.json").read_bytes() != before


class Passing(Doc):
    """A document of which it can be told when it is gone."""


class Telling:
    """A corpus that knows how many of its documents are held, and a labeller that counts rankings."""

    place, path, count = "telling", None, 4 * MANY

    def __init__(self) -> None:
        self.given: list[ref[Doc]] = []
        self.rankings: list[int] = []

    def docs(self) -> Iterator[Doc]:
        for i in range(self.count):
            doc = Passing(f"d{i}", f"text {i}", "a title")
            self.given.append(ref(doc))
            yield doc

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:
        self.rankings.append(rankings_held())
        return Judged().of(rankings, grades)


def rankings_held() -> int:
    """How many there are."""
    return sum(type(o) is Ranking for o in gc.get_objects())


def test_neither_texts_nor_rankings_are_held_while_lists_are_drawn(lists: Lists) -> None:
    corpus, names = Telling(), [f"q{i}" for i in range(4 * MANY)]
    many = replace(lists, labels=corpus, copies=1)
    many.__dict__["collection"] = Dataset("telling", corpus, tuple(Query(q, "?") for q in names))
    run = {q: {f"d{i}": 1.0, f"d{(i + 1) % corpus.count}": 0.5} for i, q in enumerate(names)}
    part = Part(run, {q: {f"d{i}": 1} for i, q in enumerate(names)})
    made, before = many.examples(part), rankings_held()
    assert {d.contents for e in made for d in e.docs} == {f"a title text {i}" for i in range(corpus.count)}
    assert max(corpus.rankings) <= before + MANY + 1  # of a block, and the last one before it
    assert [sum(doc() is not None for doc in corpus.given) for _ in many.examples(part)] == [0] * len(names)


def test_what_is_apart_is_left_out_and_told(lists: Lists, tiny_path: Path, tmp_path: Path) -> None:
    """A collection that shares the relevant documents of q1 and q4."""
    other = shutil.copytree(tiny_path, tmp_path / "other")
    rows = (other / "qrels" / "test.tsv").read_text().splitlines(keepends=True)
    shared = [row for row in rows if row.split("\t")[0] in ("query-id", "q1", "q4")]
    (other / "qrels" / "test.tsv").write_text("".join(shared))
    every, _ = lists.parts()
    with listening(heard := Heard()):
        part, _ = replace(lists, apart=[str(other)]).parts()
    gone = relevant(open_dataset(other).qrels)
    assert gone
    assert not gone & relevant(part.qrels)
    assert not gone & {d for hits in part.run.values() for d in hits}
    queries = len(every.run) - len(part.run)
    hits = sum(len(every.run[q]) - len(hits) for q, hits in part.run.items())
    assert queries >= 2
    assert hits > 0
    [told] = heard.notices
    assert told == (
        f"{lists.data}: {queries} queries and {hits} hits of others left out, for what is relevant to queries held out "
        f"or {other}"
    )


def test_lists_are_of_the_train_judgements_unless_told(lists: Lists, tiny_path: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(tiny_path, tmp_path / "mine")
    shutil.copy(mine / "qrels" / "test.tsv", mine / "qrels" / "train.tsv")
    names = [Lists(str(mine), lists.run, split=split).collection.name for split in (None, "test", "train")]
    assert names == ["mine/train", "mine/test", "mine/train"]


def test_so_many_queries_are_the_same_ones_for_teacher_and_lists(lists: Lists) -> None:
    qrels = lists.collection.qrels
    part, _ = replace(lists, queries=3).parts()
    run, _ = lists.parts()
    assert len(part.qrels) == 3
    assert pool(run.run, qrels, 5, 3).keys() == part.qrels.keys() == some({"none": {"d": 0}} | qrels, 3).keys()
    assert pool(run.run, qrels, 5).keys() == run.run.keys()


def test_a_run_over_other_documents_is_counted_with_what_is_relevant(lists: Lists, tmp_path: Path) -> None:
    (tmp_path / "other.trec").write_text("q1 Q0 no-1 1 2 x\nq1 Q0 no-2 2 1 x\n")
    good = len(relevant({"q1": lists.collection.qrels["q1"]}))
    made = replace(lists, run=tmp_path / "other.trec")
    with pytest.raises(DataError, match=f"2 of the lists' {2 + good} documents are not in tiny/test: 'no-1', 'no-2'; "):
        list(made.examples(made.parts()[0]))


@dataclass(frozen=True)
class ById:
    """A teacher that likes large ids."""

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:
        return [{h.doc.id: float(h.doc.id.strip("d")) for h in r.hits} for r in rankings]


class Knowing(ByScore):
    """Scores "good" 1 and all else 0, as deep as it reads."""

    depth, budget = 100, Budget()

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        return [rescored(r, [float(h.doc.id == "good") for h in r.hits[: self.depth]], "knowing") for r in batch]


class Shallow(Knowing):
    """Cannot be made to read more."""

    depth = property(lambda _: 100)  # type: ignore[assignment]


def test_a_teacher_labels_what_lies_below_its_depth(lists: Lists) -> None:
    docs = [Doc("good", "text"), *(Doc(f"d{i}", "text") for i in range(120))]
    run = {"q": {doc.id: -float(i) for i, doc in enumerate(docs[1:])}}
    part = Part(run, {"q": {"good": 1}})
    stage = Knowing()
    for more in ({"labels": Teacher(stage)}, {"negatives": Negatives(teacher=Teacher(stage))}):
        many = replace(lists, copies=1, length=(200, 200), **more)
        many.__dict__["collection"] = Dataset.of(docs, [Query("q", "?")], part.qrels)
        [example] = many.examples(part)
        said = {d.id: label for d, label in zip(example.docs, example.labels, strict=True)}
        assert said == {"good": 1.0} | dict.fromkeys([f"d{i}" for i in range(100)], 0.0)
    assert stage.depth == 100
    with pytest.raises(RecipeError, match="the first 100 hits, which cannot be changed"):
        Teacher(Shallow()).of([], [])
    stage.budget = Budget(calls=3)
    with pytest.raises(RecipeError, match="Knowing: has a budget, and all hits are to be scored"):
        Teacher(stage).of([], [])


def test_negatives_are_of_some_ranks_and_no_better_than_the_relevant_ones() -> None:
    mined = Negatives(skip=1, depth=3).mined(["a", "b", "c", "d", "e"], {"e": 1, "c": 0})
    assert mined == ["b", "c", "e"]
    ranking = Ranking(Query("q", "?"), tuple(Hit(Doc(f"d{i}", ""), 9.0 - i) for i in range(6)))
    grades = [{"d3": 1, "d1": 1}]
    assert Negatives(teacher=ById()).false([ranking], grades) == [{"d4", "d5"}]
    assert Negatives(teacher=ById(), margin=-2).false([ranking], grades) == [{"d2", "d4", "d5"}]
    assert Negatives(teacher=ById(), margin=1).false([ranking], grades) == [{"d5"}]


def test_a_record_says_what_it_has(tmp_path: Path) -> None:
    ranking = Ranking(Query("q", "?"), (Hit(Doc("a", ""), 2.0), Hit(Doc("b", ""), 1.0)))
    (tmp_path / "said.trec").write_text("q Q0 b 1 7.5 x\nq Q0 z 2 1.5 x\n")
    assert Recorded(tmp_path / "said.trec").of([ranking], [{}]) == [{"b": 7.5}]
    (tmp_path / "other.trec").write_text("p Q0 b 1 7.5 x\n")
    with pytest.raises(DataError, match="no labels for 'q'"):
        Recorded(tmp_path / "other.trec").of([ranking], [{}])


def test_what_cannot_be_is_refused(lists: Lists) -> None:
    with pytest.raises(RecipeError, match="length"):
        replace(lists, length=(1, 5))
    with pytest.raises(RecipeError, match="margin"):
        Negatives(margin=0.1)
    with pytest.raises(RecipeError, match="no reranker"):
        Teacher("bm25")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="nothing to learn"):
        [*lists.examples(Part({}, {}))]


def test_a_mixture_is_of_all_its_lists_and_holds_out_the_same_of_one_collection(lists: Lists, tmp_path: Path) -> None:
    both = Mixture([lists, replace(lists, shuffle=False, copies=1)])
    mine, held = both.parts(0.3)
    alone, alone_held = lists.parts(0.3)
    assert mine.qrels == {f"{n}:{q}": grades for n in (0, 1) for q, grades in alone.qrels.items()}
    assert held.qrels == {f"0:{q}": grades for q, grades in alone_held.qrels.items()}
    assert [r.query.id for r in both.rankings(held)] == [f"0:{r.query.id}" for r in lists.rankings(alone_held)]
    kept = [Example.of(row) for row in both.ensure(tmp_path, {"use": "mixture"}, mine)]
    assert [e.docs for e in kept[: 2 * len(alone.qrels)]] == [e.docs for e in lists.examples(alone)]
    assert {e.query.id for e in kept[2 * len(alone.qrels) :]} == {f"1:{q}" for q in alone.qrels}


def test_negatives_can_be_drawn_from_the_collection(lists: Lists) -> None:
    drawn_at_random = replace(lists, negatives=Negatives(depth=0, random=5), length=(2, 20), copies=1)
    part, held = drawn_at_random.parts(0.3)
    made = [*drawn_at_random.examples(part)]
    assert made == [*drawn_at_random.examples(part)]
    for e in made:
        grades = part.qrels[e.query.id]
        negatives = [d.id for d in e.docs if d.id not in relevant({"": grades})]
        assert 0 < len(negatives) <= 5
        assert relevant(held.qrels).isdisjoint(negatives)
    both = [*replace(drawn_at_random, negatives=Negatives(depth=3, random=5)).examples(part)]
    assert sum(len(e.docs) for e in both) > sum(len(e.docs) for e in made)
    for wrong in ({"depth": 0}, {"depth": 0, "skip": 1, "random": 3}, {"random": -1}):
        with pytest.raises(RecipeError, match=r"expected 0"):
            Negatives(**wrong)


def test_a_list_has_two_labels() -> None:
    docs = tuple(Doc(str(i), "x") for i in range(6))
    pool = Example(Query("q", "x"), docs, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0))
    for seed in range(50):
        made = drawn(pool, (2, 2), True, str(seed))
        assert {*made.labels} == {0.0, 1.0}
        assert len({d.id for d in made.docs}) == 2


def test_a_curriculum_keeps_its_stages(lists: Lists, tmp_path: Path) -> None:
    easy, hard, more = (replace(lists, length=length) for length in ((2, 2), (3, 3), (4, 4)))
    mine, _ = Mixture([easy, hard, more]).parts()
    staged = Mixture([easy, hard, more], stages=[1, 2])
    assert staged.ordered
    assert not Mixture([easy]).ordered
    lengths = [len(e.docs) for e in staged.examples(mine)]
    n = len(lengths) // 3
    assert {*lengths[:n]} == {2}
    assert sorted(lengths[n:]) == [3] * n + [4] * n != lengths[n:]
    one, other = ([e.row() for e in made.examples(mine)] for made in (staged, Mixture([easy, hard, more])))
    assert one != other
    assert sorted(map(str, one)) == sorted(map(str, other))
    assert one == [e.row() for e in Mixture([easy, hard, more], [1, 2], seed=0).examples(mine)]
    assert one != [e.row() for e in Mixture([easy, hard, more], [1, 2], seed=1).examples(mine)]
    args = arguments.made({}, tmp_path, None, ordered=True)
    assert args.train_sampling_strategy == "sequential"
    assert arguments.made({}, tmp_path, None).train_sampling_strategy == "random"
    for wrong in ([], [1, 1], [3, 0], [4]):
        with pytest.raises(RecipeError, match="expected numbers that add up to the 3 sources"):
            Mixture([easy, hard, more], stages=wrong)


def test_a_mixture_that_would_learn_from_what_it_holds_out_is_refused(lists: Lists) -> None:
    with pytest.raises(RecipeError, match=r"is there 2 times with seeds \[0, 1\]"):
        Mixture([lists, replace(lists, seed=1)])
    with pytest.raises(RecipeError, match="no lists"):
        Mixture([])
