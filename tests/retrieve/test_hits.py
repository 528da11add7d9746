"""Hits as columns are what the records of them would be, from one segment or several."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.retrieve.docs import Docs, best, write_docs
from rankpipe.retrieve.hits import Found, hits, ranking
from rankpipe.retrieve.parts import Part

IDS = [["b", "d", "f", "é"], ["a", "c", "e", "g"], ["z"]]
QUERY = Query("q", "what")
SCORES = st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=9, max_size=9)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Docs]:
    return [written(ids, tmp_path_factory.mktemp("segment")) for ids in IDS]


def written(ids: list[str], folder: Path) -> Docs:
    for _ in write_docs((Doc(i, f"text of {i}") for i in ids), Part(folder, memory=1 << 30, known=())):
        pass
    return Docs(folder)


def found(docs: Docs, scores: list[float], k: int) -> Found:
    told = np.array(scores, np.float32)
    top = best(told, docs.precedence, k)
    made = hits(docs, top, told[top])
    assert isinstance(made, Found)
    return made


@given(scores=SCORES, k=st.integers(1, 12), parts=st.integers(1, 3))
def test_the_best_of_segments(segments: list[Docs], scores: list[float], k: int, parts: int) -> None:
    left, several, records = iter(scores), [], []
    for docs in segments[:parts]:
        own = [next(left) for _ in range(len(docs))]
        several.append(found(docs, own, k))
        records += [Hit(Doc(i, f"text of {i}"), score) for i, score in zip(docs.ids, own, strict=True)]
    made = ranking(QUERY, several, k)
    assert isinstance(made.hits, Found)
    right = Ranking.scored(QUERY, records, k)
    assert made == right
    assert hash(made) == hash(right)
    assert [h.score for h in made.hits] == [h.score for h in right.hits]
    assert len(made.hits.docs) == len({h.doc._docs for h in made.hits})  # no segment is kept open for nothing


def test_passes_for_a_tuple(segments: list[Docs]) -> None:
    made = found(segments[0], [1, 4, 3, 2], 4)
    records = tuple(made)
    assert [h.doc.id for h in records] == ["d", "f", "é", "b"]
    assert (made, len(made), hash(made), repr(made)) == (records, 4, hash(records), repr(records))
    assert records == made != records[:2]
    assert made != [*records]
    assert (made[0], made[-1]) == (records[0], records[-1])
    with pytest.raises(IndexError):
        made[4]
    for some in (slice(2), slice(1, -1), slice(-2, None), slice(9, 12), slice(None, None, -1)):
        assert made[some] == records[some]
    assert made + records[:1] == records + made[:1] == (*records, records[0])
    assert made[0] in made
    assert made[0] is made[0]
    thawed = pickle.loads(pickle.dumps(made))
    assert type(thawed) is tuple
    assert thawed == records


def test_hits_out_of_order_are_records(segments: list[Docs]) -> None:
    places = np.array([1, 0])
    for scores in ([1, 2], [1, 1], [np.inf, 1], [np.nan, 1], [1, np.nan], [1, -np.inf]):
        ordered = segments[0].precedence[1] < segments[0].precedence[0] and scores == [1, 1]
        assert isinstance(hits(segments[0], places, np.array(scores, np.float32)), Found) == ordered
    with pytest.raises(ValueError, match="has the score nan"):
        ranking(QUERY, [hits(segments[0], places, np.array([np.nan, 1], np.float32))], 2)


def test_none_are_the_empty_tuple(segments: list[Docs]) -> None:
    empty = hits(segments[0], np.empty(0, int), np.empty(0, np.float32))
    assert empty == () == ranking(QUERY, [empty, empty], 3).hits
    assert not empty
    assert ranking(QUERY, [(), ()], 3).hits == ranking(QUERY, [], 3).hits == ()
