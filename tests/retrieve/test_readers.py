"""An index that is open stays what it was, whatever is written meanwhile, and opens whole while it is written."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc, Query
from rankpipe.errors import ArtefactError, DataError
from rankpipe.retrieve import approximate, lucene
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.index import Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.milvus import Milvus
from rankpipe.store import read_manifest
from tests.retrieve.test_damaged import index

assert index  # a fixture: every kind, of two segments, with dead documents
WHERE, QUERY = "n >= 20 and l = x", Query("q", "a b c t21 t25 t2")
OPENED = 40


def new(turn: int) -> list[Doc]:
    return [Doc(f"e{i}", f"a b c {i}", f"t{i}", {"n": 100, "l": ["x"]}) for i in range(3 * turn, 3 * turn + 3)]


def found(reader: Index) -> tuple[Any, ...]:
    """With a condition, which reads what nothing has read before, and without."""
    return tuple(
        tuple((hit.doc.id, hit.doc.text, hit.score) for hit in one.run([QUERY])[0].hits)
        for one in (reader.filtered(WHERE), reader)
    )


def test_what_is_open_outlives_its_files(index: Index) -> None:
    kind: Callable[..., Index] = type(index)
    before = found(kind(index.folder))
    assert all(before)
    reader = kind(index.folder)  # has searched nothing yet
    old = reader.manifest.path
    index.add(new(0))
    index.compact()
    index.delete(["d2", "e0"])
    index.compact()
    assert not old.exists()
    assert found(reader) == before
    assert found(kind(index.folder)) != before
    assert found(reader.refresh()) == found(index)


def test_documents_by_their_ids(index: Index) -> None:
    there = {doc.id: doc for doc in index.documents()}
    assert index.get(["d35", "d2", "d35"]) == [there["d35"], there["d2"]]  # of two segments
    assert index.get("d2") == [there["d2"]]
    assert index.get([]) == []
    with pytest.raises(DataError, match="2 documents of 3 not there: 'd1', 'nobody'"):  # one is dead
        index.get(["d1", "d2", "nobody"])


@pytest.mark.parametrize("index", ["colbert"], indirect=True)
def test_what_proposes_candidates_outlives_its_files(index: Index) -> None:
    before = found(ColBERT(index.folder, candidates=2, probes=1))
    reader = ColBERT(index.folder, candidates=2, probes=1)
    index.compact()
    assert not reader.manifest.path.exists()
    assert found(reader) == before


@pytest.mark.parametrize("index", ["hnsw"], indirect=True)
def test_it_opens_anew_what_was_removed_before_faiss_came_to_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, turns = approximate.Faiss.opened, count()

    def removed(field: Any, folder: Path, *how: Any) -> approximate.Faiss:
        if not next(turns):
            index.compact()
        return opened(field, folder, *how)

    monkeypatch.setattr(approximate.Faiss, "opened", removed)
    reader = Dense(index.folder)
    assert reader.manifest.build == index.manifest.build


@pytest.mark.parametrize("index", ["lucene"], indirect=True)
def test_it_opens_anew_what_was_half_removed_when_lucene_read_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lucene has read which files there are, and calls that damaged when one has gone."""
    opened, turns = lucene.Reader, count()

    def removed(folder: Path) -> lucene.Reader:
        if not next(turns):
            [told] = folder.glob("segments_*")
            whole = told.read_bytes()
            index.delete(["d2"])
            folder.mkdir()
            (folder / told.name).write_bytes(whole)
            with pytest.raises(ArtefactError, match="Lucene says"):
                opened(folder)
        return opened(folder)

    monkeypatch.setattr(lucene, "Reader", removed)
    reader = Lucene(index.folder)
    assert reader.manifest.build == index.manifest.build
    assert found(reader) == found(index)


def written(kind: type[Any], folder: Path, go_on: Any) -> None:
    index = kind(folder)
    for _ in count():
        index.add(new(0))
        index.compact()
        index.delete([doc.id for doc in new(0)])
        index.compact()
        if not go_on.value:
            return


def test_it_opens_whole_while_it_is_written(index: Index) -> None:
    """Another process adds three documents and takes them away, and merges segments, which removes their files. Who
    opened the index before that finds what there was, after as many batches as there be.
    """
    kind: Callable[..., Index] = type(index)
    without, held = found(kind(index.folder)), kind(index.folder)
    index.add(new(0))
    within = found(kind(index.folder))
    index.delete([doc.id for doc in new(0)])
    foreign = isinstance(index, Lucene | Milvus)  # Java and gRPC do not outlive a fork
    context: Any = multiprocessing.get_context("spawn" if foreign else "fork")
    go_on = context.Value("b", True)
    writer = context.Process(target=written, args=(type(index), index.folder, go_on))
    before, states = read_manifest(index.folder).build, []
    writer.start()
    late = time.monotonic() + 120
    try:
        while len(states) < OPENED or read_manifest(index.folder).build == before:
            states.append(found(kind(index.folder)))
            assert writer.is_alive()
            assert time.monotonic() < late
    finally:
        go_on.value = False
        writer.join(60)
    assert writer.exitcode == 0
    assert found(held) == without
    assert {*map(ids, states)} <= {ids(without), ids(within)}


def ids(told: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of all hits; in which order depends on centroids that merging may make anew."""
    return tuple(frozenset(i for i, *_ in hits) for hits in told)
