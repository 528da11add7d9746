"""The best documents are those of scoring everything, in any order of terms and however many are asked for."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankpipe.errors import ArtefactError
from rankpipe.progress import listening
from rankpipe.retrieve import topk
from rankpipe.retrieve.docs import best
from rankpipe.retrieve.topk import Scorer, Weighted
from tests.heard import Heard

N = 40
TERMS = st.lists(st.dictionaries(st.integers(0, N - 1), st.sampled_from([0.25, 0.5, 1.0, 3.0]), min_size=1), max_size=6)
ALIVE = st.none() | st.lists(st.booleans(), min_size=N, max_size=N)
SEARCHES: dict[str, Callable[..., topk.Found]] = {"numpy": Scorer.by_numpy, "numba": Scorer.compiled}


def frozen(array: NDArray[np.generic]) -> NDArray[np.generic]:
    array.flags.writeable = False  # as the files of an index are, for which machine code is made
    return array


def made(terms: list[dict[int, float]], norms: NDArray[np.float32] | None = None) -> tuple[Scorer, list[Weighted]]:
    docs = frozen(np.array([d for term in terms for d in sorted(term)], np.int32))
    values = frozen(np.array([term[d] for term in terms for d in sorted(term)], np.float32))
    ends = np.cumsum([0, *map(len, terms)]).tolist()
    asked = [
        Weighted(slice(*lies), np.float32(1), max(t.values())) for lies, t in zip(pairwise(ends), terms, strict=True)
    ]
    return Scorer(docs, values, N, norms), asked


@pytest.mark.parametrize("how", SEARCHES)
@given(terms=TERMS, k=st.integers(1, N), alive=ALIVE)
def test_equals_scoring_everything(how: str, terms: list[dict[int, float]], k: int, alive: list[bool] | None) -> None:
    if how == "numba":
        pytest.importorskip("numba")
    scorer, asked = made(terms)
    found, got = SEARCHES[how](scorer, asked, k, None if alive is None else np.array(alive))
    assert not any(sums.any() for sums in scorer._spare)
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


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 50), dead=st.booleans(), scaled=st.booleans())
def test_machine_code_scores_to_the_bit(seed: int, k: int, dead: bool, scaled: bool) -> None:
    """More documents than a window has, rare words and frequent ones, scores that round."""
    pytest.importorskip("numba")
    chance, n = np.random.default_rng(seed), 3 * 4096 + 5
    lists = [np.flatnonzero(chance.random(n) < share) for share in (0.001, 0.02, 0.5, 0.9)]
    docs = frozen(np.concatenate(lists).astype(np.int32))
    values = frozen(chance.integers(1, 30, len(docs)).astype(np.uint8))
    norms = chance.random(n).astype(np.float32) + np.float32(0.5) if scaled else None
    weights = chance.random(4).astype(np.float32) * 8
    ends = np.cumsum([0, *map(len, lists)]).tolist()
    asked = [
        Weighted(slice(*lies), w, float(w) * (1 if scaled else 30) * 1.001)
        for lies, w in zip(pairwise(ends), weights, strict=True)
    ]
    alive = chance.random(n) < 0.9 if dead else None
    scorer = Scorer(docs, values, n, norms)
    precedence = np.arange(n, dtype=np.int32)
    tops = []
    for search in SEARCHES.values():
        found, scores = search(scorer, asked, k, alive)
        order = best(scores, precedence[found], k)
        tops.append((found[order].tolist(), scores[order].tolist()))
    assert tops[0] == tops[1]
    assert len(tops[0][0]) == k


def test_a_process_that_searches_long_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[str]()
    monkeypatch.setattr(topk, "_given_up", False)
    monkeypatch.setattr(topk, "_spent", 0.0)
    monkeypatch.setattr(topk, "perf_counter", count(step=topk.WORTH / 4).__next__)
    for name in ("compiled", "by_numpy"):
        monkeypatch.setattr(Scorer, name, lambda *_, name=name: called.append(name))
    scorer, asked = made([{1: 1.0}])
    for _ in range(6):
        scorer.candidates(asked, 1, None)
    assert called == ["by_numpy"] * 4 + ["compiled"] * 2


@pytest.mark.parametrize("fault", topk.BROKEN)
def test_where_numba_does_not_work_numpy_goes_on(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """An old one, a full disk, a harmed cache: it is said once, but not of one that is not there."""
    called = list[int]()

    def broken(*_: object) -> None:
        called.append(1)
        raise fault("no")

    monkeypatch.setattr(topk, "_spent", topk.WORTH)
    monkeypatch.setattr(Scorer, "compiled", broken)
    scorer, asked = made([{1: 1.0}])
    for installed in (None, "somewhere"):
        monkeypatch.setattr(topk, "_given_up", False)
        monkeypatch.setattr(topk, "find_spec", lambda _, installed=installed: installed)
        notices = Heard()
        with listening(notices):
            for _ in range(3):
                assert scorer.candidates(asked, 1, None)[0].tolist() == [1]
        assert len(notices.notices) == bool(installed)
    assert len(called) == 2


@pytest.mark.parametrize(
    ("docs", "lies"),
    [
        ([3, 2], (0, 2)),
        ([-1, 5], (0, 2)),
        ([5, N], (0, 2)),
        ([4, 4], (0, 2)),
        ([1, 2], (0, 99)),
        ([1, 2], (-2, 2)),
        ([1, 2], (1, 1)),
    ],
)
def test_a_damaged_list_is_refused(docs: list[int], lies: tuple[int, int]) -> None:
    pytest.importorskip("numba")
    scorer = Scorer(frozen(np.array(docs, np.int32)), frozen(np.ones(2, np.float32)), N)
    with pytest.raises(ArtefactError, match="an inverted list is damaged"):
        scorer.compiled([Weighted(slice(*lies), np.float32(1), 1.0)], 1, None)


def test_lists_are_remembered_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(topk, "LISTS", 2)
    scorer, asked = made([{i: 1.0} for i in range(5)])
    scorer.compiled(asked, 1, None)
    assert scorer._whole == {(4, 5)}


def test_scores_that_rise_to_the_end_are_all_candidates() -> None:
    """More of them than there was room for."""
    pytest.importorskip("numba")
    n = 5 * 4096
    docs, values = frozen(np.arange(n, dtype=np.int32)), frozen(np.arange(1, n + 1).astype(np.float32))
    found, scores = Scorer(docs, values, n).compiled([Weighted(slice(0, n), np.float32(1), float(n))], 3, None)
    assert scores[-3:].tolist() == [n - 2, n - 1, n]
    assert found.tolist() == docs.tolist()


@pytest.mark.parametrize("how", SEARCHES)
def test_what_ties_after_rounding_is_kept(how: str) -> None:
    """Sums in double precision that are told apart, and scores in single precision that are not."""
    if how == "numba":
        pytest.importorskip("numba")
    tiny = dict.fromkeys(range(5), 1e-09)
    scorer, asked = made([dict.fromkeys(range(6), 1.0), tiny])
    found, scores = SEARCHES[how](scorer, asked, 2, None)
    assert sorted(found.tolist()) == [*range(6)]
    assert set(scores.tolist()) == {1.0}


@pytest.mark.parametrize("how", SEARCHES)
def test_what_scores_nothing_is_not_found(how: str) -> None:
    if how == "numba":
        pytest.importorskip("numba")
    scorer, asked = made([{1: 1e-30, 2: 1.0}, {1: 1e-30, 3: 2.0}])
    tiny = [replace(term, weight=np.float32(1e-30)) for term in asked]
    found, scores = SEARCHES[how](scorer, tiny, 5, None)
    assert sorted(found.tolist()) == [2, 3]
    assert (scores > 0).all()
