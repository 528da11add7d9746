"""Several threads search one opened index, and find what one finds; so does who searches after an interrupted one."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankpipe import onnx
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.progress import listening
from rankpipe.retrieve import topk
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.index import Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.retrieve.topk import Scorer
from tests.heard import Heard

DICE = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(60)]
DOCS = [Doc(f"d{i}", " ".join(DICE.choice(WORDS, 12)), fields={"year": i % 7}) for i in range(1500)]
QUERIES = [Query(f"q{i}", " ".join(DICE.choice(WORDS, 5))) for i in range(40)]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bm25": (BM25, {}),
    "sparse": (SparseIndex, {"model": "tests.retrieve.models:Weights"}),
    "exact": (Dense, {"model": "tests.retrieve.fakes:Drawn"}),
    "hnsw": (Dense, {"model": "tests.retrieve.fakes:Drawn", "factory": "HNSW8"}),
    "colbert": (ColBERT, {"model": "tests.retrieve.models:Directions"}),
}


def found(ranking: Ranking) -> list[tuple[str, float]]:
    return [(h.doc.id, h.score) for h in ranking.hits]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_find_what_one_does(kind: str, tmp_path: Path) -> None:
    made, how = KINDS[kind]
    index: Index = made.build(Dataset.of(DOCS), tmp_path, **how)
    index.k = 20
    asked: Sequence[tuple[Index, Query]] = [
        (one, q) for q in QUERIES for one in (index, index.filtered("year >= 3"), index.filtered("year == 1"))
    ]
    alone = [found(one.run([q])[0]) for one, q in asked]
    assert any(alone)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: found(pair[0].run([pair[1]])[0]), asked * 3))
    assert together == alone * 3
    assert [found(one.run([q])[0]) for one, q in asked] == alone


@pytest.mark.parametrize("kind", ["bm25", "sparse"])
def test_a_batch_is_searched_by_threads(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once machine code takes long; what is found, and in which order, stays."""
    pytest.importorskip("numba")
    made, how = KINDS[kind]
    index: Index = made.build(Dataset.of(DOCS), tmp_path, **how)
    queries = [*QUERIES[:33], Query("none", " "), *QUERIES[33:]] * 3
    alone = [found(one) for one in index.run(queries)]
    compiled, threads = Scorer.compiled, list[int]()
    told = lambda self, *how: threads.append(threading.get_ident()) or compiled(self, *how)  # noqa: E731
    monkeypatch.setattr(topk, "_spent", topk.WORTH)
    monkeypatch.setattr(topk, "_given_up", False)
    monkeypatch.setattr(Scorer, "compiled", told)
    monkeypatch.setattr(topk, "LONG", 60)
    assert [found(one) for one in index.run(queries)] == alone
    assert {*threads} == {here := threading.get_ident()}
    monkeypatch.setattr(topk, "LONG", 1e-9)
    index = made(tmp_path)
    for first in (topk.SOME, 0):  # the first ones show that they are long, which is remembered
        threads.clear()
        assert [found(one) for one in index.run(queries)] == alone
        assert {*threads[:first]} == ({here} if first else set())
        assert len(threads) > 100
        assert here not in threads[first:]
    threads.clear()
    assert found(index.run(queries[:1])[0]) == alone[0]
    assert {*threads} == {here}  # who asks one question waits for nobody
    with listening(heard := Heard()):
        monkeypatch.setattr(Scorer, "compiled", lambda *_: int("broken"))
        assert [found(one) for one in index.run(queries)] == alone
    assert [line[:25] for line in heard.notices] == ["searching without Numba, w"[:25]]


@pytest.mark.parametrize(
    ("told", "cores"), [("1", 1), ("64", None), ("1,4", 1), ("", None), ("0", None), ("many", None)]
)
def test_how_many_cores_are_used_can_be_told(told: str, cores: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    there = onnx.cores()
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert onnx.cores() == (cores or there)


def test_an_interrupted_search_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = BM25.build(Dataset.of(DOCS), tmp_path)
    before = found(index.search(QUERIES[0].text))
    counted = Scorer._scores

    def interrupted(*told: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return counted(*told)

    calls = iter(range(9))
    monkeypatch.setattr(Scorer, "candidates", Scorer.by_numpy)
    monkeypatch.setattr(Scorer, "_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.search(QUERIES[1].text)
    monkeypatch.undo()
    assert found(index.search(QUERIES[0].text)) == before
