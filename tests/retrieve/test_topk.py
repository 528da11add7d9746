"""The best documents are those of scoring everything, in any order of terms and however many are asked for."""

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankpipe.retrieve.docs import best
from rankpipe.retrieve.topk import Weighted, candidates

N = 40
TERMS = st.lists(st.dictionaries(st.integers(0, N - 1), st.sampled_from([0.25, 0.5, 1.0, 3.0]), min_size=1), max_size=6)


def scores(values: NDArray[np.float32], some: slice | NDArray[np.intp]) -> NDArray[np.float32]:
    return values[some]  # type: ignore[no-any-return]


def weighted(term: dict[int, float]) -> Weighted:
    docs = np.array(sorted(term), np.int32)
    values = np.array([term[d] for d in docs.tolist()], np.float32)
    return Weighted(docs, partial(scores, values), float(values.max()))


@given(TERMS, st.integers(1, N), st.none() | st.lists(st.booleans(), min_size=N, max_size=N))
def test_equals_scoring_everything(terms: list[dict[int, float]], k: int, alive: list[bool] | None) -> None:
    sums = np.zeros(N)
    living = None if alive is None else np.array(alive)
    found, got = candidates([weighted(t) for t in terms], k, living, sums)
    assert not sums.any()
    everything = np.zeros(N, np.float32)
    for term in terms:
        for doc, score in term.items():
            everything[doc] += score * (alive is None or alive[doc])
    precedence = np.arange(N, dtype=np.int32)[::-1].copy()
    top = best(got, precedence[found], k)
    right = np.flatnonzero(everything)
    truth = right[best(everything[right], precedence[right], k)]
    assert found[top].tolist() == truth.tolist()
    assert got[top].tolist() == everything[truth].tolist()
