"""A filtered search is a search for everything, filtered afterwards: the same documents in the same order, scores too.

For every kind of index of ours that is exact (``KINDS`` of test_living), and for Lucene (test_lucene); what FAISS finds
has its recall.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankpipe import recipe
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import DataError, RecipeError
from rankpipe.retrieve import approximate, fields, living, nearest
from rankpipe.retrieve import segment as segments
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.docs import Docs, write_docs
from rankpipe.retrieve.fields import LONG, MANY, Fields
from rankpipe.retrieve.fuse import Fuse
from rankpipe.retrieve.index import Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.parts import Part
from rankpipe.stage import Top
from rankpipe.where import And, Equals, Exists, Filter, In, Not, Or, Range
from tests.retrieve.fakes import Hashed, Listed
from tests.retrieve.fields import drawn, field
from tests.retrieve.test_approximate import made, shared
from tests.retrieve.test_living import KINDS, QUERIES, WORDS

TEXTS = ["", "a", "b", "é", "1", "true", '"]', "Z", "\0", "\uffff", "😀", *((LONG + 1) * c for c in "ab")]
VALUES = st.sampled_from([0, 1, 2, 2.5, -3, 2**60, float(2**60), True, False, *TEXTS])
HELD = st.none() | VALUES | st.lists(VALUES, max_size=3) | st.just({}) | st.just(float("nan"))
SOME = st.dictionaries(
    st.sampled_from(["a", "b", "a b", "aa"]), HELD | st.dictionaries(st.sampled_from("xy"), HELD), max_size=3
)
NAMES = st.sampled_from(["a", "b", "a b", "aa", "a.x", "b.y", "none"])
NUMBERS = st.sampled_from([-3, 0, 1.5, 2, 2**60])
BOUNDS = NUMBERS | st.sampled_from("aZ\uffff")
RANGES = st.builds(Range, NAMES, gte=NUMBERS, lt=NUMBERS) | st.builds(Range, NAMES, gt=BOUNDS)
LEAVES = RANGES | st.builds(Exists, NAMES) | st.builds(Equals, NAMES, VALUES) | st.builds(In, NAMES, st.lists(VALUES))
FILTERS = st.recursive(
    LEAVES,
    lambda part: st.builds(Not, part) | st.builds(And, st.tuples(part, part)) | st.builds(Or, st.tuples(part, part)),
    max_leaves=5,
)


def values(held: dict[str, Any], path: str) -> Iterator[Any]:
    """The values of a field; the oracle's own way to them."""
    for name, value in held.items():
        if name == path:
            yield from (v for v in (value if isinstance(value, list) else [value]))
        elif isinstance(value, dict) and path.startswith(name + "."):
            yield from values(value, path.removeprefix(name + "."))


def short(value: object) -> bool:
    """Whether it is compared at all."""
    return not isinstance(value, str) or len(value) <= LONG


def meets(held: dict[str, Any], where: Filter) -> bool:
    """What a filter means, document by document."""
    if isinstance(where, Not):
        return not meets(held, where.part)
    if isinstance(where, And):
        return (any if isinstance(where, Or) else all)(meets(held, part) for part in where.parts)
    assert isinstance(where, Exists | Equals | In | Range)
    there = [v for v in values(held, where.field) if v is not None and v == v and v != {}]
    if isinstance(where, Exists):
        return bool(there)
    there = [v for v in there if short(v)]

    def kind(value: object) -> object:
        return bool if isinstance(value, bool) else str if isinstance(value, str) else float

    if isinstance(where, Range):
        alike = [v for v in there if not isinstance(v, dict) and kind(v) is kind(where.values[0])]
        alike = [v for v in alike if kind(v) is not bool]
        return any(
            (where.gte is None or v >= where.gte) and (where.gt is None or v > where.gt)
            and (where.lt is None or v < where.lt) and (where.lte is None or v <= where.lte)
            for v in alike
        )  # fmt: skip
    return any(kind(v) is kind(w) and v == w for v in there for w in where.values)


def listed(rankings: list[Ranking], held: dict[str, Any] | None = None, where: Filter | None = None) -> Any:
    """Ids and scores; of documents that meet a condition, if there is one."""
    return [
        [(h.doc.id, h.score) for h in r.hits if where is None or meets((held or {})[h.doc.id], where)] for r in rankings
    ]


@given(st.lists(SOME, min_size=1, max_size=6), FILTERS)
def test_columns_are_the_fields(
    tmp_path_factory: pytest.TempPathFactory, held: list[dict[str, Any]], where: Filter
) -> None:
    folder = tmp_path_factory.mktemp("docs")
    docs = [Doc(str(i), "text", fields=one) for i, one in enumerate(held)]
    assert list(write_docs(docs, Part(folder))) == docs
    assert repr(list(Docs(folder))) == repr(docs)  # not a number is nothing's equal
    columns = Fields(folder, len(docs))
    assert columns.mask(where).tolist() == [meets(one, where) for one in held]
    assert {*columns.names} == {n for one in held for f, v in one.items() for n, _ in fields.flat(f, v)}
    assert (folder / "fields").exists() == bool([*columns.names])
    assert not (folder / "fields.bin").exists()


DOCS = st.dictionaries(
    st.sampled_from([f"d{i}" for i in range(20)]),
    st.tuples(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), SOME),
    min_size=1,
    max_size=8,
)


def filters_hold(make: Callable[[Dataset, Path], Index], examples: int, folders: pytest.TempPathFactory) -> None:
    """Of an index after any changes, with any filters."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(DOCS, min_size=1, max_size=3),
        st.sets(st.sampled_from([f"d{i}" for i in range(8)])),
        st.lists(FILTERS, min_size=1, max_size=3),
    )
    def holds(batches: list[dict[str, tuple[str, dict[str, Any]]]], doomed: set[str], wanted: list[Filter]) -> None:
        folder = folders.mktemp("index")
        first, *more = [[Doc(i, t, fields=f) for i, (t, f) in batch.items()] for batch in batches]
        index = make(Dataset.of(first), folder)
        for batch in more:
            index.update(batch)
        index.delete(doomed)
        for _ in range(2):  # and once more when compacted
            held = {d.id: dict(d.fields) for d in index.documents()}
            everything = list(index(QUERIES))
            for where in wanted:
                filtered = index.filtered(str(where))
                for k in (1, 3, 1000):
                    filtered.k = k
                    expected = [hits[:k] for hits in listed(everything, held, where)]
                    assert listed(list(filtered(QUERIES))) == expected
                assert listed(list(type(index)(folder, where=where)(QUERIES))) == listed(everything, held, where)
            assert listed(list(index(QUERIES))) == listed(everything)
            index.compact()

    holds()


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KINDS)
def test_search_everything_then_filter(
    name: str, examples: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    filters_hold(KINDS[name], examples, tmp_path_factory)


@pytest.fixture
def books(tmp_path: Path) -> BM25:
    docs = [
        Doc("a", "tea and coffee", fields={"year": 1999, "lang": "en", "tags": ["hot", "old"], "by": {"name": "Li"}}),
        Doc("b", "tea in cups", fields={"year": "2001", "lang": "de", "abstract": "x" * (LONG + 1)}),
        Doc("c", "tea and tea", fields={"year": 2020.0, "tags": [1.5] * (MANY + 1), "lang": None, "odd": float("nan")}),
    ]
    return BM25.build(Dataset.of(docs), tmp_path / "books")


def found(index: Living, where: str) -> str:
    return "".join(sorted(h.doc.id for h in index.filtered(where).search("tea").hits))


def test_in_words(books: BM25) -> None:
    for where, ids in {
        "year == 2020": "c",
        "exists(odd)": "",
        "year >= 1999": "ac", "year == 2001": "", "year == '2001'": "b", "tags == hot": "a", "exists(tags)": "ac",
        "by.name == Li": "a", "exists(by)": "a", "exists(lang)": "ab", "not exists(lang)": "c", "lang != en": "bc",
        "exists(abstract)": "b", "tags == 1.5": "", "lang < 'e'": "b", f"lang < {(LONG + 1) * 'e'}": "b",
        "1999 < year <= 2020": "c",
        "lang in (en, de) and not (year > 1900)": "b",
    }.items():  # fmt: skip
        assert found(books, where) == ids, where


def test_what_is_odd_is_told(books: BM25) -> None:
    assert books.told("lang in (en, fr) and exists(by.name)") == []
    assert books.told("yaer > 2000 or exists(zzz)") == [
        "no document has a field 'yaer'; did you mean year?",
        "no document has a field 'zzz'",
    ]
    assert books.told("not year >= 2000") == ["'year' is a text in 1 document, which does not meet year >= 2000"]
    assert books.told("year in (1999, '2001')") == []
    assert books.told("abstract == x or tags == 1.5 or tags == 1.5") == [
        "'abstract' is a value too long or too deep to compare in 1 document, which does not meet abstract == \"x\"",
        "'tags' is a text in 1 document, which does not meet tags == 1.5",
        "'tags' is a value too long or too deep to compare in 1 document, which does not meet tags == 1.5",
    ]
    books.delete(["b"])
    assert books.told("year >= 2000") == []
    assert books.told("exists(abstract)") == ["no document has a field 'abstract'"]


def test_filters_add_up_and_leave_the_index_as_it_is(books: BM25) -> None:
    late = books.filtered("year > 1000")
    assert found(late, "lang == en") == "a"
    assert found(BM25(books.folder, where="year > 1000"), "lang != en") == "c"
    assert (found(books, "not lang == xx"), found(late, "not lang == xx")) == ("abc", "ac")
    assert books.where is None
    late.add([Doc("d", "tea", fields={"year": 2024})])  # also through a filtered one
    assert [h.doc.id for h in late.search("tea").hits] == ["c", "d", "a"]
    assert books.refresh().search("tea").hits == BM25(books.folder).search("tea").hits


def test_filters_are_remembered_but_not_for_ever(books: BM25, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MASKS", 2)
    [segment] = books.segments
    for i in (1, 2, 3, 3):
        found(books, f"year > {i}")
    assert [str(where) for where in segment._masks] == ["year > 3"]
    assert segment.allowed(Filter.of("year > 3")) is segment.allowed(Range("year", gt=3))
    monkeypatch.setattr(fields, "DECODED", 2)
    segment.fields._decoded = {}
    for where in ("lang < x", "year > 5", "year > 'a'", "year > 6"):
        found(books, where)
    assert [*segment.fields._decoded.values()] == [["2001"], [1999, 2020]]


def test_fields_come_back(books: BM25) -> None:
    kept = {d.id: d.fields for d in books.documents()}
    assert kept["a"] == {"year": 1999, "lang": "en", "tags": ["hot", "old"], "by": {"name": "Li"}}
    assert books.search("cups").hits[0].doc.fields["lang"] == "de"
    with pytest.raises(DataError, match=r"document 1 \('x'\): its fields are no JSON: Object of type bytes"):
        books.add([Doc("x", "tea", fields={"raw": b"x"})])


def test_pipelines_and_fusion_pass_it_on(books: BM25, tmp_path: Path) -> None:
    other = Dense.build(Dataset.of(list(books.documents())), tmp_path / "other", model="tests.retrieve.fakes:Hashed")
    both = Fuse(books, other >> Top(5))
    assert [h.doc.id for h in both.filtered("year == 1999").search("tea").hits] == ["a"]
    [ranking] = (both >> Top(1)).filtered("lang == de")([Query("q", "tea")])
    assert [h.doc.id for h in ranking.hits] == ["b"]
    assert [h.doc.id for h in Fuse(books, other, where="lang == de").search("tea").hits] == ["b"]
    assert len(both.search("tea").hits) == 3
    kinds = "bm25, dense, sparse, colbert, lucene, milvus"
    cannot = f"where: Listed cannot filter by fields; indexes of the kinds {kinds} can"
    with pytest.raises(RecipeError, match=f"retrievers.1.: {cannot}"):
        Fuse(books, Listed({}), where="year == 1999")
    with pytest.raises(RecipeError, match=cannot):
        (Listed({}) >> Top(1)).filtered("year == 1999")
    with pytest.raises(RecipeError, match="where: 'year': at the end: expected one of"):
        BM25(books.folder, where="year")


def test_in_a_recipe(books: BM25) -> None:
    tree = {"use": "fuse", "where": "lang == de", "retrievers": [
        {"use": "bm25", "index": "books", "where": "exists(lang)"}, {"use": "bm25", "index": "books"},
    ]}  # fmt: skip
    assert recipe.check(tree) == []
    assert [h.doc.id for h in recipe.build(tree, books.folder.parent).search("tea").hits] == ["b"]
    tree["retrievers"][1] = {"use": "run", "data": "x", "path": "y"}  # type: ignore[index]
    [fault] = recipe.check(tree)
    assert fault.startswith("fuse: retrievers[1]: where: RunFile cannot filter by fields")
    tree["retrievers"][1] = {"use": "bm25", "index": "books", "where": "lang =="}  # type: ignore[index]
    [fault] = recipe.check(tree)
    assert fault.startswith("retrievers[1]: bm25: where: 'lang ==': at the end: expected a value")


def test_a_model_is_loaded_once_for_all_filters(books: BM25, tmp_path: Path) -> None:
    Dense.build(Dataset.of(list(books.documents())), tmp_path / "other", model="tests.retrieve.fakes:Hashed")
    index, before = Dense(tmp_path / "other"), Hashed.made
    for year in range(5):
        index.filtered(f"year > {year}").search("tea")
    assert Hashed.made == before + 1


@pytest.mark.parametrize("passages", [None, {"max": 3}])
@given(batches=st.lists(DOCS, min_size=1, max_size=3), doomed=st.sets(st.sampled_from([f"d{i}" for i in range(8)])))
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
def test_fields_of_an_index_are_counted(
    passages: Any, tmp_path_factory: pytest.TempPathFactory, batches: list[dict[str, Any]], doomed: set[str]
) -> None:
    first, *more = [[Doc(i, t, fields=f) for i, (t, f) in batch.items()] for batch in batches]
    index = BM25.build(Dataset.of(first), tmp_path_factory.mktemp("index"), passages=passages)
    for batch in more:
        index.update(batch)
    index.delete(doomed)
    held = [dict(d.fields) for d in index.documents()]
    names = {name for one in held for field, value in one.items() for name, _ in fields.flat(field, value)}
    told = index.known_fields
    assert {name: counts["documents"] for name, counts in told.items()} == {
        name: sum(meets(one, Exists(name)) for one in held) for name in sorted(names)
    }
    for name, counts in told.items():
        for kind, alike in {"text": str, "boolean": bool}.items():
            having = sum(any(isinstance(v, alike) and short(v) for v in values(one, name)) for one in held)
            assert counts.get(kind, 0) == having


class Named(BM25):
    """Counts how often the names of all fields are read."""

    read = 0

    def field_names(self) -> Iterator[str]:
        self.read += 1
        return super().field_names()


def test_names_are_read_once(tmp_path: Path) -> None:
    """However many fields are objects; what is in one has its name and a dot before its own, nothing else."""
    docs = [Doc(f"d{i}", "tea", fields={"by": {f"p{i}": {"n": i}}, "by-": {"x": 1}, "by/": 2}) for i in range(20)]
    BM25.build(Dataset.of(docs), tmp_path)
    index = Named(tmp_path)
    told = index.known_fields
    assert index.read == 1
    assert [name for name, kinds in told.items() if "object" in kinds] == [
        "by",
        "by-",
        *sorted(f"by.p{i}" for i in range(20)),
    ]
    assert index.told("by.p7 == 1") == ["'by.p7' is an object, compare what is in it: by.p7.n"]


@pytest.mark.parametrize("store", ["float32", "int8", "binary"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
def test_few_are_looked_up_and_not_passed_over(
    share: float, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "ROWS", (7, 50))
    vectors, queries = drawn(3000), drawn(20, seed=3)
    searched = field(tmp_path, vectors, store)
    alive = np.random.default_rng(5).random(3000) < share
    chosen = np.flatnonzero(alive)
    among = approximate.Exact(searched).among(alive, 10).search(queries, 10)
    for query, (places, scores) in zip(queries, among, strict=True):
        assert alive[places].all()
        assert scores.tolist() == searched.scores(query, places).tolist()
        if store != "binary":
            assert (places.tolist(), scores.tolist()) == tuple(a.tolist() for a in searched.best(query, chosen, 10))


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF32,Flat", "IVF16_HNSW8,SQ8", "PCA28,SQ8"])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_faiss_keeps_its_recall(factory: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "cores", lambda: 1)
    monkeypatch.setattr(approximate, "FEW", 0)
    monkeypatch.setattr(approximate, "LOOKS", 0)
    searched = field(tmp_path, drawn(4000))
    whole = made(searched, tmp_path, factory)
    alive = np.random.default_rng(7).random(4000) < share
    among = whole.among(alive, 10)
    assert isinstance(among, approximate.Faiss)
    assert shared(among.field, among, 10) >= shared(searched, whole, 10) - 0.03
    assert all(alive[places].all() for places, _ in among.search(drawn(5, seed=4), 10))
    assert whole.search(drawn(5, seed=4), 10)[0][0].tolist() == whole.search(drawn(5, seed=4), 10)[0][0].tolist()
    assert whole.field.alive is None


def test_the_rule_for_exact_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "cores", lambda: 1)
    whole = made(field(tmp_path, drawn(4000)), tmp_path, "Flat")

    def way(selected: int, k: int) -> str:
        return type(whole.among(np.arange(4000) < selected, k)).__name__

    monkeypatch.setattr(approximate, "FEW", 100)
    monkeypatch.setattr(approximate, "LOOKS", 2)
    assert (way(100, 1), way(0, 1)) == ("Exact", "Exact")
    assert way(800, 1) == "Faiss"  # of 45 documents times 5, twice: 450
    assert way(400, 1) == "Exact"  # ... times 10: 900
    assert way(800, 20) == "Exact"  # of 120 documents times 5, twice: 1200
    whole.device = "cuda"
    monkeypatch.setattr(approximate, "GPU_MOST", 200)
    assert way(800, 1) == "Exact"  # FAISS would have to find 225
    monkeypatch.setattr(approximate, "GPU_MOST", 300)
    assert way(800, 1) == "Faiss"


def test_colbert_proposes_among_those_that_meet_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankpipe.retrieve.late.LEAST", 100)
    words = np.random.default_rng(0).integers(60, size=(600, 8))
    docs = [Doc(f"d{i}", " ".join(f"w{w}" for w in row), fields={"n": i}) for i, row in enumerate(words)]
    index = ColBERT.build(Dataset.of(docs), tmp_path, model="tests.retrieve.models:Directions")
    assert index.segments[0].codec
    queries = [Query(str(i), f"w{i} w{i + 7} w{i + 30}") for i in range(20)]
    few = [ColBERT(tmp_path, where="n < 50", candidates=c, probes=1) for c in (60, None)]  # no more than the candidates
    assert listed(list(few[0](queries))) == listed(list(few[1](queries)))
    for where in ("n < 50", "n < 200", "n >= 0"):
        exact = listed(list(ColBERT(tmp_path, k=10, where=where)(queries)))
        near = listed(list(ColBERT(tmp_path, k=10, candidates=60, probes=2, where=where)(queries)))
        assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(near, exact, strict=True)]) > 0.8
        assert all(int(i[1:]) < {"n < 50": 50, "n < 200": 200}.get(where, 600) for one in near for i, _ in one)


def test_an_index_from_before_fields_opens(books: BM25, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its documents have none, which is told."""
    plain = BM25.build(Dataset.of([Doc(d.id, d.text) for d in books.documents()]), tmp_path / "plain")
    assert not [*plain.manifest.path.rglob("fields*")]
    assert b"metadata" not in next(plain.manifest.path.rglob("docs.jsonl")).read_bytes()
    assert found(plain, "exists(year)") == ""
    assert plain.told("exists(year)") == ["no document has a field 'year'"]
    assert listed([plain.search("tea")]) == listed([books.search("tea")])
