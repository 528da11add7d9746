"""Ranking losses against their formulas, item by item; and the bugs that other code has."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import exp, factorial, log, log2
from statistics import mean
from typing import Any

import pytest

from rankpipe.train import losses
from tests.train.lists import LOSSES, ORDERED, every, learned, lists, torch

pytestmark = pytest.mark.usefixtures("one_thread")
close = torch.testing.assert_close
List = list[float]


def softmax(z: List, t: float = 1.0) -> List:
    return [exp(v / t) / sum(exp(u / t) for u in z) for v in z]


def pairs(y: List) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j]]


def middle(y: List) -> List:
    return [sum(u > v for u in y) + (sum(u == v for u in y) + 1) / 2 for v in y]


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def soft(s: List, t: float) -> List:
    return [1 + sum(sigmoid((u - v) / t) for j, u in enumerate(s) if j != i) for i, v in enumerate(s)]


def shares(y: List, k: int | None = None) -> List:
    gain = [2 ** max(v, 0) - 1 for v in y]
    ideal = sum(g / log2(1 + r) for r, g in enumerate(sorted(gain, reverse=True)[:k], 1))
    return [g / ideal for g in gain]


def ranknet(s: List, y: List) -> float:
    return mean(log(1 + exp(s[j] - s[i])) for i, j in pairs(y))


def weighted(s: List, y: List) -> float:
    r = middle(y)
    return mean(log(1 + exp(s[j] - s[i])) / (r[i] + r[j]) for i, j in pairs(y))


def lambdaloss(mu: float, rho: float, k: int = 99) -> Callable[[List, List], float]:
    def loss(s: List, y: List) -> float:
        rank, g, total = [sum(u > v for u in s) + 1 for v in s], shares(y, k), 0.0
        for i, j in pairs(y):
            if min(rank[i], rank[j]) <= k:
                d = abs(rank[i] - rank[j])
                weight = mu * abs(1 / log2(1 + d) - 1 / log2(2 + d))
                weight += rho * abs(1 / log2(1 + rank[i]) - 1 / log2(1 + rank[j]))
                total += weight * abs(g[i] - g[j]) * log2(1 + exp(s[j] - s[i]))
        return total

    return loss


def approx(t: float) -> Callable[[List, List], float]:
    return lambda s, y: 1 - sum(g / log2(1 + r) for g, r in zip(shares(y), soft(s, t), strict=True))


def neural(s: List, y: List) -> float:
    n, around = len(s), [sum(abs(u - v) for u in s) for v in s]
    p = [softmax([(n + 1 - 2 * k) * s[j] - around[j] for j in range(n)]) for k in range(1, n + 1)]
    for _ in range(30):
        p = [[v / sum(row[j] for row in p) for j, v in enumerate(row)] for row in p]
        p = [[v / sum(row) for v in row] for row in p]
    return 1 - sum(sum(v * g for v, g in zip(row, shares(y), strict=True)) / log2(1 + k) for k, row in enumerate(p, 1))


def costs(s: List, y: List) -> List:
    """Of drawing the first, the second ... item of the labels' order."""
    z = [v for _, v in sorted(zip(y, s, strict=True), reverse=True)]
    return [log(sum(map(exp, z[r:]))) - z[r] for r in range(len(z))]


def plistmle(s: List, y: List) -> float:
    weights = [2 ** (len(s) - r) - 1 for r in range(1, len(s) + 1)]
    return sum(w * c for w, c in zip(weights, costs(s, y), strict=True)) / sum(weights)


def infonce(s: List, y: List) -> float:
    below = sum(exp(v / 0.5) for v, label in zip(s, y, strict=True) if label <= 0)
    return mean(-log(exp(v / 0.5) / (exp(v / 0.5) + below)) for v, label in zip(s, y, strict=True) if label > 0)


def inbatch(s: List, y: List) -> float:
    best = max(v for v, label in zip(s, y, strict=True) if label > 0)
    kept = [(v, label) for v, label in zip(s, y, strict=True) if label > 0 or v <= best + 0.8]
    return infonce([v for v, _ in kept], [label for _, label in kept])


def kl(s: List, y: List) -> float:
    return 4 * sum(p * (log(p) - log(q)) for p, q in zip(softmax(y, 2), softmax(s, 2), strict=True))


FORMULAS: dict[str, Callable[[List, List], float]] = {
    "ranknet": ranknet,
    "weighted-ranknet": weighted,
    "lambdaloss": lambdaloss(10, 1),
    "lambdaloss@2": lambdaloss(10, 1, 2),
    "lambdaloss-2": lambdaloss(1, 0),
    "lambdarank": lambdaloss(0, 1),
    "approx-ndcg": approx(0.1),
    "approx-ndcg-smooth": approx(1),
    "neural-ndcg": neural,
    "listnet": lambda s, y: -sum(p * log(q) for p, q in zip(softmax(y, 0.7), softmax(s), strict=True)),
    "listmle": lambda s, y: sum(costs(s, y)),
    "p-listmle": plistmle,
    "softmax-ce": lambda s, y: -mean(log(q) for q, v in zip(softmax(s, 0.5), y, strict=True) if v > 0),
    "infonce": infonce,
    "in-batch": inbatch,
    "margin-mse": lambda s, y: mean(
        (s[i] - s[j] - y[i] + y[j]) ** 2 for i in range(len(s)) for j in range(len(s)) if i != j
    ),
    "kl": kl,
    "adr-mse": lambda s, y: mean((r - q) ** 2 / log2(1 + r) for r, q in zip(middle(y), soft(s, 1), strict=True)),
}


@every
def test_it_is_its_formula(name: str) -> None:
    for seed in range(5):
        scores, labels, mask = lists(seed, ties=name not in ORDERED)
        by_hand = [FORMULAS[name](s[m].tolist(), y[m].tolist()) for s, y, m in zip(scores, labels, mask, strict=True)]
        close(LOSSES[name](scores, labels, mask).item(), mean(by_hand), rtol=1e-9, atol=1e-9)


def whole(*rows: Any) -> tuple[Any, ...]:
    """Rows as float32, and a mask of True."""
    made = [torch.tensor([row], dtype=torch.float32) for row in rows]
    return *made, torch.ones(made[0].shape, dtype=torch.bool)


def test_the_probabilities_of_all_orders_sum_to_one() -> None:
    scores = torch.tensor([[0.3, -2.0, 1.5, 0.0, 4.0]], dtype=torch.float64)
    mask = torch.ones(1, 5, dtype=torch.bool)
    orders = [torch.tensor([order]) for order in permutations(range(5))]
    close(sum(exp(-losses.ListMLE()(scores, order, mask)) for order in orders), 1.0)
    assert len(orders) == factorial(5)


@pytest.mark.parametrize("name", ["lambdaloss", "lambdaloss-2", "lambdarank"])
def test_lambda_losses_bound_ndcg(name: str) -> None:
    """And with little doubt in the scores, the other two are nDCG."""
    for seed in range(40):
        scores, labels, mask = lists(seed, ties=True, rows=1)
        scores = 10 * scores.argsort(dim=1).argsort(dim=1).double()
        y, s = (t[mask].tolist() for t in (labels, scores))
        gain = [2**v - 1 for _, v in sorted(zip(s, y, strict=True), reverse=True)]
        ndcg = sum(g / log2(1 + r) for r, g in enumerate(gain, 1)) / sum(
            g / log2(1 + r) for r, g in enumerate(sorted(gain, reverse=True), 1)
        )
        assert LOSSES[name](scores, labels, mask) > 1 - ndcg - 1e-12
        for near in (losses.ApproxNDCG(temperature=0.1), losses.NeuralNDCG(temperature=0.1)):
            close(near(scores, labels, mask).item(), 1 - ndcg)


@pytest.mark.parametrize(("gap", "pull"), [(5, 5.8178), (20, 5.8570), (30, 5.8570), (100, 5.8570)])
def test_a_badly_wrong_pair_is_pulled_right(gap: float, pull: float) -> None:
    """Code that clamps the probability before its logarithm has no gradient where it is needed most."""
    scores, labels, mask = whole([-gap, 0.0], [1, 0])
    _, gradient = learned(losses.LambdaLoss(), scores, labels, mask)
    close(gradient, torch.tensor([[-pull, pull]]), rtol=1e-4, atol=0)
    weight, difference = pull / sigmoid(gap) * log(2), torch.tensor(-float(gap), requires_grad=True)
    clamped = (difference.sigmoid().clamp(min=1e-10) ** weight).clamp(min=1e-10).log2()
    clamped.backward()
    assert (difference.grad == 0) == (gap > 5)


def test_what_is_far_below_is_not_lost_in_a_sum() -> None:
    """Code that adds up exponentials before their logarithm gives 74.95."""
    scores, labels, mask = whole([0.0, -60.0, -61.0], [3, 2, 1])
    close(losses.ListMLE()(scores, labels, mask).item(), log(1 + exp(-1)), rtol=1e-5, atol=0)
    added = (scores.exp().flip(1).cumsum(1).flip(1) + 1e-10).log() - scores
    close(added.sum().item(), 74.95, rtol=1e-3, atol=0)


def test_a_relevant_item_far_below_costs_its_distance() -> None:
    """Code that adds 1e-10 to the probability gives 23, and no gradient."""
    for loss in (losses.ListNet(temperature=0.01), losses.SoftmaxCE(), losses.InfoNCE()):
        value, gradient = learned(loss, *whole([-200.0, 200.0], [1, 0]))
        close(value.item(), 400.0)
        close(gradient, torch.tensor([[-1.0, 1.0]]))


def test_ranks_are_of_each_list() -> None:
    """Code that numbers ranks on from list to list gives a list another loss in a larger batch."""
    scores, labels, mask = whole([0.4, -1.0, 2.0], [2, 1, 0])
    one = losses.WeightedRankNet()(scores, labels, mask)
    for size in (2, 8):
        close(losses.WeightedRankNet()(*(torch.cat([t] * size) for t in (scores, labels, mask))), one)


@pytest.mark.parametrize("name", ["lambdaloss", "approx-ndcg", "neural-ndcg", "p-listmle", "listmle"])
def test_lists_may_be_long(name: str) -> None:
    """2^grade and 2^(n - rank) overflow beyond 127, unless they are seen as shares."""
    order = torch.arange(200.0)[None]
    mask = torch.ones(1, 200, dtype=torch.bool)
    value, gradient = learned(LOSSES[name], order / 200, order, mask)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient[0, -1] < 0
    wide, _ = learned(LOSSES[name], order.double() / 200, order, mask)
    close(value.double(), wide, rtol=1e-4, atol=1e-4)


def test_equal_labels_are_ordered_by_the_seed() -> None:
    scores, labels, mask = whole([0.0, 1.0, 2.0], [1, 1, 0])
    orders = [sum(costs([0.0, 1.0, 2.0], y)) for y in ([2, 1, 0], [1, 2, 0])]
    said = [losses.ListMLE(seed=seed)(scores, labels, mask).item() for seed in range(20)]
    assert said == [losses.ListMLE(seed=seed)(scores, labels, mask).item() for seed in range(20)]
    found = [min(range(2), key=lambda i: abs(orders[i] - v)) for v in said]
    close(said, [orders[i] for i in found])
    assert 3 < sum(found) < 17


def test_equal_scores_are_ranked_by_the_seed() -> None:
    scores, labels, mask = whole([0.0, 0.0, 0.0, 0.0], [3, 2, 1, 0])
    said = {round(losses.LambdaLoss(seed=seed)(scores, labels, mask).item(), 4) for seed in range(20)}
    assert len(said) > 5


def test_grades_below_zero_are_zero() -> None:
    scores, labels, mask = whole([0.5, 0.0, 1.0], [1, 0, 0])
    for loss in (losses.LambdaLoss(), losses.ApproxNDCG(), losses.NeuralNDCG()):
        close(loss(scores, torch.tensor([[1, -2, -1]]), mask), loss(scores, labels, mask))
        assert loss(scores, torch.tensor([[0, -2, -1]]), mask) == 0


def test_false_negatives_go_by_whose_scores_you_like() -> None:
    scores = torch.tensor([[0.5, 0.55, 0.7, 0.1], [0.2, 0.9, 0.3, 0.4]])
    labels = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 1]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    kept = losses.without_false_negatives(scores, labels, mask, 0.1)
    assert kept.tolist() == [[True, True, False, True], [True, False, True, True]]
    kept = losses.without_false_negatives(1 - scores, labels, mask, -0.1)
    assert kept.tolist() == [[True, False, True, False], [False, True, True, True]]
    half = torch.tensor([[1.0, 1 + 1 / 128, 0.0, 0.0]], dtype=torch.bfloat16)  # which knows nothing between the two
    kept = losses.without_false_negatives(half, labels[:1], mask[:1], 0.005)
    assert kept.tolist() == [[True, False, True, True]]
    assert losses.InBatch(margin=-9)(scores, labels, mask) == 0  # all are left out, nothing is left to say
