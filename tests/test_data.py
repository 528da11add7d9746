import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe import Doc, Hit, Query, Ranking

Q = Query("1", "question")


def ranking(*scores: float) -> Ranking:
    return Ranking(Q, tuple(Hit(Doc(f"d{i}", "text"), s) for i, s in enumerate(scores)))


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Q.id = "2"  # type: ignore[misc]


def test_contents_is_beirs() -> None:
    assert Doc("1", "text", "title").contents == "title text"
    assert Doc("1", "text").contents == "text"


def test_scored_sorts_ties_by_id_falling() -> None:
    hits = [Hit(Doc(i, ""), s) for i, s in [("a", 1.0), ("c", 1.0), ("b", 2.0), ("B", 1.0), ("é", 1.0)]]
    assert [h.doc.id for h in Ranking.scored(Q, hits).hits] == ["b", "é", "c", "a", "B"]
    assert [h.doc.id for h in Ranking.scored(Q, hits, k=2).hits] == ["b", "é"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_are_finite(score: float) -> None:
    with pytest.raises(ValueError, match="document 'd0' has the score"):
        ranking(score)


def test_no_document_twice() -> None:
    hit = Hit(Doc("a", ""), 1.0)
    with pytest.raises(ValueError, match="document 'a' is in the ranking twice"):
        Ranking.scored(Q, [hit, hit])


def test_order_and_scores_agree() -> None:
    with pytest.raises(ValueError, match="not in the order of their scores"):
        ranking(1.0, 2.0)


@pytest.mark.parametrize("order", [[0], [0, 0, 1], [0, 1, 3], [0, 1, 2, 2], [-1, 0, 1]])
def test_reordering_refuses_lost_and_doubled(order: list[int]) -> None:
    with pytest.raises(ValueError, match="not an order of 3 hits"):
        ranking(3.0, 2.0, 1.0).reordered(order)


@given(st.permutations(range(6)))
def test_reordered_scores_fall_strictly(order: list[int]) -> None:
    before = ranking(*[1.0] * 6)
    after = before.reordered(order)
    assert [h.doc.id for h in after.hits] == [f"d{i}" for i in order]
    assert all(a.score > b.score for a, b in zip(after.hits, after.hits[1:], strict=False))
    assert before.hits[0].score == 1.0
