"""Reranking that is ended early: never more than allowed, the best order so far, and what was skipped is told."""

from __future__ import annotations

import pytest

from rankpipe.errors import RecipeError
from rankpipe.lm.fake import Oracle
from rankpipe.rerank.budget import Budget, Spent
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Planner, Sliding, Tournament
from tests.rerank.test_listwise import ranking, worths


@pytest.mark.parametrize("plan", [Sliding(), Tournament()], ids=str)
@pytest.mark.parametrize("calls", [0, 1, 5, 8, 9, 100])
def test_calls(plan: Planner, calls: int) -> None:
    [out] = Listwise(Oracle(float), plan, budget=Budget(calls=calls)).apply([ranking(100)])
    [step] = out.steps
    assert step.calls <= calls
    assert step.calls + step.skipped == plan.calls(100)
    assert sorted(worths(out)) == list(range(100))


def test_what_was_found_so_far_is_kept() -> None:
    """Three of nine sliding windows: the best of the last 40 have come up to rank 61."""
    given = ranking(100)
    [out] = Listwise(Oracle(float), budget=Budget(calls=3)).apply([given])
    assert worths(out)[:60] == worths(given)[:60]
    assert worths(out)[60:70] == sorted(worths(given)[60:], reverse=True)[:10]


def test_tokens() -> None:
    [whole] = Listwise(Oracle(float)).apply([ranking(100)])
    used = whole.steps[0].tokens_in + whole.steps[0].tokens_out
    for most in (0, used // 2, used - 1, used):
        [step] = Listwise(Oracle(float), budget=Budget(tokens=most)).apply([ranking(100)])[0].steps
        assert step.tokens_in + step.tokens_out <= most
        assert (step.skipped == 0) == (most == used)


def test_seconds_are_foreseen() -> None:
    spent = Spent(seconds=2.0, calls=4)
    assert Budget(seconds=3.0).allows(spent, calls=2, tokens=0)
    assert not Budget(seconds=2.9).allows(spent, calls=2, tokens=0)
    [step] = First(Oracle(float), budget=Budget(seconds=0)).apply([ranking(100)])[0].steps
    assert (step.calls, step.skipped) == (1, 8)  # what the first window takes is not known before


def test_every_query_has_its_own() -> None:
    out = Listwise(Oracle(float), budget=Budget(calls=2)).apply([ranking(100), ranking(30, "2"), ranking(1, "3")])
    assert [(r.steps[0].calls, r.steps[0].skipped) for r in out] == [(2, 7), (2, 0), (0, 0)]


def test_limits_below_zero() -> None:
    with pytest.raises(RecipeError, match=r"seconds: -1; expected 0 or more\n.*calls: -2"):
        Budget(seconds=-1, calls=-2)
