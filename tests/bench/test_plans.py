"""A plan that is ended early gives what the reranker gives with such a budget, and costs what the reranker says."""

from pathlib import Path
from typing import Any

import pytest

from rankpipe import Doc, Hit, Query, Ranking
from rankpipe.catalog import CATALOG, find
from rankpipe.lm.fake import Oracle
from rankpipe.rerank import plans
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.listwise import Listwise

BENCH = Path(__file__).parents[2] / "eval" / "bench"
WORTH = [(37 * p) % 41 for p in range(41)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    import plans as bench

    return bench


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize(
    "plan", [plans.Sliding(10, 5), plans.TopDown(4, 10, 10), plans.SelfConsistent(plans.Single(9), 5)]
)
def test_ended_early_as_a_budget_does(bench: Any, plan: plans.Planner, calls: int) -> None:
    texts = [f"worth {w}" for w in WORTH]
    ranking = Ranking(Query("q", "which"), tuple(Hit(Doc(t, t), -float(i)) for i, t in enumerate(texts)))
    lm = Oracle(lambda text: float(text.split()[1]), context=10**6)
    [found] = Listwise(lm, plan, budget=Budget(calls=calls), depth=30)([ranking])
    system = bench.System(plan, depth=30)
    game = bench.play(system, 0, lambda _, w: sorted(w, key=lambda p: -WORTH[p]), len(texts), calls)
    assert [texts[p] for p in game.order] == [h.doc.id for h in found.hits]
    assert len(game.windows) == found.steps[-1].calls


def test_every_plan_of_the_catalogue_is_measured(bench: Any) -> None:
    known = {find(name) for name, entry in CATALOG.items() if entry.target.startswith("rankpipe.rerank.plans:")}
    assert {type(system.plan) for system in bench.SYSTEMS.values()} == known - {plans.Borda, plans.Kemeny}


def test_noise_is_the_same_again_and_another_for_another_order(bench: Any) -> None:
    docs = [Doc(f"d{i}", "text") for i in range(9)]
    ranking = Ranking(Query("q", "which"), tuple(Hit(d, -float(i)) for i, d in enumerate(docs)))
    judges = bench.all_judges([ranking], {"q": {"d4": 3}}, {"q": {d.id: 1.0 for d in docs}})
    shown = [*range(9)]
    assert judges["oracle"](0, shown) == [4, 0, 1, 2, 3, 5, 6, 7, 8]
    assert judges["cross-encoder"](0, shown) == shown
    assert judges["noisy"](0, shown) == judges["noisy"](0, shown)
    assert judges["noisy"](0, shown) != judges["noisy"](0, shown[::-1])
