"""Vectors come back from the disk as near as their format allows, and rough scores are no further off than they say."""

from pathlib import Path

import numpy as np
import pytest

from rankpipe.retrieve.vectors import STORES, append
from tests.retrieve.fields import drawn, field

BYTES = {"float32": 4 * 40, "float16": 2 * 40, "int8": 40 + 4, "binary": 40 + 4 + 8}  # a vector of 40 numbers
OFF = {"float32": 0.0, "float16": 2.0**-11, "int8": 0.5 / 127, "binary": 0.5 / 127}  # of the largest number in it


@pytest.mark.parametrize("store", STORES)
def test_rows_come_back(store: str, tmp_path: Path) -> None:
    vectors = drawn(300, 40) * np.geomspace(1e-3, 1e3, 300, dtype=np.float32)[:, None]
    vectors[7] = 0
    kept = field(tmp_path, vectors, store).kept
    assert len(kept) == 300
    assert sum(c[0].nbytes for c in STORES[store].pack(vectors).values()) == BYTES[store]
    off = np.abs(kept.rows(slice(None)) - vectors) / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    assert off.max() <= OFF[store] * 1.001
    some = np.array([299, 7, 0])
    assert np.array_equal(kept.rows(some), kept.rows(slice(None))[some])
    assert kept.rows(some).dtype == np.float32


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
def test_rough_scores_are_near_enough(store: str, tmp_path: Path) -> None:
    vectors = drawn(2000, 96) * np.float32(3)
    searched, queries = field(tmp_path, vectors, store), drawn(9, 96, seed=1) * np.float32(5)
    rough = searched.kept.rough(queries, slice(100, 1900))
    exact = np.array([searched.scores(q, np.arange(100, 1900)) for q in queries])
    off, slack = np.abs(rough - exact), searched.kept.slack(queries, searched.longest)[:, None]
    assert (off <= slack / 2).all()
    assert slack.max() < 1e-3  # of scores up to 15


def test_bits_count_the_signs_that_differ(tmp_path: Path) -> None:
    vectors, queries = drawn(50, 70), drawn(3, 70, seed=1)  # more than a word, and not whole bytes
    rough = field(tmp_path, vectors, "binary").kept.rough(queries, slice(10, 50))
    assert rough.tolist() == [[-int(((q > 0) != (v > 0)).sum()) for v in vectors[10:]] for q in queries]


@pytest.mark.parametrize("store", STORES)
def test_rows_are_appended_where_they_belong(store: str, tmp_path: Path) -> None:
    vectors = drawn(30)
    columns = STORES[store].pack(vectors)
    append(tmp_path, 0, {name: rows[:10] for name, rows in columns.items()})
    append(tmp_path, 10, {name: rows[20:25] for name, rows in columns.items()})  # never said to be saved
    for name in columns:
        with open(tmp_path / f"{name}.npy", "ab") as f:
            f.write(b"torn")
    append(tmp_path, 10, {name: rows[10:10] for name, rows in columns.items()})
    append(tmp_path, 10, {name: rows[10:] for name, rows in columns.items()})
    append(tmp_path, 30, {name: rows[:0] for name, rows in columns.items()})
    for name, rows in columns.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), rows)
        whole = tmp_path / "whole"
        whole.mkdir(exist_ok=True)
        append(whole, 0, {name: rows})
        assert (whole / f"{name}.npy").read_bytes() == (tmp_path / f"{name}.npy").read_bytes()
