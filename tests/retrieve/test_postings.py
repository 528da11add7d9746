"""The inverted index equals one made with dictionaries, however small the blocks."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankpipe.retrieve.postings import Inverted, Spill

Counts = dict[int, int]


def weigh(terms: NDArray[np.int64], docs: NDArray[np.int64], counts: NDArray[np.int32]) -> NDArray[np.float32]:
    return (terms * 100 + docs * 10 + counts).astype(np.float32)


def inverted(documents: list[Counts], terms: int, block: int, folder: Path) -> Inverted:
    spill = Spill(folder / "spill.bin", block)
    spill.fill(iter(documents))
    frequencies = spill.frequencies(terms)
    assert frequencies.tolist() == [sum(t in d for d in documents) for t in range(terms)]
    assert list(spill.lengths) == [sum(d.values()) for d in documents]
    return spill.invert(frequencies, weigh, folder)


@given(st.lists(st.dictionaries(st.integers(0, 6), st.integers(1, 9)), min_size=1), st.integers(1, 7))
def test_equals_a_dictionary(documents: list[Counts], block: int) -> None:
    with TemporaryDirectory() as folder:
        made = inverted(documents, 7, block, Path(folder))
        for term in range(7):
            lies = slice(made.starts[term], made.starts[term + 1])
            truth = [(i, term * 100 + i * 10 + d[term]) for i, d in enumerate(documents) if term in d]
            assert list(zip(made.docs[lies].tolist(), made.weights[lies].tolist(), strict=True)) == truth


@pytest.mark.parametrize("size", [0, 1])
def test_no_words_at_all(size: int, tmp_path: Path) -> None:
    made = inverted([{}] * size, 0, 10, tmp_path)
    assert made.starts.tolist() == [0]
    assert len(made.docs) == len(made.weights) == 0
