"""An index that is open while its folder is built anew by another recipe: searched and changed by what is there now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankpipe import store
from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset
from rankpipe.engine import Local
from rankpipe.errors import DiskError, RecipeError
from rankpipe.retrieve import living, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.encoded import Encoded
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.milvus import Milvus
from rankpipe.retrieve.sparse import SparseIndex
from tests.retrieve.fakes import Drawn, Hashed
from tests.retrieve.models import Directions, Weights
from tests.retrieve.runs import skip_unless_there

DRAWN, WEIGHTS = "tests.retrieve.fakes:Drawn", "tests.retrieve.models:Weights"
CUT: dict[str, Any] = {"passages": {"max": 3}}
DOCS = [Doc(f"d{i}", f"running dog{i} over lazy hedges{i % 5}", fields={"n": i}) for i in range(30)]
NEW = Doc("new", "a cat ran quickly over fast and furious dogs", fields={"n": 30})
QUERIES = [Query("a", "dog7 runs"), Query("b", "furious cat"), Query("c", "hedge over dogs")]


class Backwards(Drawn):
    """Another encoder of as many dimensions."""

    name, identity = "backwards", "backwards-1"

    def _vector(self, text: str) -> Any:
        return super()._vector(text[::-1])


class BackwardWeights(Weights):
    """Another sparse encoder of the same words."""

    identity = "backwards-1"

    def _weighed(self, text: str) -> Any:
        return super()._weighed(text[::-1])


class BackwardDirections(Directions):
    """Another encoder of tokens of as many dimensions."""

    identity = "backwards-1"

    def _read(self, text: str) -> Any:
        return super()._read(text[::-1])


HERE = "tests.retrieve.test_rebuilt:Backward"
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "bm25": (BM25, {"stemmer": "none"}, {"stemmer": "english", "k1": 2.0, **CUT}),
    "dense": (Dense, {"model": DRAWN}, {"model": f"{HERE}s"}),
    "dense, passages": (Dense, {"model": DRAWN, **CUT}, {"model": f"{HERE}s", "store": "int8"}),
    "sparse": (SparseIndex, {"model": WEIGHTS}, {"model": f"{HERE}Weights", "steps": 100}),
    "colbert": (ColBERT, {"model": "tests.retrieve.models:Directions"}, {"model": f"{HERE}Directions", **CUT}),
    "lucene": (Lucene, {"stemmer": "none"}, {"stemmer": "porter", "fields": {"title": 1.0, "text": 2.0}, **CUT}),
    "milvus": (Milvus, {"model": DRAWN}, {"model": f"{HERE}s", **CUT}),
    "milvus, both": (Milvus, {"model": DRAWN, "sparse": WEIGHTS}, {"model": f"{HERE}s", "sparse": f"{HERE}Weights"}),
}


@pytest.fixture(params=KINDS)
def rebuilt(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Index, Callable[[], Index]]:
    """An index that has been searched, and what builds another one in its folder."""
    kind, options, others = KINDS[request.param]
    skip_unless_there(kind.kind)
    made: Index = kind.build(Dataset.of(DOCS), tmp_path, **options)
    assert found(made)
    return made, lambda: kind.build(Dataset.of(DOCS), tmp_path, **others)


def found(index: Index) -> list[list[tuple[str, str, float]]]:
    return [[(h.doc.id, h.doc.text, h.score) for h in ranking.hits] for ranking in index.run(QUERIES)]


def test_it_searches_what_is_there_after_refresh(rebuilt: tuple[Index, Callable[[], Index]]) -> None:
    old, build = rebuilt
    few, before = old.filtered("n < 7"), found(old)
    of_few = found(few)
    build()
    assert found(old) == before
    assert found(old.refresh()) == found(type(old)(old.folder)) != before
    assert found(few) == of_few  # stays what it was
    assert found(few.refresh()) == found(type(old)(old.folder).filtered("n < 7"))


def test_what_is_added_is_made_by_what_is_there(rebuilt: tuple[Index, Callable[[], Index]]) -> None:
    old, build = rebuilt
    build()
    assert old.add([NEW]) == Change(added=1)
    opened = type(old)(old.folder)
    assert found(old) == found(opened)
    assert "new" in [h.doc.id for h in opened.search("furious cat").hits[:3]]
    assert list(opened.documents()) == [*DOCS, NEW]
    other = build_beside(old, opened, [*DOCS, NEW])
    assert [{*hits} for hits in found(opened)] == [{*hits} for hits in found(other)]


def build_beside(old: Index, like: Index, docs: list[Doc]) -> Index:
    kind: Any = type(old)
    return kind.build(  # type: ignore[no-any-return]
        Dataset.of(docs), old.folder / "beside", **{k: v for k, v in like.manifest.recipe.items() if k != "use"}
    )


def test_changes_that_add_nothing_go_by_what_is_there(rebuilt: tuple[Index, Callable[[], Index]]) -> None:
    old, build = rebuilt
    build()
    assert old.update([Doc("d3", NEW.text), Doc("d4", "dog")]) == Change(replaced=2)
    assert old.delete(["d5"]) == Change(deleted=1)
    old.compact()
    assert found(old) == found(type(old)(old.folder))
    assert [d.id for d in old.documents()] == [d.id for d in DOCS if d.id not in ("d3", "d4", "d5")] + ["d3", "d4"]


@pytest.mark.parametrize("loaded", [False, True])
def test_a_filtered_one_loads_the_model_that_made_what_it_has_open(tmp_path: Path, loaded: bool) -> None:
    old = Dense(Dense.build(Dataset.of(DOCS), tmp_path, model=DRAWN).folder)
    before, few = found(Dense(tmp_path, where="n < 7")), old.filtered("n < 7")
    if loaded:
        found(old)
    Dense.build(Dataset.of(DOCS), tmp_path, model=f"{HERE}s")
    found(old.refresh())
    assert found(few) == before


def test_a_model_that_stays_is_loaded_once(tmp_path: Path) -> None:
    index: Encoded[Any] = Dense.build(Dataset.of(DOCS), tmp_path, model=DRAWN)
    few, made = index.filtered("n < 7"), Hashed.made
    index.refresh()
    index.add([NEW])
    Dense(tmp_path).delete(["d1"])
    found(index.refresh())
    index.delete([d.id for d in [*DOCS, NEW]])  # of an index without documents no model is known
    index.add([NEW])
    found(index)
    assert Hashed.made == made + 1
    found(few)
    assert Hashed.made <= made + 2


def test_what_cannot_be_opened_leaves_it_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise DiskError("too many open files")

    old = BM25.build(Dataset.of(DOCS), tmp_path, stemmer="none")
    before, build = found(old), old.manifest.build
    BM25.build(Dataset.of(DOCS), tmp_path, **CUT)
    monkeypatch.setattr(living, "room", refused)
    for change in (old.refresh, lambda: old.add([NEW])):
        with pytest.raises(DiskError, match="too many open files"):
            change()
        assert (found(old), old.manifest.build) == (before, build)


@pytest.mark.parametrize("rebuilt", ["lucene"], indirect=True)
def test_what_cannot_be_searched_so_is_not_changed(rebuilt: tuple[Index, Callable[[], Index]]) -> None:
    _, build = rebuilt
    old = Lucene(build().folder, fields={"title": 1.0})
    before = found(old)
    made = Lucene.build(Dataset.of(DOCS), old.folder, **CUT)
    for _ in range(2):
        with pytest.raises(RecipeError, match="not indexed"):
            old.refresh()
        with pytest.raises(RecipeError, match="not indexed"):
            old.add([NEW])
    assert found(old) == before
    assert store.read_manifest(old.folder).build == made.manifest.build


def test_what_changes_nothing_is_no_batch(rebuilt: tuple[Index, Callable[[], Index]]) -> None:
    index, _ = rebuilt
    build = index.manifest.build
    for nothing in (index.compact, lambda: index.add([]), lambda: index.update(iter([])), lambda: index.delete(["z"])):
        nothing()
        assert store.read_manifest(index.folder).build == index.manifest.build == build
    (index.folder / "made" / ".work-amended").mkdir()  # a killed writer's
    index.compact()
    assert [path.name for path in (index.folder / "made").iterdir()] == [build]
    index.add([NEW])
    told = index.manifest.facts["batches"]
    index.compact()
    assert index.manifest.build != build
    assert (told, index.manifest.facts["batches"], index.manifest.facts["segments"]) == (1, 1, 1)


def test_an_index_that_was_only_compacted_is_built_anew(tmp_path: Path) -> None:
    data, recipe = Dataset.of(DOCS), {"use": "bm25"}
    assert shelf.build(data, tmp_path, recipe, engine=Local(), shard=10)
    index = BM25(tmp_path)
    assert (len(index.segments), index.compact()) == (3, Change())
    assert (len(index.segments), shelf.changes(tmp_path)) == (1, 0)
    assert "batches" not in index.manifest.facts
    assert "changes" not in store.cure(tmp_path, index.manifest)
    assert shelf.build(data, tmp_path, recipe) is None  # it is current
    assert shelf.build(data, tmp_path, {**recipe, "k1": 2.0})
