"""An index built in shards finds what one built at once finds, whoever builds and searches it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from rankpipe import builds, store
from rankpipe.catalog import find
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.engine import Local
from rankpipe.errors import ArtefactError, DataError, RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import embed, forecast, living, shards, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.docs import lean
from rankpipe.retrieve.encode import Encoder
from rankpipe.retrieve.encoded import Model
from rankpipe.retrieve.fuse import Fuse
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.shards import Spread
from rankpipe.stage import Retriever
from rankpipe.trec import write_run
from tests.engines import Others
from tests.heard import Heard
from tests.retrieve.fakes import Drawn, Listed, few_files

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
BM = {"use": "bm25"}
KINDS: list[dict[str, Any]] = [
    BM,
    {"use": "dense", "model": "tests.retrieve.fakes:Drawn", "store": "int8"},
    {"use": "sparse", "model": "tests.retrieve.models:Weights"},
    {"use": "colbert", "model": "tests.retrieve.models:Directions", "bits": 16},
]
WORDS = [
    "ash",
    "birch",
    "box",
    "elm",
    "fir",
    "holly",
    "larch",
    "lime",
    "maple",
    "oak",
    "pine",
    "rowan",
    "spruce",
    "yew",
]


class Stopped(Others):
    """Is interrupted when three are done."""

    def map(self, do: Callable[[I], O], items: Iterable[I]) -> Iterator[O]:
        for number, made in enumerate(super().map(do, items)):
            if number == 3:
                raise KeyboardInterrupt
            yield made


class Fickle(Dense):
    """Finds another backend the fastest each time it is loaded, if none is named."""

    backends: ClassVar[Iterator[int]] = count()

    @classmethod
    def load(cls, recipe: dict[str, Any]) -> Model[Encoder]:
        backend = (recipe["model_options"] or {}).get("backend") or f"fast-{next(cls.backends)}"
        made = Drawn()
        made.identity = backend
        return Model(made, backend, {"backend": backend})


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Ninety documents, of which some have equal scores."""
    texts = [" ".join(WORDS[i * j % 14] for j in range(1, 3 + i % 9)) for i in range(90)]
    return Dataset.of([Doc(f"d{i * 7 % 90:02}", text) for i, text in enumerate(texts)])


QUERIES = [Query(f"q{i}", f"{WORDS[i]} {WORDS[i * 3 % 14]}") for i in range(14)] + [Query("none", " ")]


def opened(folder: Path, k: int = 20) -> Living:
    made: Living = find(store.read_manifest(folder).kind)(folder, k=k)
    return made


def contents(index: Living) -> dict[str, tuple[int, str]]:
    """Checksums of the files of an index, but for what is noted of its making."""
    return {name: told for name, told in index.manifest.files.items() if not name.endswith(".json")}


def written(rankings: Iterable[Ranking], path: Path) -> bytes:
    write_run(path, list(rankings), tag="t")
    return path.read_bytes()


@pytest.mark.parametrize("node", KINDS, ids=lambda node: node["use"])
def test_the_same_is_found(node: dict[str, Any], data: Dataset, tmp_path: Path) -> None:
    shelf.build(data, tmp_path / "whole", node)
    shelf.build(data, tmp_path / "cut", node, engine=Others(), shard=17)
    shelf.build(data, tmp_path / "here", node, shard=17)
    whole, cut, here = (opened(tmp_path / name) for name in ("whole", "cut", "here"))
    assert [len(s) for s in cut.segments] == [17, 17, 17, 17, 17, 5]
    assert contents(cut) == contents(here), "the engine changes no byte"
    assert store.damages(cut.manifest) == []
    expected = written(whole(QUERIES), tmp_path / "run")
    assert len(expected.splitlines()) > 100
    assert written(cut(QUERIES), tmp_path / "run") == expected
    spread = Spread(cut, Others())
    assert written(spread(QUERIES), tmp_path / "run") == expected
    assert [[s.stage for s in r.steps] for r in spread(QUERIES)] == [[type(whole).__name__]] * 15
    assert [d.contents for d in cut.documents()] == [d.contents for d in data.docs()]
    assert shelf.build(data, tmp_path / "cut", node, engine=Others()) is None
    cut.compact()
    assert [*contents(cut).values()] == [*contents(whole).values()], "merged, it is the index that was built at once"


@pytest.mark.parametrize("node", KINDS, ids=lambda node: node["use"])
def test_passages_and_filters(node: dict[str, Any], data: Dataset, tmp_path: Path) -> None:
    """Documents are found as their best passages, and only those that may be, whoever searches."""
    numbered = Dataset.of([Doc(d.id, d.text, "", {"n": i}) for i, d in enumerate(data.docs())])
    node = {**node, "passages": {"max": 3, "overlap": 1}}
    shelf.build(numbered, tmp_path / "whole", node)
    shelf.build(numbered, tmp_path / "cut", node, engine=Others(), shard=17)
    whole, cut = opened(tmp_path / "whole"), opened(tmp_path / "cut")
    where = "n >= 10 and n < 80"
    expected = [*whole(QUERIES)], [*whole.filtered(where)(QUERIES)]
    spread = Spread(cut, Others())
    assert [len(cut), len(cut.segments), cut.manifest.facts["passages"] > 90] == [90, 6, True]
    for one, filtered in ((cut, cut.filtered(where)), (spread, spread.filtered(where))):
        assert [r.hits for r in one(QUERIES)] == [r.hits for r in expected[0]]
        assert [r.hits for r in filtered(QUERIES)] == [r.hits for r in expected[1]]
    assert [r.hits for r in expected[0]] != [r.hits for r in expected[1]]
    assert {h.doc.fields["n"] for r in expected[1] for h in r.hits} <= {*range(10, 80)}


def test_all_segments_are_by_one_backend(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is, and though a build was interrupted."""

    def made_by(folder: Path) -> list[str]:
        return [json.loads(told.read_text())["identity"] for told in sorted(folder.glob("made/*/*/facts.json"))]

    recipe = shelf.full(Dense, {"use": "dense", "model": "fickle"})
    with pytest.raises(KeyboardInterrupt):
        shards.build(Fickle, data, tmp_path / "cut", recipe, Stopped(), 17)
    shards.build(Fickle, data, tmp_path / "cut", recipe, Others(), 17)
    assert len(made_by(tmp_path / "cut")) == 6
    [backend] = {*made_by(tmp_path / "cut")}
    more = Dataset.of([*data.docs(), Doc("new", "one more")])
    shards.build(Fickle, more, tmp_path / "cut", recipe, Others(), 17)  # anew, as before: nothing is encoded again
    assert {*made_by(tmp_path / "cut")} == {backend}
    assert Fickle(tmp_path / "cut").manifest.facts["reused_vectors"] == 90
    monkeypatch.setattr(Fickle, "portion", 20)
    monkeypatch.setattr(Fickle, "_settled", lambda index: index)
    Fickle.make(data, tmp_path / "portions", recipe)
    assert len(made_by(tmp_path / "portions")) == 5
    assert len({*made_by(tmp_path / "portions")}) == 1


def test_what_is_begun_or_there_says_the_backend(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shelf.full(Dense, {"use": "dense", "model": "fickle"})

    def backend() -> str:
        return str(Fickle(tmp_path).manifest.facts["backend"])

    encode = Fickle.encode

    def stopped(*told: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fickle, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        Fickle.make(data, tmp_path, recipe)
    [chosen] = tmp_path.glob("made/.work-*/*/chosen.json")
    begun = json.loads(chosen.read_text())["backend"]
    monkeypatch.setattr(Fickle, "encode", encode)
    Fickle.make(data, tmp_path, recipe)
    assert backend() == begun
    assert not any(tmp_path.rglob("chosen.json"))
    Fickle.make(Dataset.of([*data.docs(), Doc("new", "one more")]), tmp_path, recipe)
    assert backend() == begun
    assert Fickle(tmp_path).manifest.facts["reused_vectors"] == 90
    Fickle.make(data, tmp_path, recipe | {"max_length": 7})  # another way
    assert backend() != begun


def test_each_worker_searches_its_own_segments(data: Dataset, tmp_path: Path) -> None:
    shelf.build(data, tmp_path / "cut", BM, shard=17)
    index = opened(tmp_path / "cut", k=90)
    parts = [{h.doc.id for r in shards.Search.of(index, part)(QUERIES) for h in r.hits} for part in ([0, 3], [5])]
    theirs = [{doc.id for i in part for doc in index.segments[i].docs} for part in ([0, 3], [5])]
    assert parts[0] <= theirs[0]
    assert parts[1] <= theirs[1]
    assert all(parts)
    fused = Fuse(Spread(index, Others()), Spread(index, Others()), k=9)
    assert [r.hits for r in fused(QUERIES)] == [r.hits for r in Fuse(index, index, k=9)(QUERIES)]


@pytest.mark.parametrize("node", KINDS, ids=lambda node: node["use"])
def test_a_worker_reads_no_segments_of_others(node: dict[str, Any], data: Dataset, tmp_path: Path) -> None:
    """But of BM25's what statistics are made of; damage is refused by whom it concerns."""
    shelf.build(data, tmp_path / "cut", node, shard=17)
    index = opened(tmp_path / "cut", k=90)
    expected = [r.hits for r in shards.Search.of(index, [0, 3])(QUERIES)]

    def refused(name: str, part: list[int]) -> bool:
        path = index.segments[5].folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        try:
            assert [r.hits for r in shards.Search.of(index, part)(QUERIES)] == expected
        except ArtefactError as error:
            assert f"{name} is damaged" in str(error)  # noqa: PT017
            return True
        finally:
            path.write_bytes(whole)
        return False

    assert not refused("docs.jsonl", [0, 3])
    assert refused("docs.jsonl", [0, 5])
    for name in ("terms.bin", "starts.npy", "lengths.npy") if node["use"] == "bm25" else ():
        assert refused(name, [0, 3])


def test_an_interrupted_build_goes_on(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        shelf.build(data, tmp_path / "cut", BM, engine=Stopped(), shard=10)
    again, other = Others(), Others()
    shelf.build(data, tmp_path / "cut", BM, engine=again, shard=10)
    assert [number for number, _ in again.items] == [4, 5, 6, 7, 8]
    assert store.damages(store.read_manifest(tmp_path / "cut")) == []
    with pytest.raises(KeyboardInterrupt):
        shelf.build(data, tmp_path / "cut", BM, engine=Stopped(), shard=10, force=True)
    shelf.build(data, tmp_path / "cut", BM, engine=other, shard=11, force=True)
    assert [number for number, _ in other.items] == [*range(9)], "another cut is another build"
    shelf.build(data, tmp_path / "here", BM, shard=11)
    assert opened(tmp_path / "cut").manifest.files == opened(tmp_path / "here").manifest.files


def test_a_shard_that_was_harmed_is_built_again(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        shelf.build(data, tmp_path, BM, engine=Stopped(), shard=10)
    [work] = (tmp_path / "made").glob(".work-*")
    cut, gone, torn = work / "000000" / "lengths.npy", work / "000001" / "facts.json", work / "000003" / builds.SUMS
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    torn.write_text("{")
    heard, again = Heard(), Others()
    with listening(heard):
        shelf.build(data, tmp_path, BM, engine=again, shard=10)
    assert [number for number, _ in again.items] == [0, 1, *range(3, 9)]
    assert [text for text in heard.notices if "harmed" in text] == [
        f"{path} was harmed since it was written; segment {path.parent.name} is built again"
        for path in (cut, gone, torn)
    ]
    index = opened(tmp_path)
    assert store.damages(index.manifest) == []
    assert [*index.documents()] == [*data.docs()]
    assert not [*index.manifest.path.rglob(builds.SUMS)]


def test_two_workers_with_one_shard(data: Dataset, tmp_path: Path) -> None:
    """Ray begins the work again of a machine that only seems to be dead."""
    make = shards.Make(BM25, tmp_path, [], shelf.full(BM25, BM))
    docs = [*data.docs()][:20]
    assert {name.partition("/")[0] for name in make((3, docs))} == {"000003"}
    assert make((3, docs)) == {}
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["000003"]
    assert [*(tmp_path / shards.TRIED).iterdir()] == []


def test_a_doubled_id_is_refused_across_shards(tmp_path: Path) -> None:
    doubled = Dataset.of([Doc(f"d{i % 50}", "oak") for i in range(51)])
    with pytest.raises(DataError, match="d0"):
        shelf.build(doubled, tmp_path / "cut", BM, engine=Others(), shard=10)
    assert not (tmp_path / "cut" / "manifest.json").exists()


def test_vectors_of_unchanged_texts_are_taken_from_the_index_before(data: Dataset, tmp_path: Path) -> None:
    shelf.build(data, tmp_path / "cut", KINDS[1], shard=17)
    shelf.build(data, tmp_path / "cut", KINDS[1], engine=Others(), shard=40, force=True)
    told = store.read_manifest(tmp_path / "cut").facts
    assert (told["segments"], told["reused_vectors"], "documents_per_second" in told) == (3, 90, False)


def test_batches_of_encoders(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are what they are without shards, if shards are whole numbers of them."""
    monkeypatch.setattr(embed, "SHARD", 8)
    node = {"use": "dense", "model": "tests.retrieve.fakes:Sociable"}
    shelf.build(data, tmp_path / "whole", node)
    expected = [r.hits for r in opened(tmp_path / "whole")(QUERIES)]
    for shard, same in ((16, True), (24, True), (12, False)):
        shelf.build(data, tmp_path / str(shard), node, shard=shard)
        assert ([r.hits for r in opened(tmp_path / str(shard))(QUERIES)] == expected) is same


def test_what_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="shard: 0 documents"):
        shelf.build(data, tmp_path / "cut", BM, engine=Local(), shard=0)
    with pytest.raises(RecipeError, match="b: 3"):
        shelf.build(data, tmp_path / "cut", BM | {"b": 3}, shard=10)
    with pytest.raises(RecipeError, match="Listed: an index of this kind has no segments"):
        Spread(Listed({}), Local())


def hits(index: Retriever) -> list[list[tuple[str, float]]]:
    return [[(hit.doc.id, hit.score) for hit in ranking.hits] for ranking in index.run(QUERIES)]


def test_an_index_that_is_changed_meanwhile(data: Dataset, tmp_path: Path) -> None:
    """What was opened is searched, here if workers cannot open it; texts that are gone are said to be gone."""
    shelf.build(data, tmp_path / "cut", BM, shard=17)
    spread, texts = Spread(opened(tmp_path / "cut"), Others()), Spread(opened(tmp_path / "cut"), Others())
    [ranking] = pickle.loads(pickle.dumps(lean(texts(QUERIES[:1]))))
    late = shards.Search.of(spread.index, [0])
    before, found = hits(texts), texts.run(QUERIES)
    assert before == hits(opened(tmp_path / "cut"))
    opened(tmp_path / "cut").delete(["d07"])
    with listening(told := Heard()):
        assert hits(spread) == hits(spread) == before != hits(opened(tmp_path / "cut"))
    [said] = told.notices
    assert said.endswith("was changed since it was opened; it is searched as it was, in this process alone")
    with pytest.raises(ArtefactError, match="was changed since it was opened"):
        late(QUERIES)
    assert [h.doc.text for r in found for h in r.hits] == [h.doc.text for r in spread.run(QUERIES) for h in r.hits]
    with pytest.raises(ArtefactError, match="is gone, for the index was changed meanwhile"):
        _ = ranking.hits[0].doc.text


def test_what_is_sent_of_a_ranking(data: Dataset, tmp_path: Path) -> None:
    shelf.build(data, tmp_path / "cut", BM, shard=17)
    found = opened(tmp_path / "cut").run(QUERIES)
    foreign = Ranking(QUERIES[0], (Hit(Doc("x", "y " * 10_000), 1.0),))
    sent = pickle.dumps(lean([*found, foreign]))
    texts = {h.doc.text for r in found for h in r.hits if len(h.doc.text) > 30}
    assert texts
    assert not [text for text in texts if text.encode() in sent]
    *rankings, last = pickle.loads(sent)
    assert rankings == found
    assert last == foreign


def test_large_segments_are_merged_by_compacting_only(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.build(data, tmp_path / "cut", BM, shard=9)
    monkeypatch.setattr(living, "LARGE", 9)
    index = opened(tmp_path / "cut")
    index.add([Doc("new", "oak")])
    assert len(index.segments) == 11
    monkeypatch.setattr(living, "LARGE", 10)
    index.add([Doc("newer", "oak")])
    assert len(index.segments) == 1


def test_large_segments_stay_large_though_some_of_them_are_dead(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.build(data, tmp_path / "cut", BM, shard=9)
    monkeypatch.setattr(living, "LARGE", 9)
    index = opened(tmp_path / "cut")
    index.delete([s.docs.ids[0] for s in index.segments])
    index.add([Doc("new", "oak")])
    assert [(len(s.docs), len(s)) for s in index.segments] == [(9, 8)] * 10 + [(1, 1)]
    index.delete([index.segments[0].docs.ids[i] for i in range(1, 5)])
    sizes = [(len(s.docs), len(s)) for s in index.segments]
    assert sizes == [(9, 8)] * 9 + [(1, 1), (4, 4)], "what is mostly dead is rewritten, alone"


def test_many_shards_where_few_files_are_allowed(data: Dataset, tmp_path: Path) -> None:
    """They are made, and older ones serve again."""
    with few_files(60):
        shelf.build(data, tmp_path / "cut", KINDS[1], shard=1)
    assert store.read_manifest(tmp_path / "cut").facts["segments"] == 90
    with few_files(60):
        shelf.build(data, tmp_path / "cut", KINDS[1], shard=45, force=True)
    told = store.read_manifest(tmp_path / "cut").facts
    assert (told["segments"], told["reused_vectors"]) == (2, 90)


def test_shards_in_a_limit_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what each worker may hold, and later what changes may; a shard that is too large is refused."""
    monkeypatch.setattr(forecast, "WORTH", 100)
    monkeypatch.setattr(forecast, "SAMPLE", (8, 100))
    data = Dataset.of([Doc(f"d{i}", f"fox number{i % 70}") for i in range(300)])
    assert shelf.build(data, tmp_path / "free", {"use": "bm25"}, shard=100)
    assert shelf.build(data, tmp_path / "limited", {"use": "bm25"}, shard=100, memory="1GB")
    free, limited = (BM25(tmp_path / name) for name in ("free", "limited"))
    assert limited.memory == 1 << 30
    arrays = [{n: f for n, f in i.manifest.files.items() if not n.endswith("facts.json")} for i in (free, limited)]
    assert arrays[0] == arrays[1]
    monkeypatch.setattr(forecast, "BESIDE", (1 << 30, 1 << 30))
    with pytest.raises(RecipeError, match=r"a shard of 100 documents holds about 1 GB, more than 512 MB;.*--shard 24"):
        shelf.build(data, tmp_path / "none", {"use": "bm25"}, shard=100, memory="512MB")
    assert not (tmp_path / "none").exists()
