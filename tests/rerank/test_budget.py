"""Reranking that is ended early: never more than allowed, the best order so far, and what was skipped is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe.errors import RecipeError
from rankpipe.lm import LM, Chat, Completion
from rankpipe.lm.cache import Absent, Cached
from rankpipe.lm.fake import TOKEN, Oracle
from rankpipe.lm.http import Http
from rankpipe.lm.thoughts import END
from rankpipe.rerank.budget import SLICE, Budget, Spent, spend
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import AllPairs, Planner, Sliding, Tournament
from rankpipe.rerank.pointwise import Pointwise
from tests.lm.server import CHAT, serving, stall
from tests.lm.test_http import Behind
from tests.rerank.test_listwise import ranking, worths

LOADING_S = 0.5  # longer than all that is asked of it afterwards takes, even on a busy machine


class Counting(Oracle):
    """Counts how often it counts."""

    counts = 0

    def count(self, chat: Chat) -> int:
        self.counts += 1
        return super().count(chat)


class Slow(Oracle):
    """Takes 2 ms for a chat."""

    def reply(self, text: str) -> str:
        time.sleep(0.002)
        return super().reply(text)


class Late(Oracle):
    """Takes its time to be loaded, whoever loads it."""

    identity = "late"
    loaded = False

    def ready(self) -> None:
        if not self.loaded:
            time.sleep(LOADING_S)
        self.loaded = True

    def reply(self, text: str) -> str:
        self.ready()
        return super().reply(text) if "[" in text else "yes"


class Thinker(Oracle):
    """Thinks for as long as it may."""

    identity, thinking = "thinker", 50

    def reply(self, text: str) -> str:
        return "hm " * (self.thinking - len(TOKEN.findall(END))) + END + super().reply(text)


@pytest.mark.parametrize("plan", [Sliding(), Tournament(), AllPairs()], ids=str)
@pytest.mark.parametrize("calls", [0, 1, 3, 5, 8, 9, 100])
def test_calls(plan: Planner, calls: int) -> None:
    prompt = "pairwise" if isinstance(plan, AllPairs) else "rank_zephyr"
    [out] = Listwise(Oracle(float), plan, prompt, budget=Budget(calls=calls)).apply([ranking(100)])
    [step] = out.steps
    assert step.calls == min(calls, plan.calls(100))
    assert step.calls + step.skipped == plan.calls(100)
    assert sorted(worths(out)) == list(range(100))


def test_what_was_found_so_far_is_kept() -> None:
    """Three of nine sliding windows: the best of the last 40 have come up to rank 61."""
    given = ranking(100)
    [out] = Listwise(Oracle(float), budget=Budget(calls=3)).apply([given])
    assert worths(out)[:60] == worths(given)[:60]
    assert worths(out)[60:70] == sorted(worths(given)[60:], reverse=True)[:10]


def test_no_prompt_is_made_that_the_calls_forbid() -> None:
    lm = Counting(float)
    Listwise(lm, AllPairs(), "pairwise", budget=Budget(calls=7)).apply([ranking(50)])
    assert sum(lm.batches) == 7
    assert lm.counts == 7 + 2 + 7  # of each prompt, of a reply, and the model's own


def test_tokens() -> None:
    [whole] = Listwise(Oracle(float)).apply([ranking(100)])
    used = whole.steps[0].tokens_in + whole.steps[0].tokens_out
    for most in (0, used // 2, used - 1, used):
        [step] = Listwise(Oracle(float), budget=Budget(tokens=most)).apply([ranking(100)])[0].steps
        assert step.tokens_in + step.tokens_out <= most
        assert (step.skipped == 0) == (most == used)


def test_tokens_end_a_round_in_its_middle() -> None:
    [first] = Listwise(Oracle(float), Tournament(), budget=Budget(calls=2)).apply([ranking(100)])
    used = first.steps[0].tokens_in + first.steps[0].tokens_out
    [out] = Listwise(Oracle(float), Tournament(), budget=Budget(tokens=used + 9)).apply([ranking(100)])
    assert replace(out.steps[0], seconds=0) == replace(first.steps[0], seconds=0)
    assert out.hits == first.hits


def test_seconds_are_foreseen() -> None:
    spent = Spent(seconds=2.0, asked=4)
    assert Budget(seconds=3.0).allows(spent, calls=2, tokens=0)
    assert not Budget(seconds=2.9).allows(spent, calls=2, tokens=0)
    assert Budget(seconds=0.01).allows(Spent(), calls=9, tokens=0)  # what a call takes is not known before
    assert not Budget(seconds=0).allows(Spent(), calls=1, tokens=0)


@pytest.mark.parametrize("limit", [{"seconds": 0}, {"calls": 0}, {"tokens": 0}])
def test_nothing_is_no_call(limit: dict[str, int]) -> None:
    lm, given = Oracle(float), ranking(100)
    for kind in (Listwise, First):
        [out] = kind(lm, budget=Budget(**limit)).apply([given])
        assert ([h.doc for h in out.hits], lm.batches) == ([h.doc for h in given.hits], [])
        assert (out.steps[0].calls, out.steps[0].skipped) == (0, 9)


def test_seconds_are_looked_at_after_a_few_calls() -> None:
    """After the first one, of which nothing was known, and then after each slice."""
    lm = Slow(float)
    [out] = Listwise(lm, AllPairs(), "pairwise", budget=Budget(seconds=1e-6)).apply([ranking(20)])
    assert lm.batches == [1]
    assert (out.steps[0].calls, out.steps[0].skipped) == (1, 20 * 19 - 1)
    lm = Slow(float)
    Listwise(lm, AllPairs(), "pairwise", budget=Budget(seconds=1e6)).apply([ranking(5)])
    assert lm.batches == [1, SLICE, SLICE, 20 - 1 - 2 * SLICE]


class Timed(Oracle):
    """Every chat took a fifth of a second, as if a cache remembered."""

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        return [replace(one, seconds=0.2) for one in super().complete(chats, max_tokens=max_tokens)]


@pytest.mark.parametrize(("seconds", "calls"), [(0.1, 1), (0.3, 1), (0.5, 2), (1.1, 5), (9.1, 45), (99.0, 90)])
def test_seconds_are_exceeded_by_the_first_call_at_most_if_all_take_the_same(seconds: float, calls: int) -> None:
    out = Listwise(Timed(float), AllPairs(), "pairwise", depth=10, budget=Budget(seconds=seconds)).apply(
        [ranking(10, str(q)) for q in range(3)]
    )
    assert [(r.steps[0].calls, r.steps[0].skipped) for r in out] == [(calls, 90 - calls)] * 3


@pytest.mark.parametrize("kind", [Listwise, First, Pointwise])
@pytest.mark.parametrize("cached", [False, True])
def test_loading_is_not_paid(tmp_path: Path, kind: type[Listwise | First | Pointwise], cached: bool) -> None:
    """By nobody: the first query could else ask no second time."""
    late = Late(float)
    lm = Cached(late, tmp_path / "c.sqlite") if cached else late
    [out] = kind(lm, budget=Budget(seconds=LOADING_S)).apply([ranking(40)])
    assert (late.loaded, out.steps[0].skipped) == (True, 0)


def test_a_model_that_is_not_asked_is_not_loaded(tmp_path: Path) -> None:
    given = ranking(30)
    Listwise(Cached(Oracle(float), tmp_path / "c.sqlite")).apply([given])
    late = Late(float)
    late.identity = Oracle(float).identity
    [out] = Listwise(Cached(late, tmp_path / "c.sqlite")).apply([given])
    assert (late.loaded, out.steps[0].calls) == (False, 2)


@pytest.mark.parametrize("cached", [False, True])
def test_thoughts_are_tokens(tmp_path: Path, cached: bool) -> None:
    lm: LM = Cached(Thinker(float), tmp_path / "c.sqlite") if cached else Thinker(float)
    [whole] = Listwise(lm, Sliding(4, 2)).apply([ranking(10)])
    [step] = whole.steps
    used = step.tokens_in + step.tokens_out
    assert step.tokens_out == 4 * (50 + 4 * 3 + 3)  # all that they may be
    for most in range(0, used + 1, 25):
        [step] = Listwise(lm, Sliding(4, 2), budget=Budget(tokens=most)).apply([ranking(10)])[0].steps
        assert step.tokens_in + step.tokens_out <= most
        assert step.skipped > 0
    assert Listwise(lm, Sliding(4, 2), budget=Budget(tokens=used)).apply([ranking(10)])[0].hits == whole.hits
    if cached:
        absent: LM = Cached(Absent("thinker"), tmp_path / "c.sqlite", offline=True)  # type: ignore[arg-type]
        again, first = (Listwise(one, Sliding(4, 2), budget=Budget(tokens=used - 1)) for one in (absent, lm))
        assert again.apply([ranking(10)])[0].hits == first.apply([ranking(10)])[0].hits


@pytest.mark.parametrize("kind", [Listwise, First])
def test_a_replay_ends_where_the_run_ended(tmp_path: Path, kind: type[Listwise | First]) -> None:
    """Answers from a cache take no time, but cost the seconds that they took when they were asked."""
    given, path = [ranking(60, "1"), ranking(60, "2")], tmp_path / "c.sqlite"
    lm = Slow(float)
    whole = kind(Cached(lm, path), Sliding(4, 2), budget=Budget(seconds=0.03)).apply(given)
    assert all(r.steps[0].calls and r.steps[0].skipped for r in whole)
    asked = sum(lm.batches)
    for offline in (False, True):
        again = kind(Cached(lm, path, offline=offline), Sliding(4, 2), budget=Budget(seconds=0.03)).apply(given)
        assert [r.hits for r in again] == [r.hits for r in whole]
        assert [replace(r.steps[0], seconds=0) for r in again] == [replace(r.steps[0], seconds=0) for r in whole]
        assert sum(lm.batches) == asked


def test_every_query_has_its_own() -> None:
    out = Listwise(Oracle(float), budget=Budget(calls=2)).apply([ranking(100), ranking(30, "2"), ranking(1, "3")])
    assert [(r.steps[0].calls, r.steps[0].skipped) for r in out] == [(2, 7), (2, 0), (0, 0)]


def test_limits_below_zero() -> None:
    with pytest.raises(RecipeError, match=r"seconds: -1; expected 0 or more\n.*calls: -2"):
        Budget(seconds=-1, calls=-2)
    with pytest.raises(RecipeError, match=r"seconds: nan; expected 0 or more"):
        Budget(seconds=float("nan"))


def test_what_many_wait_for_is_asked_together() -> None:
    spent = [Spent(), Spent(), Spent()]
    batches: list[list[str]] = []

    def ask(asked: list[tuple[int, str]]) -> None:
        batches.append([name for _, name in asked])
        for q, _ in asked:
            spent[q].pay(0.0, 10)

    waiting: list[Sequence[str]] = ["abcd", "", "ef"]
    spend(Budget(tokens=35), spent, waiting, lambda q, name: ((q, name), 15), ask)
    assert batches == [["a", "b", "e", "f"], ["c"]]  # each at its dearest; a cheaper one leaves room for another
    assert [(s.calls, s.skipped) for s in spent] == [(3, 1), (0, 0), (2, 0)]


@pytest.mark.parametrize("kind", [Listwise, First])
def test_a_server_is_not_waited_for_beyond_the_seconds(tmp_path: Path, kind: type[Listwise | First]) -> None:
    """What it has not said by then is no reply, and a replay knows that; whoever asks the server, asks again."""
    behind, path, given = Behind(Oracle(float)), tmp_path / "c.sqlite", [ranking(10, "1"), ranking(10, "2")]
    acts = [behind.chat] * 3
    with serving([*acts, stall], tokenize=[behind.tokenize]) as server:
        lm = Http("m", server.url, context=9000)
        budget = Budget(seconds=1.0)
        whole = kind(Cached(lm, path), Sliding(4, 2), budget=budget).apply(given)
        steps = [r.steps[0] for r in whole]
        assert sorted((s.calls, s.skipped) for s in steps) == [(2, 2), (3, 1)]
        assert sum(s.repaired for s in steps) == 2
        offline = Cached(Absent(lm.identity), path, offline=True)  # type: ignore[arg-type]
        again = kind(offline, Sliding(4, 2), budget=budget).apply(given)
        assert [r.hits for r in again] == [r.hits for r in whole]
        assert [replace(r.steps[0], seconds=0) for r in again] == [replace(s, seconds=0) for s in steps]
        server.scripts[CHAT] = [behind.chat]
        assert sum(r.steps[0].calls for r in kind(Cached(lm, path), Sliding(4, 2)).apply(given)) == 8
        assert len(server.bodies()) == 5 + 5  # what was late is asked again
