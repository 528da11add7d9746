"""An index after any changes is the index of what is left; whole batches or nothing; readers keep what they opened.

For every kind of index of ours that is exact: one line in :data:`KINDS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from rankpipe import open_index, store
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets.dataset import Held
from rankpipe.disk import lock
from rankpipe.errors import ArtefactError, Busy, DataError, RecipeError
from rankpipe.retrieve import living
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.fuse import Fuse
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.lucenesearch import Search
from rankpipe.retrieve.passages import Passages
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.retrieve.words import Words
from tests.retrieve.fakes import Drawn, Hashed
from tests.retrieve.models import Directions, Weights

DRAWN = "tests.retrieve.fakes:Drawn"
KINDS: dict[str, Callable[[Dataset, Path], Living]] = {
    "bm25": BM25.build,
    "dense": partial(Dense.build, model=DRAWN),
    "dense, int8, short": partial(Dense.build, model=DRAWN, store="int8", dimension=16),
    "sparse": partial(SparseIndex.build, model="tests.retrieve.models:Weights"),
    "sparse, whole": partial(SparseIndex.build, model="tests.retrieve.models:Weights", steps=100),
    "bm25, passages": partial(BM25.build, passages=Passages(max=3, overlap=1)),
    "dense, first passages": partial(Dense.build, model=DRAWN, passages={"max": 2, "score": "first"}),
    "colbert": partial(ColBERT.build, model="tests.retrieve.models:Directions"),
}
ASKED: dict[str, tuple[type[Any], str]] = {  # what a search of each kind calls, for a query or for all of them
    "bm25": (Words, "__call__"),
    "dense": (Drawn, "encode_queries"),
    "sparse": (Weights, "queries"),
    "colbert": (Directions, "query"),
    "lucene": (Search, "__call__"),
}
WORDS = ["fox", "dog", "sleeps", "runs", "over", "the", "lazy", "quick", "brown", "hedge"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
IDS = st.sampled_from([f"d{i}" for i in range(14)])
DOCS = st.dictionaries(IDS, TEXT, min_size=1, max_size=5)
QUERIES = [Query("a", "quick fox"), Query("b", "the dog sleeps over a hedge"), Query("c", "lazy lazy brown zebra")]


def listed(rankings: list[Ranking]) -> list[list[tuple[Doc, float]]]:
    return [[(h.doc, h.score) for h in r.hits] for r in rankings]


class Lives(RuleBasedStateMachine):
    """Random batches of changes; after each, the index equals one built fresh from the documents that are left."""

    make: Callable[[Dataset, Path], Index]
    home: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, str] = {}

    @initialize(docs=DOCS)
    def build(self, docs: dict[str, str]) -> None:
        self.place = self.home / str(len(list(self.home.iterdir())))
        self.index = self.make(Dataset.of([Doc(i, t) for i, t in docs.items()]), self.place)
        self.left = dict(docs)

    @rule(docs=DOCS)
    def update(self, docs: dict[str, str]) -> None:
        old = sum(i in self.left for i in docs)
        change = self.index.update(Doc(i, t) for i, t in docs.items())
        assert change == Change(added=len(docs) - old, replaced=old)
        self.left = {i: t for i, t in self.left.items() if i not in docs} | docs

    @rule(docs=DOCS)
    def add(self, docs: dict[str, str]) -> None:
        if there := [i for i in docs if i in self.left]:
            with pytest.raises(DataError, match=f"{len(there)} of {len(docs)} documents are there already"):
                self.index.add(Doc(i, t) for i, t in docs.items())
            return
        assert self.index.add(Doc(i, t) for i, t in docs.items()) == Change(added=len(docs))
        self.left |= docs

    @rule(ids=st.sets(IDS))
    def delete(self, ids: set[str]) -> None:
        change = self.index.delete(sorted(ids))
        absent = tuple(i for i in sorted(ids) if i not in self.left)
        assert change == Change(deleted=len(ids) - len(absent), absent=absent)
        self.left = {i: t for i, t in self.left.items() if i not in ids}

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert self.index.manifest.facts["segments"] == bool(self.left)

    @invariant()
    def equals_a_fresh_one(self) -> None:
        if not self.left:
            assert not hasattr(self, "index") or listed(list(self.index(QUERIES))) == [[], [], []]
            return
        assert len(self.index) == len(self.left) == self.index.manifest.facts["documents"]
        assert {d.id: d.text for d in self.index.documents()} == self.left
        fresh = self.make(Dataset.of([Doc(i, t) for i, t in self.left.items()]), self.home / "fresh")
        opened = type(fresh)(self.place)
        for k in (2, 1000):
            self.index.k = opened.k = fresh.k = k
            expected = listed(list(fresh(QUERIES)))
            assert listed(list(self.index(QUERIES))) == expected
            assert listed(list(opened(QUERIES))) == expected


@pytest.mark.parametrize("lives", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KINDS)
def test_equals_a_fresh_one(name: str, lives: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", 3)

    class Here(Lives):
        make, home = staticmethod(KINDS[name]), tmp_path

    run_state_machine_as_test(
        Here, settings=settings(max_examples=lives, stateful_step_count=12, deadline=None,
                                suppress_health_check=[HealthCheck.too_slow])
    )  # fmt: skip


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, tiny: Dataset, tmp_path: Path) -> Living:
    return KINDS[request.param](tiny, tmp_path / "index")


def test_a_reader_keeps_what_it_opened(index: Index, tiny: Dataset) -> None:
    reader = type(index)(index.folder)
    before = listed(list(reader(tiny.queries)))
    index.delete([d.id for d in list(index.documents())[::2]])
    index.add([Doc("new", "something new")])
    index.compact()
    assert listed(list(reader(tiny.queries))) == before
    assert [h.doc.id for h in reader.refresh().search("something new").hits][:1] == ["new"]


def test_a_batch_is_searched_in_one_state(index: Index, tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the index is opened again in the middle of it, as another thread may do."""
    reader = type(index)(index.folder)
    before = listed(list(reader.run(tiny.queries)))
    index.delete([d.id for d in list(index.documents())[::2]])
    index.add([Doc("new", " ".join(query.text for query in tiny.queries))])
    with monkeypatch.context() as m:
        refreshing(m, *ASKED[index.kind], reader)
        assert listed(list(reader.run(tiny.queries))) == before
    assert listed(list(reader.run(tiny.queries))) == listed(list(index.run(tiny.queries))) != before


def test_a_search_ends_by_the_model_that_it_began_with(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Dense.build(tiny, tmp_path, model=DRAWN)
    before = listed(list(reader.run(tiny.queries)))
    with store.replacing():
        Dense.build(tiny, tmp_path, model="tests.retrieve.fakes:Hashed")  # of fewer dimensions
    refreshing(monkeypatch, Drawn, "encode_queries", reader)
    assert listed(list(reader.run(tiny.queries))) == before
    made = Hashed.made
    now = [listed(list(reader.run(tiny.queries))) for _ in range(2)]
    assert Hashed.made == made + 1
    assert now == 2 * [listed(list(Dense(tmp_path).run(tiny.queries)))] != 2 * [before]


def refreshing(monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str, index: Index) -> None:
    """Have an index opened again whenever a method has been called."""
    asked = getattr(owner, name)

    def called(*told: Any) -> Any:
        made = asked(*told)
        index.refresh()
        return made

    monkeypatch.setattr(owner, name, called)


def test_a_failed_batch_changes_nothing(index: Index, tiny: Dataset) -> None:
    before, build = listed(list(index(tiny.queries))), index.manifest.build

    def broken() -> Iterator[Doc]:
        yield Doc("new", "fox")
        raise OSError("the line is cut")

    with pytest.raises(OSError, match="the line is cut"):
        index.add(broken())
    with pytest.raises(DataError, match=r"the id 'x(#0)?' is there twice"):
        index.update([Doc("x", "1"), Doc("x", "2")])
    with pytest.raises(DataError, match="the id 5 is a int, expected a str"):
        index.delete(["a", 5])  # type: ignore[list-item]
    now = type(index)(index.folder)
    assert (listed(list(now(tiny.queries))), now.manifest.build) == (before, build)
    assert index.add([Doc("new", "fox")]) == Change(added=1)


@pytest.mark.parametrize("fan", [3, pytest.param(living.FAN, marks=pytest.mark.slow)])
def test_segments_stay_few(fan: int, index: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", fan)
    seen = [len(index.segments)]
    for i in range(4 * fan):
        index.add([Doc(f"new{i}", f"document number{i}")])
        seen.append(len(index.segments))
    assert max(seen) == fan - 1  # each time that there are as many, they are merged
    assert seen.count(1) >= 4
    assert [h.doc.id for h in index.search("document number7").hits][:1] == ["new7"]
    index.delete([f"new{i}" for i in range(4 * fan - 1)])
    assert sum(len(s.dead) for s in index.segments) <= sum(map(len, index.segments))


def test_one_writer_at_a_time(index: Index) -> None:
    there = next(index.documents()).id
    with index._amending(), pytest.raises(Busy, match="another process is writing here"):
        type(index)(index.folder).delete([there])


def test_python_does_not_build_over_changes(tiny: Dataset, tmp_path: Path) -> None:
    index = BM25.build(tiny, tmp_path / "index")
    assert index.delete("tide-1") == Change(deleted=1)  # one id, not its letters
    with pytest.raises(ArtefactError, match="changed once since it was built"):
        BM25.build(tiny, index.folder)
    with pytest.raises(ArtefactError, match="changed once since it was built"):
        BM25.build(Dataset.of([Doc("a", "of other documents")]), index.folder)
    with store.replacing():
        assert len(BM25.build(tiny, index.folder)) == 20


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_batch_before_the_last_thing_that_a_build_does(
    opened: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = BM25._settled

    def late(index: BM25) -> BM25:
        BM25(index.folder).add([Doc("new", "a batch")])
        return settled(index.refresh() if opened == "after" else index)

    monkeypatch.setattr(BM25, "portion", 6)
    monkeypatch.setattr(BM25, "_settled", late)
    index = BM25.build(tiny, tmp_path / "index")
    facts = index.manifest.facts
    assert (len(index), facts["documents"], facts["segments"], facts["batches"]) == (21, 21, 1, 1)
    assert [hit.doc.id for hit in index.search("batch").hits] == ["new"]
    with pytest.raises(ArtefactError, match="changed once since it was built"):
        BM25.build(tiny, index.folder)


def test_a_build_ends_well_while_somebody_writes(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = BM25._settled

    def late(index: BM25) -> BM25:
        with lock(index.folder):
            return settled(index)

    monkeypatch.setattr(BM25, "portion", 6)
    monkeypatch.setattr(BM25, "_settled", late)
    index = BM25.build(tiny, tmp_path / "index")
    assert (len(index), index.manifest.facts["segments"]) == (20, 4)
    index.compact()
    assert (len(index), index.manifest.facts["segments"]) == (20, 1)


@pytest.mark.slow  # encodes by real models
@pytest.mark.parametrize(
    ("kind", "model", "off"),
    [(Dense, "minilm", 1e-6), (Dense, "bge-small", 0.0), (SparseIndex, "splade-tiny", 1e-6)],
    ids=["torch", "ONNX", "padded"],
)
def test_equals_a_fresh_one_but_for_the_models_rounding(
    kind: type[Dense | SparseIndex],
    model: str,
    off: float,
    data_root: Path,
    embedded: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    embedded(model)
    data = open_dataset(data_root / "scifact")
    docs, build = [*islice(data.docs(), 150)], partial(kind.build, model=model)
    fresh, grown = build(Dataset.of(docs), tmp_path / "fresh"), build(Dataset.of(docs[:101]), tmp_path / "grown")
    grown.add(docs[101:110])
    grown.add(docs[110:])
    for ours, theirs in zip(grown.run(data.queries[:30]), fresh.run(data.queries[:30]), strict=True):
        scores = {hit.doc.id: hit.score for hit in theirs.hits}
        assert {hit.doc.id: hit.score for hit in ours.hits} == pytest.approx(
            scores, rel=0, abs=off * theirs.hits[0].score
        )


def test_documents_by_their_ids(index: Index, tiny: Dataset) -> None:
    docs = {doc.id: doc for doc in tiny.docs()}
    first, second, gone, *_ = docs
    index.update([Doc(second, "another text", fields={"year": 3})])
    index.delete(gone)
    assert index.get([second, first, second]) == [Doc(second, "another text", fields={"year": 3}), docs[first]]
    assert index.get(first) == [docs[first]]
    assert index.get([]) == []
    with pytest.raises(DataError, match=f"index: 2 documents of 3 not there: '{gone}', 'zzz'"):
        index.get([first, gone, "zzz"])
    opened = open_index(str(index.folder), k=3, where="year == 3")
    assert type(opened) is type(index)
    assert {h.doc.id for h in opened.search("another text").hits} == {second}


def test_what_is_no_index_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="nothing built here"):
        open_index(tmp_path)
    with store.publish(tmp_path / "it", kind="thing", recipe={}, data=store.Data("docs", "abc")):
        pass
    with pytest.raises(ArtefactError, match="it: holds a 'thing', which is no index"):
        open_index(tmp_path / "it")


@pytest.mark.parametrize("name", ["bm25", "dense", "sparse", "colbert"])
def test_python_does_not_build_beside_others_files(name: str, tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ArtefactError, match=r"holds thesis.tex, and nothing that was built; name another folder"):
        KINDS[name](tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "recipe.yaml").write_text("systems: {a: [{use: bm25}]}\n")  # of an experiment
    with pytest.raises(ArtefactError, match=r"holds recipe.yaml, and nothing that was built; name another folder"):
        KINDS[name](tiny, tmp_path)
    (tmp_path / "recipe.yaml").write_text("data: tiny\nindex: {use: bm25}\n")
    KINDS[name](tiny, tmp_path)
    (tmp_path / "recipe.yaml").unlink()
    KINDS[name](tiny, tmp_path)  # an index is there


def test_what_an_interrupted_build_left_is_nobodys_file(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Torn(Held):
        def docs(self) -> Iterator[Doc]:
            yield from self.held
            raise KeyboardInterrupt

    docs = tuple(Doc(f"d{i}", "tea") for i in range(9))
    with pytest.raises(KeyboardInterrupt):
        BM25.build(Dataset("docs", Torn(docs)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "made"}
    assert len(BM25.build(Dataset.of(docs), tmp_path)) == 9


@pytest.mark.parametrize("name", ["bm25", "dense", "sparse", "colbert"])
def test_wrong_arguments_are_told(name: str, tiny_path: Path, tiny: Dataset, tmp_path: Path) -> None:
    for data in (str(tiny_path), tiny_path, [Doc("a", "tea")]):
        with pytest.raises(DataError, match=r"data: a \w+, expected a Dataset; rankpipe.open_dataset"):
            KINDS[name](data, tmp_path / "no")  # type: ignore[arg-type]
    index = KINDS[name](tiny, str(tmp_path / "index"))  # type: ignore[arg-type]  # as Path, here
    build: Any = index.manifest.build
    for change in (index.add, index.update):
        for docs, said in (
            ("tea", r"documents: a str, expected several of rankpipe.Doc; for example \[Doc\(id, text\)\]"),
            (Doc("a", "tea"), "documents: a Doc, expected several"),
            (tiny, r"documents: a Dataset, expected several of rankpipe.Doc; take its docs\(\)"),
            (None, "documents: a NoneType"),
            ([Doc("new", "tea"), ("b", "tea")], r"document 2: a tuple, expected a rankpipe.Doc: Doc\(id, text\)"),
            ({"a": "tea"}, "document 1: a str"),
        ):
            with pytest.raises(DataError, match=said):
                change(docs)  # type: ignore[arg-type]
    for ask in (index.delete, index.get):
        with pytest.raises(DataError, match="ids: a int, expected a list of str"):
            ask(5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the question 5 is a int, expected a str"):
        index.search(5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="document 1: a str, expected a rankpipe"):
        Dataset.of(["tea"])  # type: ignore[list-item]
    assert type(index)(str(index.folder)).manifest.build == build


def test_a_search_has_its_own_k_and_filter(index: Index, tiny: Dataset) -> None:
    index.update([Doc(doc.id, doc.text, doc.title, {"n": n}) for n, doc in enumerate(tiny.docs())])
    text, whole = tiny.queries[0].text, index.search(tiny.queries[0].text)
    assert len(whole.hits) > 3
    assert index.search(text, k=2).hits == whole.hits[:2]
    assert index.search(text, k=2, where="n >= 10").hits == index.filtered("n >= 10").search(text).hits[:2]
    assert Fuse(index, index, k=4).search(text, k=2, where="n >= 10").hits[0].doc.fields["n"] >= 10
    assert (index.where, index.k, len(index.search(text).hits)) == (None, 1000, len(whole.hits))
    assert type(index)(index.folder, k=1).search(text, k=3).hits == whole.hits[:3]
    with pytest.raises(RecipeError, match="where: a dict; expected a text, such as 'year >= 2019"):
        index.search(text, where={"n": 10})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="k: 0 hits; expected 1 or more"):
        index.search(text, k=0)
