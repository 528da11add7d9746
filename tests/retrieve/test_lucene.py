"""Lucene through Anserini: Pyserini's own scores; after any changes those of a fresh index; whole batches only.

With a JVM; skipped where Pyserini or Java is not there. ``make test-java`` has both.
"""

import json
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from rankpipe import evaluate, java, open_dataset, to_run
from rankpipe.catalog import need
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.datasets.dataset import Held
from rankpipe.errors import ArtefactError, DataError, DiskError, MissingExtra, RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import forecast, lucene, lucenedead
from rankpipe.retrieve.anserini import LISTS, Anserini
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.index import Change
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.lucenefiles import RAM_MB, Writer
from tests.heard import Heard
from tests.retrieve.fakes import file_size_limit
from tests.retrieve.test_fields import filters_hold
from tests.retrieve.test_living import (  # noqa: F401  tests of every kind, here of this one
    Lives,
    listed,
    test_a_batch_is_searched_in_one_state,
    test_a_failed_batch_changes_nothing,
    test_a_reader_keeps_what_it_opened,
    test_one_writer_at_a_time,
)

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from rankpipe.cli import main; main()"]
Scores = dict[str, dict[str, float]]


@pytest.fixture(autouse=True, scope="module")
def jvm() -> None:
    try:
        java.find("java.lang.System")
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture
def index(tiny: Dataset, tmp_path: Path) -> Lucene:
    return Lucene.build(tiny, tmp_path / "index")


@pytest.fixture(scope="module")
def pyserini(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny collection, indexed by Pyserini: with vectors, titles and texts apart as well."""
    folder = tmp_path_factory.mktemp("pyserini")
    (folder / "corpus").mkdir()
    lines = [json.loads(line) for line in (tiny_path / "corpus.jsonl").read_text("utf-8").splitlines()]
    with open(folder / "corpus" / "docs.jsonl", "w") as f:
        for line in lines:
            title, text = line.get("title", ""), line["text"]
            f.write(json.dumps({"id": line["_id"], "contents": f"{title} {text}", "title": title, "text": text}) + "\n")
    words = ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1",
             "-storeDocvectors", "-storeRaw", "-fields", "title", "text",
             "-input", str(folder / "corpus"), "-index", str(folder / "index")]  # fmt: skip
    java.find("io.anserini.index.IndexCollection").main(words)
    return folder / "index"


def theirs(folder: Path, queries: list[Query], rm3: bool = False, **options: object) -> Scores:
    """What Pyserini's own searcher gives."""
    java.start()
    searcher = need("pyserini.search.lucene", name="lucene", extra="java").LuceneSearcher(str(folder))
    if rm3:
        searcher.set_rm3()
    found = {q.id: searcher.search(q.text, k=1000, **options) for q in queries}
    return {query: {hit.docid: hit.score for hit in hits} for query, hits in found.items()}


def same(rankings: list[Ranking], scores: Scores) -> None:
    """The same scores, of which Anserini gives four decimals, and in the same order but for ties: those it has by
    rising id, each a millionth below the one before.
    """
    for ranking in rankings:
        expected = scores[ranking.query.id]
        assert {hit.doc.id: hit.score for hit in ranking.hits} == pytest.approx(expected, rel=0, abs=6e-5)
        told = [round(expected[hit.doc.id], 4) for hit in ranking.hits]
        assert told == sorted(told, reverse=True)
    assert sum(len(r.hits) for r in rankings) > len(rankings)


def test_equals_pyserini(index: Lucene, tiny: Dataset, pyserini: Path) -> None:
    same([*index(tiny.queries)], theirs(index.manifest.path, tiny.queries))  # of our files
    same([*index(tiny.queries)], theirs(pyserini, tiny.queries))
    same([*Anserini(str(pyserini))(tiny.queries)], theirs(pyserini, tiny.queries))


def test_rm3_equals_pyserini(index: Lucene, tiny: Dataset, pyserini: Path) -> None:
    expanded = [*Lucene(index.folder, rm3=True)(tiny.queries)]
    same(expanded, theirs(pyserini, tiny.queries, rm3=True))
    same([*Anserini(str(pyserini), rm3=True)(tiny.queries)], theirs(pyserini, tiny.queries, rm3=True))
    assert listed(expanded) != listed([*index(tiny.queries)])
    other = Lucene(index.folder, rm3={"fb_terms": 2, "fb_docs": 1, "original_query_weight": 0.1})
    assert listed([*other(tiny.queries)]) != listed(expanded)
    assert Lucene(index.folder, rm3=True).search("").hits == Lucene(index.folder, rm3=True).search("zzz").hits == ()


def test_fields_equal_pyserini(tiny: Dataset, pyserini: Path, tmp_path: Path) -> None:
    boosts = {"title": 2.5, "text": 1.0}
    index = Lucene.build(tiny, tmp_path / "index", fields=boosts)
    same([*index(tiny.queries)], theirs(pyserini, tiny.queries, fields=boosts))
    other = {"text": 1.0, "contents": 0.5}
    same([*Lucene(index.folder, fields=other)(tiny.queries)], theirs(pyserini, tiny.queries, fields=other))
    same([*Lucene(index.folder, fields={})(tiny.queries)], theirs(pyserini, tiny.queries))


def test_arguments_of_a_search(index: Lucene, tiny: Dataset) -> None:
    same([*Lucene(index.folder, k1=0.9, b=0.4)(tiny.queries)], theirs(index.manifest.path, tiny.queries))
    assert listed([*Lucene(index.folder, k1=2.0)(tiny.queries)]) != listed([*index(tiny.queries)])
    with pytest.raises(RecipeError, match="title: not indexed; build the index with fields"):
        Lucene(index.folder, fields={"title": 1.0})
    with pytest.raises(RecipeError, match="k: 0 hits"):
        Lucene(index.folder, 0)


@pytest.mark.parametrize(("options", "text", "query", "found"), [
    ({"language": "de"}, "Die Häuser der Stadt", "Haus", True),
    ({}, "Die Häuser der Stadt", "Haus", False),
    ({"language": "zh"}, "信息检索", "检索", True),
    ({}, "the runner was running", "run", True),
    ({"stemmer": "none"}, "the runner was running", "run", False),
    ({"stemmer": "krovetz"}, "countries", "country", True),
    ({"stemmer": "krovetz"}, "organization", "organ", False),
    ({}, "to be or not to be", "be", False),
    ({"stopwords": False}, "to be or not to be", "be", True),
    ({"stopwords": False, "stemmer": "none"}, "to be or not to be", "be", True),
])  # fmt: skip
def test_words(options: dict[str, str], text: str, query: str, found: bool, tmp_path: Path) -> None:
    built = Lucene.build(Dataset.of([Doc("a", text), Doc("b", "other")]), tmp_path, **options)  # type: ignore[arg-type]
    assert bool(built.search(query).hits) == found
    assert built.add([Doc("c", text)]) == Change(added=1)  # by the same words
    assert len(built.search(query).hits) == 2 * found


@pytest.mark.parametrize("lives", [2, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fields", [None, {"title": 2.0, "text": 1.0}], ids=["contents", "fields"])
def test_equals_a_fresh_one(lives: int, fields: dict[str, float] | None, tmp_path: Path) -> None:
    class Here(Lives):
        make, home = staticmethod(partial(Lucene.build, fields=fields)), tmp_path

    run_state_machine_as_test(
        Here, settings=settings(max_examples=lives, stateful_step_count=8, deadline=None,
                                suppress_health_check=[HealthCheck.too_slow])
    )  # fmt: skip


@pytest.mark.parametrize("fields", [None, {"title": 2.0, "text": 1.0}], ids=["contents", "fields"])
def test_what_was_deleted_does_not_count(fields: dict[str, float] | None, tiny: Dataset, tmp_path: Path) -> None:
    docs = list(tiny.docs())
    index = Lucene.build(tiny, tmp_path / "index", fields=fields)
    index.delete(d.id for d in docs[::3])
    index.update(replace(d, text=d.text + " tides and winds") for d in docs[1::3])
    left = [*index.documents()]
    assert len(left) == len(docs) - len(docs[::3])
    fresh = Lucene.build(Dataset.of(left), tmp_path / "fresh", fields=fields)
    assert listed([*index(tiny.queries)]) == listed([*fresh(tiny.queries)])
    if not fields:
        expanded = [[*Lucene(one.folder, rm3=True)(tiny.queries)] for one in (index, fresh)]
        assert listed(expanded[0]) == listed(expanded[1])


@pytest.fixture
def left_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted documents stay in their segments also where these are small, while as many are alive."""
    monkeypatch.setattr(lucenedead, "SMALL", 0)
    monkeypatch.setattr(lucenedead, "SHARE", 1)


def close(index: Lucene, fresh: Lucene, queries: list[Query]) -> None:
    """The same hits, with the same scores to a millionth."""
    for ours, theirs in zip(index.run(queries), fresh.run(queries), strict=True):
        expected = {hit.doc: hit.score for hit in theirs.hits}
        assert {hit.doc: hit.score for hit in ours.hits} == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("left_in_place")
@pytest.mark.parametrize("options", [{}, {"passages": {"max": 8}}, {"k1": 0.0, "b": 1.0}, {"k1": 1.2, "b": 0.0}])
def test_deleted_documents_that_are_still_there_do_not_count(
    options: dict[str, Any], tiny: Dataset, tmp_path: Path
) -> None:
    chance, docs = random.Random(3), {d.id: d for d in tiny.docs()}
    index = Lucene.build(tiny, tmp_path / "index", **options)
    there, left, most = {*index._reader.names}, dict(docs), 0
    for turn in range(6):
        some = chance.sample(sorted(left), 2)
        if turn % 2:
            new = [replace(left[id], text=chance.choice([*docs.values()]).text, fields={"turn": turn}) for id in some]
            assert index.update([*new, Doc(f"new{turn}", "tides, winds and tides")]) == Change(added=1, replaced=2)
            left |= {d.id: d for d in new} | {f"new{turn}": Doc(f"new{turn}", "tides, winds and tides")}
        else:
            assert index.delete([*some, "none"]) == Change(deleted=2, absent=("none",))
            left = {id: doc for id, doc in left.items() if id not in some}
        assert there <= {*index._reader.names}, "no segment of the build was rewritten"
        dead = index.manifest.facts["dead"]
        most = max(most, dead)
        assert (lucenedead.Dead.of(index.manifest.path, index._reader).documents, len(index)) == (dead, len(left))
        assert {d.id: d for d in index.documents()} == left
        assert index.having("turn") == sum(bool(d.fields) for d in left.values())
        fresh = Lucene.build(Dataset.of([*left.values()]), tmp_path / "fresh", **options)
        close(index, fresh, tiny.queries)
        close(Lucene(index.folder), fresh, tiny.queries)
    assert most >= 6
    gone = next(id for id in docs if id not in left)
    assert index.add([docs[gone]]) == Change(added=1)
    with pytest.raises(DataError, match="1 of 1 documents are there already"):
        index.add([docs[gone]])
    index.compact()
    assert (index.manifest.facts["dead"], index.manifest.facts["segments"]) == (0, 1)
    assert not (index.manifest.path / lucenedead.FILE).exists()
    close(index, Lucene.build(Dataset.of([*index.documents()]), tmp_path / "fresh", **options), tiny.queries)


@pytest.mark.usefixtures("left_in_place")
@pytest.mark.parametrize("language", ["ar", "fa", "zh", "de"])
def test_in_any_language(language: str, tmp_path: Path) -> None:
    """Of a lengthening sign alone Arabic makes a word of no letter."""
    told = [
        "\u0640 \u0643\u062a\u0627\u0628 das Haus",
        "\u0643\u062a\u0627\u0628 \u0640 \u0640",
        "die H\u00e4user \u4e2d\u6587\u4e66",
        "\u4e2d\u6587 das",
        "Haus \u0643\u062a\u0627\u0628",
    ]
    docs = [Doc(f"d{i}", " ".join(told[: i % 5 + 1])) for i in range(12)]
    index = Lucene.build(Dataset.of(docs), tmp_path / "index", language=language)
    index.delete(["d0", "d4", "d8"])
    assert index.manifest.facts["dead"] == 3
    fresh = Lucene.build(Dataset.of([*index.documents()]), tmp_path / "fresh", language=language)
    queries = [Query(f"{i}", text) for i, text in enumerate(told)]
    close(index, fresh, queries)
    close(*(Lucene(one.folder, fields={"contents": 2.0}) for one in (index, fresh)), queries)


@pytest.mark.usefixtures("left_in_place")
def test_a_note_of_other_dead_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    index = Lucene.build(tiny, tmp_path)
    index.delete([next(iter(tiny.docs())).id])
    path = index.manifest.path / lucenedead.FILE
    path.unlink()
    with pytest.raises(ArtefactError, match=r"dead\.json says; "):
        lucenedead.Dead.of(path.parent, index._reader)


@pytest.mark.usefixtures("left_in_place")
def test_many_dead_are_merged_away(tiny: Dataset, tmp_path: Path) -> None:
    index = Lucene.build(tiny, tmp_path / "index")
    ids = sorted(d.id for d in tiny.docs())
    index.delete(ids[:2])
    assert index.manifest.facts["dead"] == 2
    index.delete(ids[2 : len(ids) // 2 + 1])
    assert index.manifest.facts["dead"] == 0
    close(index, Lucene.build(Dataset.of([*index.documents()]), tmp_path / "fresh"), tiny.queries)


@pytest.mark.usefixtures("left_in_place")
@pytest.mark.parametrize("built", [{}, {"rm3": True}, {"fields": {"title": 2.0, "text": 1.0}}])
def test_where_statistics_cannot_be_mended_nothing_dead_is_left(
    built: dict[str, Any], tiny: Dataset, tmp_path: Path
) -> None:
    index = Lucene.build(tiny, tmp_path, **built)
    index.delete([next(iter(tiny.docs())).id])
    assert index.manifest.facts["dead"] == (not built)
    with listening(heard := Heard()):
        Lucene(tmp_path, rm3=True) if not built else Lucene(tmp_path)
    assert ["rankpipe index compact removes them" in line for line in heard.notices] == [True] * (not built)


@pytest.mark.parametrize("examples", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fields", [None, {"title": 2.0, "text": 1.0}], ids=["contents", "fields"])
def test_search_everything_then_filter(
    fields: dict[str, float] | None, examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    filters_hold(partial(Lucene.build, fields=fields), examples, tmp_path_factory)


BOOKS = [
    Doc("a", "tea and coffee", fields={"year": 1999, "lang": "en", "tags": ["hot", "old"], "by": {"name": "Li"}}),
    Doc("b", "tea in cups", fields={"year": "2001", "lang": "de", "abstract": "x" * 1001, "more": float("inf")}),
    Doc("c", "tea and tea", fields={"year": 2020.5, "ok": True, "day": "2024-02-29", "lang": None, "more": -1e-300}),
    Doc("d", "a history of coffee", fields={"year": 2**60 + 1, "ok": False, "day": "2023-12-31", "more": -(10**400)}),
    Doc("e", "cups", "tea"),
]


@pytest.fixture
def books(tmp_path: Path) -> tuple[Lucene, BM25]:
    return Lucene.build(Dataset.of(BOOKS), tmp_path / "lucene"), BM25.build(Dataset.of(BOOKS), tmp_path / "bm25")


def test_filters_find_what_bm25s_find(books: tuple[Lucene, BM25]) -> None:
    seen = set()
    for where in (
        "year >= 1999", "year == 2020.5", "year == '2001'", "year > 1152921504606846976", "year <= 1152921504606846976",
        "1999 < year < 1e300", "exists(year) and not year < 2000", "tags == hot", "tags in (old, new)", "tags in ()",
        "by.name == Li or lang == de", "exists(by)", "exists(abstract)", "abstract >= x", "ok == true", "ok == 1",
        "exists(lang)", "not exists(lang)", "day < '2024-01-01'", "day >= 2024-01-01", "more < 0", "more > -1",
        "x == 1", "more >= 1e308", f"abstract == {1001 * 'x'}", f"lang <= {800 * 'z'}", f"lang >= {800 * 'd'}",
        "not (lang == en or not (year > 0))",
    ):  # fmt: skip
        ours, theirs = ([h.doc for h in one.filtered(where).search("tea coffee").hits] for one in books)
        assert {d.id: d for d in ours} == {d.id: d for d in theirs}, where
        seen.add(tuple(sorted(d.id for d in ours)))
    assert len(seen) > 10
    for long in (f"lang > {901 * 'a'}", f"lang <= {901 * 'a'}"):
        with pytest.raises(RecipeError, match="where: lang: a text of 901 bytes; Lucene compares with 900 at most"):
            books[0].filtered(long).search("tea")


def test_what_is_odd_about_a_filter_is_told_as_by_bm25(books: tuple[Lucene, BM25]) -> None:
    for where in (
        "yaer > 2000 or exists(zzz)",
        "not year >= 2000",
        "abstract == x and ok > 3 or tags == 1",
        "by == Li",
    ):
        assert books[0].told(where) == books[1].told(where) != []
    assert books[0].known_fields == books[1].known_fields != {}
    books[0].delete(["b"])
    assert books[0].told("exists(abstract)") == ["no document has a field 'abstract'"]
    assert {*books[0].field_names()} == {"year", "lang", "tags", "by", "by.name", "ok", "day", "more"}


def test_rm3_reads_what_is_found_without_a_filter(tiny: Dataset, tmp_path: Path) -> None:
    docs = [replace(d, fields={"n": n}) for n, d in enumerate(tiny.docs())]
    Lucene.build(Dataset.of(docs), tmp_path, rm3=True)
    few = {d.id for d in docs[::2]}
    expected = [[hit for hit in hits if hit[0].id in few] for hits in listed([*Lucene(tmp_path)(tiny.queries)])]
    where = f"n in ({', '.join(map(str, range(0, 20, 2)))})"
    assert listed([*Lucene(tmp_path, where=where)(tiny.queries)]) == expected
    assert sum(map(len, expected)) > len(expected)


def test_a_prebuilt_index_has_no_fields(pyserini: Path) -> None:
    with pytest.raises(RecipeError, match="where: Anserini cannot filter by fields; indexes of the kinds bm25, dense"):
        Anserini(str(pyserini)).filtered("year > 2000")


ODD = [
    Doc("with space", "the quick brown fox"),
    Doc("日本 é 😀", "naïve café 東京 😀"),
    Doc("empty", ""),
    Doc("titled", "", "Only a fox title"),
    Doc("control\x00\x01\n", "fox\x00\x01\x1f\x7f\u2028end", "a\ttitle"),
    Doc("long", "needle " + "haystack " * 11_000),
    Doc(" ", "fox " + "x" * 100_000),
    Doc("i" * 32_766, "fox"),
]


def test_odd_ids_and_texts(tmp_path: Path) -> None:
    index = Lucene.build(Dataset.of(ODD[:4]), tmp_path)
    index.add(ODD[4:])
    assert [*index.documents()] == ODD
    foxes = {d.id for d in ODD if "fox" in d.contents}
    assert {h.doc.id: h.doc for h in index.search("fox").hits} == {d.id: d for d in ODD if d.id in foxes}
    assert [h.doc for h in index.search("東京").hits] == [ODD[1]]
    assert len(index.search("needle " * 3000 + "".join(f"w{i} " for i in range(3000))).hits) == 1
    facts = index.manifest.facts
    assert (facts["documents"], facts["empty_texts"], facts["ids_with_white_space"]) == (8, 1, 4)
    assert index.update(ODD) == Change(replaced=8)
    assert index.delete([d.id for d in ODD[1:]] + ["absent"]) == Change(deleted=7, absent=("absent",))
    assert [*index.documents()] == ODD[:1]
    assert index.manifest.facts["empty_texts"] == 0


@pytest.mark.parametrize(("doc", "said"), [
    (Doc("i" * 32_767, "fox"), "an id of 32767 bytes; Lucene has 32766 at most"),
    (Doc("half", "\ud800"), "half a character"),
    (Doc("named", "fox", fields={"x" * 32_766: 1}), r"document 'named': the name of the field \"xxx.* is too long"),
])  # fmt: skip
def test_what_lucene_cannot_hold_is_refused(doc: Doc, said: str, index: Lucene) -> None:
    before = [*index.documents()]
    with pytest.raises(DataError, match=said):
        index.add([Doc("fine", "fox"), doc])
    assert [*Lucene(index.folder).documents()] == before


def test_ties_at_the_cut_go_to_the_higher_id(tmp_path: Path) -> None:
    docs = [Doc(i, "same words here") for i in ("b", "é", "a", "c", "😀")] + [Doc("z", "other"), Doc("y", "same")]
    Lucene.build(Dataset.of(docs), tmp_path)
    for k in range(1, 8):
        found = [h.doc.id for h in Lucene(tmp_path, k).search("same").hits]
        assert found == ["y", "😀", "é", "c", "b", "a"][:k]


def test_a_full_disk_changes_nothing(index: Lucene) -> None:
    before = [*index.documents()]
    with file_size_limit(20_000), pytest.raises(DiskError, match="nothing was changed"):
        index.add(Doc(f"new{i}", " ".join(f"word{j}" for j in range(i, i + 300))) for i in range(100))
    assert [*Lucene(index.folder).documents()] == before
    assert index.add([Doc("new", "fox")]) == Change(added=1)


def test_readers_while_a_writer_writes(tmp_path: Path) -> None:
    index = Lucene.build(Dataset.of([Doc(f"d{i}", "version 0") for i in range(5)]), tmp_path)
    ended, seen, faults = threading.Event(), set[str](), list[Exception]()

    def reads() -> None:
        try:
            while not ended.is_set():
                [version] = {h.doc.text for h in Lucene(tmp_path).search("version").hits}
                seen.add(version)
        except Exception as error:  # noqa: BLE001  told by the thread that waits
            faults.append(error)
        finally:
            need("jnius", name="lucene", extra="java").detach()

    readers = [threading.Thread(target=reads) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(1, 12):
        index.update(Doc(f"d{i}", f"version {n}") for i in range(5))
    ended.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert len(seen) > 1


def test_others_search_between_the_documents_of_a_build(index: Lucene, tmp_path: Path) -> None:
    """In the same process; the build waits here until they have."""
    asked, answered = threading.Event(), threading.Event()

    def searches() -> None:
        try:
            asked.wait(60)
            if index.search("fox"):
                answered.set()
        finally:
            need("jnius", name="lucene", extra="java").detach()

    class Waiting(Held):
        def docs(self) -> Iterator[Doc]:
            for doc in super().docs():
                yield doc
                asked.set()
                assert answered.wait(60)

    other = threading.Thread(target=searches)
    other.start()
    assert len(Lucene.build(Dataset("other", Waiting((Doc("a", "one"), Doc("b", "more")))), tmp_path / "other")) == 2
    other.join()


def test_a_killed_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without putting the documents again that were saved; it finds what a whole one finds."""
    docs = tuple(Doc(f"d{i}", f"fox number{i % 77} " + "dogs " * (i % 9), fields={"n": i % 5}) for i in range(230))
    (tmp_path / "docs.pickle").write_bytes(pickle.dumps(docs))
    program = f"""
import pickle
from pathlib import Path
from rankpipe.datasets import Dataset
from rankpipe.retrieve import lucene
from tests.retrieve.fakes import Deadly
lucene.SHARD = 50
docs = pickle.loads(Path({str(tmp_path / "docs.pickle")!r}).read_bytes())
lucene.Lucene.build(Dataset("docs", Deadly(docs)), Path({str(tmp_path / "index")!r}))
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    monkeypatch.setattr(lucene, "SHARD", 50)
    written, write = list[str](), Writer.put
    monkeypatch.setattr(
        Writer, "put", lambda self, doc, *more, **how: written.append(doc.id) or write(self, doc, *more, **how)
    )  # type: ignore[func-returns-value]
    index = Lucene.build(Dataset("docs", Held(docs)), tmp_path / "index")
    assert written == [d.id for d in docs[150:]]
    whole = Lucene.build(Dataset("docs", Held(docs)), tmp_path / "whole")
    assert [*index.documents()] == [*whole.documents()] == [*docs]
    queries = [Query("a", "number7 dogs"), Query("b", "fox number76")]
    assert listed(index(queries)) == listed(whole(queries))


def test_what_it_takes_is_foretold(tmp_path: Path) -> None:
    """By the command line; Java's memory is in it."""
    with open(tmp_path / "corpus.jsonl", "w") as f:
        for i in range(forecast.WORTH):
            f.write(
                json.dumps({"_id": f"d{i}", "text": f"the fox number{i % 700} sleeps over {i % 50} hedges " * 3}) + "\n"
            )
    command = ["index", "build", "index", "--data", "corpus.jsonl", "--use", "lucene", "--json"]
    made = subprocess.run([*COMMAND, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(made.stdout)
    assert told["forecast"]["memory_bytes"] > RAM_MB * 2**20
    assert 0.7 < told["forecast"]["size_bytes"] / told["size_bytes"] < 1.5
    assert "documents: about" in made.stderr


@pytest.mark.parametrize("options", [{}, {"rm3": True}, {"fields": {"title": 2, "text": 1}}])
def test_long_documents_are_found_by_their_passages(options: dict[str, object], tmp_path: Path) -> None:
    """As documents come and go it is an index of what is left; what is found are documents, each once."""
    words = ["fox", "dog", "sleeps", "runs", "over", "lazy", "quick", "brown", "hedge", "zebra"]
    docs = {f"d{i}": Doc(f"d{i}", f"{words[i % 10]} fox " * (4 + i), "t", {"n": i % 7}) for i in range(30)}
    docs["d1#0"] = Doc("d1#0", "dog runs " * 9)
    cut = {"max": 6, "overlap": 2}
    index = Lucene.build(Dataset.of([*docs.values()]), tmp_path / "index", passages=cut, **options)  # type: ignore[arg-type]
    facts = index.manifest.facts
    assert facts["passages"] > 3 * facts["documents"] == 3 * len(index) == 3 * 31
    docs |= {"d3": Doc("d3", "brown zebra " * 15), "new": Doc("new", "quick zebra " * 20, fields={"n": 1})}
    assert index.update([docs["d3"], docs["new"]]) == Change(added=1, replaced=1)
    assert index.delete(["d1", "nobody"]) == Change(deleted=1, absent=("nobody",))
    with pytest.raises(DataError, match="are there already"):
        index.add([Doc("d2", "fox")])
    del docs["d1"]
    assert {d.id: d.text for d in index.documents()} == {d.id: d.text for d in docs.values()}
    left = Dataset.of([*docs.values()])
    fresh = Lucene.build(left, tmp_path / "fresh", passages=cut, **options)  # type: ignore[arg-type]
    ours = BM25.build(left, tmp_path / "ours", passages=cut)
    assert index.known_fields == ours.known_fields
    queries = [Query("a", "zebra"), Query("b", "lazy dog"), Query("c", "fox")]
    for k in (3, 1000):
        for where in (None, "n == 1"):
            found = [[*Lucene(f, k=k, where=where)(queries)] for f in (index.folder, fresh.folder)]
            assert listed(found[0]) == listed(found[1])
            for ranking, other in zip(found[0], BM25(ours.folder, k=k, where=where)(queries), strict=True):
                assert len({h.doc.id for h in ranking.hits}) == len(ranking.hits)
                assert all(len(h.doc.text.split()) <= 6 for h in ranking.hits)
                if not options and k == 1000:
                    assert {h.doc.id for h in ranking.hits} == {h.doc.id for h in other.hits}


def test_memory_is_shared_with_java(tiny: Dataset, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from rankpipe import java, open_dataset
from rankpipe.retrieve import shelf
shelf.build(open_dataset(sys.argv[1]), Path(sys.argv[2]), {"use": "lucene"}, memory="400MB")
print(java.find("java.lang.Runtime").getRuntime().maxMemory() >> 20)
"""
    command = [sys.executable, "-c", program, ROOT / "tests" / "tiny", tmp_path / "index"]
    assert 190 <= int(subprocess.run(command, check=True, capture_output=True).stdout) <= 200
    assert Lucene(tmp_path / "index").manifest.facts["memory_bytes"] == 400 << 20
    with pytest.raises(RecipeError, match="memory: '1KB'"):
        Lucene.build(tiny, tmp_path / "little", memory="1KB")


def test_signals_stay_pythons() -> None:
    program = (
        "import os, signal; from rankpipe import java; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "java.find('java.lang.System')\n"
        "try: os.kill(os.getpid(), signal.SIGINT); [None for _ in range(10**7)]\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "interrupted\n", done.stderr
    assert done.stderr == ""


@pytest.fixture
def cached(index: Lucene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Anserini's cache, with an index of its table in it: cacm."""
    monkeypatch.setenv("ANSERINI_INDEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    entry = java.find(LISTS).get("cacm")
    place = tmp_path / "cache" / f"{entry.filename.removesuffix('.tar.gz')}.{entry.md5}"
    place.parent.mkdir()
    place.symlink_to(index.manifest.path.resolve())
    return place


def test_prebuilt_indexes_by_name(cached: Path, index: Lucene, tiny: Dataset, tmp_path: Path) -> None:
    assert listed([*Anserini("cacm")(tiny.queries)]) == listed([*index(tiny.queries)])
    done = subprocess.run([*COMMAND, "search", "prebuilt:cacm", "tides", "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["rankings"][0]["hits"], done.stderr
    with pytest.raises(RecipeError, match="no prebuilt index of Anserini's: 'msmarco-v1-pasage'; did you mean msmarco"):
        Anserini("msmarco-v1-pasage")
    with pytest.raises(
        ArtefactError, match=r"not in Pyserini's cache, and RANKPIPE_OFFLINE is set: .*msmarco-v1-passage"
    ):
        Anserini("msmarco-v1-passage")
    with pytest.raises(ArtefactError, match="no Lucene index here"):
        Anserini(str(tmp_path))


def test_a_prebuilt_index_that_cannot_be_fetched(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKPIPE_OFFLINE")
    system = java.find("java.lang.System")
    system.setProperty("https.proxyHost", "127.0.0.1")
    system.setProperty("https.proxyPort", "9")  # where nobody listens
    try:
        with pytest.raises(ArtefactError, match=r"msmarco-v1-passage: could not be fetched .*unpack it, and bring it"):
            Anserini("msmarco-v1-passage")
    finally:
        system.clearProperty("https.proxyHost")
        system.clearProperty("https.proxyPort")


def test_the_command_line(tiny_path: Path, tmp_path: Path) -> None:
    def rankpipe(*words: object, code: int = 0) -> str:
        done = subprocess.run([*COMMAND, *map(str, words)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    rankpipe("index", "build", "words", "--data", tiny_path, "--use", "lucene", "--set", "rm3=true")
    (tmp_path / "new.jsonl").write_text('{"_id": "new", "text": "green tides"}\n')
    told = json.loads(rankpipe("index", "add", "words", "--data", "new.jsonl", "--json"))
    assert (told["added"], told["documents"], told["segments"], told["dead"]) == (1, 21, 2, 0)
    assert "new" in rankpipe("search", "words", "green tides")
    assert "no document has a field 'year'" in rankpipe("search", "words", "tides", "--where", "year > 2000")
    assert "as they were written" in rankpipe("index", "verify", "words")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "published"), [("scifact", 0.6789), ("nfcorpus", 0.3218)])
def test_published_flat_figures(name: str, published: float, data_root: Path, tmp_path: Path) -> None:
    data = open_dataset(data_root / name)
    run = to_run([*Lucene.build(data, tmp_path)(data.queries)])
    assert evaluate(run, data.qrels, ["nDCG@10"]).means["nDCG@10"] == pytest.approx(published, abs=0.002)
