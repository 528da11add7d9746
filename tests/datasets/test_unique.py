"""Doubled ids are found, early and late; different ids are never refused; nothing holds the corpus."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.datasets.unique import FIRST_LOOK, unique
from rankpipe.errors import DataError


@given(st.lists(st.text(max_size=2), max_size=30))
def test_refuses_exactly_the_doubled(ids: list[str]) -> None:
    docs = [Doc(i, "") for i in ids]
    stream = unique(lambda: ((f"p{n}", d) for n, d in enumerate(docs)))
    if len(set(ids)) == len(ids):
        assert list(stream) == docs
    else:
        with pytest.raises(DataError, match="ids must be unique"):
            list(stream)


def test_ids_of_one_hash_are_told_apart() -> None:
    class Odd(str):
        def __hash__(self) -> int:
            return 7

        __eq__ = str.__eq__

    docs = [Doc(Odd("a"), ""), Doc(Odd("b"), "")]
    assert list(unique(lambda: (("p", d) for d in docs))) == docs


def test_found_before_the_end_of_a_long_stream() -> None:
    def placed() -> Iterator[tuple[str, Doc]]:
        return ((f"p{n}", Doc(str(max(n, 1)), "")) for n in range(3 * FIRST_LOOK))

    stream = unique(placed)
    assert len(list(islice(stream, FIRST_LOOK))) == FIRST_LOOK
    with pytest.raises(DataError, match="p1: the id '1' is there already, at p0"):
        next(stream)


def test_in_memory_corpus_too() -> None:
    with pytest.raises(DataError, match=r"mine\[1\]: the id 'a' is there already, at mine\[0\]"):
        list(Dataset.of([Doc("a", "x"), Doc("a", "y")], name="mine").docs())


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    with open(path, "w") as f:
        f.writelines(f'{{"_id": "document {i}", "text": "{i} {"word " * 100}"}}\n' for i in range(20_000))
    data = open_dataset(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in data.docs()) == 20_000
        assert len(data.checksum) == 64
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 1_000_000
