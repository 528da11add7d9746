"""Fusion equals its formulas, whatever the lists; and refuses what is no retriever."""

import math
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe import recipe
from rankpipe.data import Query
from rankpipe.errors import RecipeError
from rankpipe.retrieve.fuse import Fuse
from rankpipe.stage import Top
from tests.retrieve.fakes import Listed

Scores = dict[str, float]
Q = Query("q", "what")
SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-20, 20).map(float), max_size=8)


def fused(method: str, *lists: Scores, **options: object) -> Scores:
    members = [Listed({"q": scores}) for scores in lists]
    [ranking] = Fuse(*members, method=method, **options).apply([Q])  # type: ignore[arg-type]
    return {hit.doc.id: hit.score for hit in ranking.hits}


def truth(method: str, weights: list[float], *lists: Scores) -> Scores:
    total: Scores = dict.fromkeys({d for scores in lists for d in scores}, 0.0)
    for weight, scores in zip(weights, lists, strict=True):
        values = list(scores.values())
        for doc in total if scores else ():
            if method == "rrf":
                above = [d for d in scores if doc in scores and (scores[d], d) >= (scores[doc], doc)]
                total[doc] += weight / (60 + len(above)) if above else 0.0
            elif method == "minmax":
                width = max(values) - min(values)
                total[doc] += weight * ((scores[doc] - min(values)) / width if width else 1.0) if doc in scores else 0.0
            elif pstdev(values):
                total[doc] += weight * (scores.get(doc, min(values)) - fmean(values)) / pstdev(values)
    return total


@given(st.lists(SCORES, min_size=2, max_size=4), st.sampled_from(["rrf", "minmax", "zscore"]), st.data())
def test_equals_the_formula(lists: list[Scores], method: str, data: st.DataObject) -> None:
    some = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=len(lists), max_size=len(lists))
    weights = data.draw(some.filter(any))
    found, expected = fused(method, *lists, weights=weights), truth(method, weights, *lists)
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[d], expected[d], abs_tol=1e-9) for d in found)
    assert list(found) == sorted(sorted(found, reverse=True), key=found.__getitem__, reverse=True)


def test_by_hand() -> None:
    first, second = {"a": 3.0, "b": 2.0, "c": 1.0}, {"b": 10.0, "d": 5.0}
    assert fused("rrf", first, second) == {"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63}
    assert fused("minmax", first, second) == {"b": 1.5, "a": 1.0, "d": 0.0, "c": 0.0}
    assert fused("rrf", first, second, rank_constant=0, weights=[1, 0.1]) == {
        "a": 1.0, "b": 0.6, "c": 1 / 3, "d": 0.05
    }  # fmt: skip
    assert list(fused("rrf", first, second, k=2)) == ["b", "a"]
    assert fused("minmax", {"a": 7.0}, {}) == {"a": 1.0}
    assert fused("zscore", {"a": 7.0, "b": 7.0}, {}) == {"b": 0.0, "a": 0.0}
    assert fused("rrf", {}, {}) == {}


def test_depth_is_what_is_read_and_normalised() -> None:
    first, second = {"a": 3.0, "b": 2.0, "c": 1.0}, {"c": 9.0, "b": 8.0, "a": 4.0}
    assert fused("minmax", first, second, depth=2) == {"c": 1.0, "a": 1.0, "b": 0.0}


def test_records_are_of_the_first_list_and_all_steps_are_kept() -> None:
    one, two = Listed({"q": {"a": 1.0}}, "one"), Listed({"q": {"a": 1.0, "b": 0.5}}, "two")
    [ranking] = Fuse(one, two >> Top(2)).apply([Q])
    assert {h.doc.id: h.doc.title for h in ranking.hits} == {"a": "one", "b": "two"}
    assert [s.stage for s in ranking.steps] == ["Listed", "Listed", "Top(2)", "Fuse(rrf)"]
    [nested] = Fuse(one, Fuse(one, two)).apply([Q])
    assert [s.stage for s in nested.steps] == ["Listed", "Listed", "Listed", "Fuse(rrf)", "Fuse(rrf)"]
    assert all(s.seconds >= 0 for s in nested.steps)


def test_a_batch_is_fused_query_by_query() -> None:
    one, two = Listed({"q1": {"a": 1.0}}), Listed({"q2": {"b": 1.0}})
    rankings = Fuse(one, two).run([Query("q1", ""), Query("q2", ""), Query("q3", "")])
    assert [[h.doc.id for h in r.hits] for r in rankings] == [["a"], ["b"], []]


def test_refuses_what_cannot_be_fused_and_names_all_faults() -> None:
    with pytest.raises(RecipeError) as caught:
        Fuse(Listed({}), Top(3), "bm25", method="rff", weights=[1, -1, float("nan")], depth=0)  # type: ignore[arg-type]
    assert caught.value.faults == [
        "retrievers[1]: Top(3) takes Ranking and gives Ranking, expected Query and Ranking",
        "retrievers[2]: a str is no retriever",
        "method: 'rff' is not one of rrf, minmax, zscore",
        "weights[1]: -1; expected 0 or more",
        "weights[2]: nan; expected 0 or more",
        "depth: 0; expected 1 or more",
    ]
    with pytest.raises(RecipeError, match=r"retrievers: 1; expected two or more(.|\n)*weights: 2 for 1 retrievers"):
        Fuse(Listed({}), weights=[1, 1])


def test_from_a_recipe(tmp_path: Path) -> None:
    member = {"use": "tests.retrieve.fakes:Listed", "lists": {"q": {"a": 1.0}}}
    tree = {"use": "fuse", "retrievers": [member, member], "method": "minmax", "weights": [1, 2]}
    assert recipe.check(tree) == []
    fuse = recipe.build(tree, tmp_path)
    assert [h.score for h in fuse.search("x").hits] == [3.0]
    assert recipe.check({**tree, "retrievers": member}) == ["fuse: retrievers: expected a list"]


def test_a_search_has_its_own_k() -> None:
    one, two = Listed({"q": {"a": 3.0, "b": 2.0, "c": 1.0}}), Listed({"q": {"c": 3.0}})
    fuse = Fuse(one, two)
    assert [h.doc.id for h in fuse.search("x", k=2).hits] == [h.doc.id for h in fuse.search("x").hits][:2]
    assert [h.doc.id for h in one.search("x", k=1).hits] == ["a"]  # it has no such bound of its own
    assert (fuse.k, len(fuse.search("x").hits)) == (1000, 3)
    with pytest.raises(RecipeError, match="where: Listed cannot filter by fields"):
        one.search("x", where="year > 3")
