"""Exact search finds what brute force finds, and says the same score of a vector wherever it lies."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankpipe.retrieve import nearest
from rankpipe.retrieve.nearest import Exact, Field, Found
from rankpipe.retrieve.vectors import Vectors
from tests.retrieve.fields import drawn, field


def truth(searched: Field, query: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """The k best among the living by inner products summed in extended precision; ties by precedence."""
    rows = searched.kept.rows(slice(None)).astype(np.longdouble)
    living = np.arange(len(rows)) if searched.alive is None else np.flatnonzero(searched.alive)
    scores = (rows[living] * query).sum(axis=1).astype(np.float32).tolist()
    told = zip(living.tolist(), scores, strict=True)
    return sorted(told, key=lambda one: (-one[1], searched.precedence[one[0]]))[:k]


def listed(found: list[Found]) -> list[list[tuple[int, float]]]:
    return [list(zip(places.tolist(), scores.tolist(), strict=True)) for places, scores in found]


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
@pytest.mark.parametrize("dead", [False, True])
def test_equals_brute_force(store: str, dead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "ROWS", (100, 256))
    vectors, queries = drawn(700), drawn(5, seed=1)
    vectors[300:] = vectors[:400]  # ties, also across blocks
    alive = np.random.default_rng(0).random(700) < 0.6 if dead else None
    searched = field(tmp_path, vectors, store, alive)
    for k in (1, 10, 333, 2000):
        assert listed(Exact(searched).search(queries, k)) == [truth(searched, q, k) for q in queries]


def test_what_rounding_hides_is_found(tmp_path: Path) -> None:
    """Thousands of vectors that differ in their last bits: matrix products mistake the order of many."""
    base, chance = drawn(1, 384)[0], np.random.default_rng(0)
    vectors = (base * (1 + chance.integers(-3, 4, (3000, 384)) * 2.0**-24)).astype(np.float32)
    searched, queries = field(tmp_path, vectors), np.stack([base, *drawn(3, 384, seed=2)])
    rough = searched.kept.rough(queries, slice(None))
    wanted = [truth(searched, q, 20) for q in queries]
    assert any({i for i, _ in w} != set(np.argsort(-r)[:20].tolist()) for r, w in zip(rough, wanted, strict=True))
    assert listed(Exact(searched).search(queries, 20)) == wanted


def test_a_score_does_not_depend_on_where_the_vector_lies(tmp_path: Path) -> None:
    vectors, queries = drawn(3000, 100), drawn(33, 100, seed=1)

    def scores(vectors: Vectors, queries: Vectors, name: str) -> dict[tuple[int, int], float]:
        found = listed(Exact(field(tmp_path / name, vectors)).search(queries, len(vectors)))
        return {(q, i): score for q, hits in enumerate(found) for i, score in hits}

    whole = scores(vectors, queries, "whole")
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 1000), (1000, 3000)):
        part = scores(vectors[start:stop], queries[:7], f"from{start}")
        assert part == {(q, i): whole[q, i + start] for q in range(7) for i in range(stop - start)}
    alone = scores(vectors[::-1], queries[4:5], "alone")
    assert alone == {(0, i): whole[4, 2999 - i] for i in range(3000)}


def test_nothing_is_found_among_the_dead(tmp_path: Path) -> None:
    searched = field(tmp_path, drawn(10), alive=np.zeros(10, bool))
    assert listed(Exact(searched).search(drawn(2), 5)) == [[], []]


def test_signs_find_nearly_all_that_bytes_find(tmp_path: Path) -> None:
    vectors, queries = drawn(3000, 384), drawn(40, 384, seed=1)
    bits, whole = (field(tmp_path / store, vectors, store) for store in ("binary", "int8"))
    found, wanted = (listed(Exact(f).search(queries, 10)) for f in (bits, whole))
    same = [len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)]  # scores are those of int8
    assert np.mean(same) > 9
    assert listed(Exact(bits).search(queries, 700)) == listed(Exact(whole).search(queries, 700))  # 3,000 are looked at
