"""Plans with their prompts: rerankers that read real chats, and recipes that name plans within plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankpipe.lm.fake import Fake, Oracle
from rankpipe.recipe import build, check
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import (
    AllPairs,
    Consensus,
    Kemeny,
    MultiPass,
    PairwiseBubble,
    PairwiseHeap,
    Planner,
    SelfConsistent,
    SetwiseBubble,
    SetwiseHeap,
    ShuffledPasses,
    Sliding,
    TopDown,
)
from tests.rerank.test_listwise import ranking, worths

PAIRS = [
    (SetwiseHeap(5), "setwise"), (SetwiseBubble(5, 4), "setwise"), (AllPairs(), "pairwise"),
    (PairwiseHeap(5), "pairwise"), (PairwiseBubble(5), "pairwise"), (TopDown(5, 10, None), "rank_zephyr"),
    (MultiPass(Sliding(6, 3), 2), "rank_zephyr"), (SelfConsistent(Sliding(), 3), "rank_zephyr"),
    (Consensus(SetwiseHeap(5), 3), "setwise"), (ShuffledPasses(), "rank_zephyr"),
]  # fmt: skip


def worth(passage: str) -> float:
    return float(passage.strip('"'))  # as the setwise prompt shows it


@pytest.mark.parametrize(("plan", "prompt"), PAIRS, ids=str)
def test_the_best_come_to_the_top(plan: Planner, prompt: str) -> None:
    inputs = [ranking(n, str(n)) for n in (25, 0, 1, 2, 30)]
    for given, out in zip(inputs, Listwise(Oracle(worth), plan, prompt).apply(inputs), strict=True):
        n = len(given.hits)
        assert worths(out)[:5] == list(range(n))[::-1][:5]
        [step] = out.steps
        assert 0 <= step.calls <= plan.calls(n)
        assert step.repaired == 0


def test_first_needs_one_token_for_the_best_of_a_few() -> None:
    [out] = First(Oracle(worth), SetwiseHeap(5, 4), "setwise").apply([ranking(30)])
    assert worths(out)[:5] == [29, 28, 27, 26, 25]
    assert out.steps[0].tokens_out == out.steps[0].calls


class Refusing(Fake):
    """Has seen nothing that it could rank."""

    def reply(self, text: str) -> str:
        return "I'm sorry, I cannot rank these passages."


@pytest.mark.parametrize(("plan", "prompt"), PAIRS, ids=str)
def test_a_model_that_refuses_changes_nothing(plan: Planner, prompt: str) -> None:
    given = ranking(30)
    [out] = Listwise(Refusing(), plan, prompt).apply([given])
    assert worths(out) == worths(given)
    assert out.steps[0].repaired == out.steps[0].calls > 0


def test_a_prompt_for_the_best_one_asks_nothing_about_the_others() -> None:
    """They are no votes, whatever the shuffles, and stay in the order they were in."""
    given, lm = ranking(20), Oracle(lambda passage: worth(passage) == 19)
    [out] = Listwise(lm, Consensus(SetwiseBubble(1, 20), 4), "setwise").apply([given])
    assert worths(out) == [19, *(w for w in worths(given) if w != 19)]


@pytest.mark.parametrize(("plan", "prompt"), PAIRS, ids=str)
def test_budgets(plan: Planner, prompt: str) -> None:
    for calls in (0, 1, 30, 100):
        [out] = Listwise(Oracle(worth), plan, prompt, budget=Budget(calls=calls)).apply([ranking(25)])
        assert out.steps[0].calls <= calls
        assert sorted(worths(out)) == list(range(25))


def test_plans_within_plans_in_a_recipe() -> None:
    tree = {
        "use": "multipass",
        "passes": 2,
        "plan": {"use": "self-consistent", "plan": {"use": "top-down", "k": 5}, "merge": {"use": "kemeny", "exact": 8}},
    }
    assert check(tree) == []
    assert build(tree, Path()) == MultiPass(SelfConsistent(TopDown(5), merge=Kemeny(8)), 2)
    assert check({"use": "setwise-heap", "c": 3}) == ["setwise-heap: no argument 'c'; it takes k, size"]
    assert check({"use": "top-down", "budget": "all"}) == ["top-down: budget: 'all' is a str, expected int | None"]
