"""What holds of every ranking loss."""

from __future__ import annotations

from typing import Any

import pytest

from rankpipe.catalog import CATALOG, find
from rankpipe.train.losses import ListLoss
from tests.train.lists import LOSSES, ORDERED, every, learned, lists, torch

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(5)
close = torch.testing.assert_close


def test_every_ranking_loss_is_tried() -> None:
    kinds = [find(name) for name, entry in CATALOG.items() if entry.target.startswith("rankpipe.train.losses:")]
    ours = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ListLoss)}
    assert len(ours) == 14
    assert ours == {type(loss) for loss in LOSSES.values()}


@every
def test_the_order_of_items_and_lists_is_of_no_account(name: str) -> None:
    for seed in SEEDS:
        scores, labels, mask = lists(seed, ties=name not in ORDERED)
        value, gradient = learned(LOSSES[name], scores, labels, mask)
        dice = torch.Generator().manual_seed(seed)
        columns, rows = torch.randperm(7, generator=dice), torch.randperm(3, generator=dice)
        moved = [given[rows][:, columns] for given in (scores, labels, mask)]
        value_moved, gradient_moved = learned(LOSSES[name], *moved)
        close(value_moved, value)
        close(gradient_moved, gradient[rows][:, columns])


@every
def test_only_differences_of_scores_count(name: str) -> None:
    for seed in SEEDS:
        scores, labels, mask = lists(seed, ties=True)
        value, gradient = learned(LOSSES[name], scores, labels, mask)
        moved, _ = learned(LOSSES[name], scores + torch.tensor([[5.0], [-3.0], [70.0]]), labels, mask)
        close(moved, value)
        close(gradient.sum(1), torch.zeros(3, dtype=torch.float64))


@every
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_padding_is_not_read(name: str, junk: float) -> None:
    scores, labels, mask = (t.float() if t.is_floating_point() else t for t in lists(1, ties=True))
    value, gradient = learned(LOSSES[name], scores, labels, mask)
    filled = [t.masked_fill(~mask, junk) for t in (scores, labels)]
    value_filled, gradient_filled = learned(LOSSES[name], *filled, mask)
    assert torch.equal(value_filled, value)
    assert torch.equal(gradient_filled, gradient)
    assert not gradient[~mask].any()


@every
@pytest.mark.parametrize("more", [1, 5, 40])
def test_more_padding_changes_nothing(name: str, more: int) -> None:
    """But for the rounding of sums, which are of other lengths. Ties keep the order that they have."""
    for seed in SEEDS:
        scores, labels, mask = (t.float() if t.is_floating_point() else t for t in lists(seed, ties=True))
        value, gradient = learned(LOSSES[name], scores, labels, mask)
        padding = torch.full((3, more), -7.0)
        wider = [torch.cat([t, padding.to(t.dtype)], 1) for t in (scores, labels)]
        value_wider, gradient_wider = learned(LOSSES[name], *wider, torch.cat([mask, padding > 0], 1))
        close(value_wider, value, rtol=2e-6, atol=1e-6)
        close(gradient_wider[:, :7], gradient, rtol=1e-5, atol=1e-6)
        assert not gradient_wider[:, 7:].any()


@every
def test_a_list_counts_once_whatever_its_batch(name: str) -> None:
    scores, labels, mask = lists(2, ties=True)
    mask[1] = False  # says nothing, so that two are left
    value, gradient = learned(LOSSES[name], scores, labels, mask)
    alone = [learned(LOSSES[name], scores[[i]], labels[[i]], mask[[i]]) for i in range(3)]
    close(value, (alone[0][0] + alone[2][0]) / 2)
    close(gradient, torch.cat([g for _, g in alone]) / 2)


@every
def test_parts_of_a_batch_add_up(name: str) -> None:
    scores, labels, mask = lists(3, ties=True)
    parts = [LOSSES[name].total(scores[p], labels[p], mask[p]) for p in (slice(0, 1), slice(1, 3))]
    close(sum(total for total, _ in parts) / sum(count for _, count in parts), LOSSES[name](scores, labels, mask))


@every
def test_lists_are_counted_before_there_are_scores(name: str) -> None:
    """So that a step is divided by what all its batches count."""
    for seed in SEEDS:
        scores, labels, mask = lists(seed, ties=True)
        mask[2] = False
        assert LOSSES[name].total(scores, labels, mask)[1] == LOSSES[name].count(labels, mask) == 2


@every
def test_a_list_with_nothing_to_say_is_silent(name: str) -> None:
    scores, labels, mask = lists(4, ties=True, rows=1)
    scores, labels, mask = (torch.cat([t] * 5) for t in (scores, labels, mask))
    mask[1] = False  # empty
    mask[2] = torch.arange(7) == 3  # of one item
    labels[3] = 2  # all alike
    scores[4], labels[4] = float("nan"), 0.0
    value, gradient = learned(LOSSES[name], scores, labels, mask)
    alone, gradient_alone = learned(LOSSES[name], scores[:1], labels[:1], mask[:1])
    assert alone > 0
    close(value, alone)
    close(gradient[:1], gradient_alone)
    assert not gradient[1:].any()
    for row in range(1, 5):
        with torch.autograd.set_detect_anomaly(True):  # on the way back, nothing is NaN either
            value, gradient = learned(LOSSES[name], scores[[row]], labels[[row]], mask[[row]])
        assert value == 0
        assert not gradient.any()


@every
@pytest.mark.parametrize("rows", [0, 2])
def test_lists_of_no_columns_are_silent(name: str, rows: int) -> None:
    scores, labels, mask = (t[:rows, :0] for t in lists(4, ties=True))
    value, gradient = learned(LOSSES[name], scores, labels, mask)
    assert (value, gradient.shape, LOSSES[name].count(labels, mask)) == (0, (rows, 0), 0)


@every
def test_the_best_item_is_pushed_up(name: str) -> None:
    for seed in SEEDS:
        _, labels, mask = lists(seed, ties=True)
        labels[0, labels[0].masked_fill(~mask[0], -1).argmax()] += 1
        for scores in (torch.zeros(1, 7), torch.full((1, 7), -200.0)):
            _, gradient = learned(LOSSES[name], scores, labels[:1], mask[:1])
            best = labels[0].masked_fill(~mask[0], -1).argmax()
            assert gradient[0, best] < 0


@every
def test_scores_may_be_huge(name: str) -> None:
    for sign in (1, -1):
        scores = sign * torch.tensor([[200.0, -200.0, 200.0, -200.0, 0.0], [-200.0, 200.0, -199.0, 199.0, 3.0]])
        labels = torch.tensor([[3, 0, 2, 1, 0], [0, 4, 3, 2, 1]])
        value, gradient = learned(LOSSES[name], scores, labels, torch.ones(2, 5, dtype=torch.bool))
        assert value.isfinite()
        assert gradient.isfinite().all()


@every
@pytest.mark.parametrize("given", [torch.bfloat16, torch.float16])
def test_it_is_computed_in_single_precision(name: str, given: Any) -> None:
    scores, labels, mask = lists(5, ties=True)
    scores = (20 * scores).to(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = learned(LOSSES[name], scores, labels.to(given), mask)
    wide, wide_gradient = learned(LOSSES[name], scores.float(), labels.float(), mask)
    assert value.dtype == torch.float32
    assert torch.equal(value, wide)
    assert torch.equal(gradient, wide_gradient.to(given))


@every
def test_gradients_are_right(name: str) -> None:
    scores, labels, mask = lists(6, ties=True)
    mask[1] = torch.arange(7) == 0
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, labels, mask), scores.requires_grad_())


@every
def test_labels_learn_nothing(name: str) -> None:
    scores, labels, mask = lists(7, ties=True)
    LOSSES[name](scores.requires_grad_(), labels.requires_grad_(), mask).backward()
    assert labels.grad is None


@pytest.mark.parametrize(
    "name",
    ["ranknet", "weighted-ranknet", "lambdaloss", "approx-ndcg", "neural-ndcg", "listmle", "p-listmle", "adr-mse"],
)
def test_the_right_order_costs_nothing(name: str) -> None:
    _, labels, mask = lists(8, ties=False)
    assert LOSSES[name](30 * labels, labels, mask) < 1e-5
    assert LOSSES[name](-30 * labels, labels, mask) > 0.1


@pytest.mark.parametrize("name", ["margin-mse", "kl"])
def test_the_teachers_scores_cost_nothing(name: str) -> None:
    """Its order alone does."""
    _, labels, mask = lists(9, ties=True)
    assert LOSSES[name](labels + 3, labels, mask) < 1e-9
    assert LOSSES[name](30 * labels, labels, mask) > 0.1


@pytest.mark.parametrize("name", ["softmax-ce", "infonce", "in-batch"])
def test_one_relevant_item_on_top_costs_nothing(name: str) -> None:
    labels, mask = torch.tensor([[0, 0, 1, 0]]), torch.ones(1, 4, dtype=torch.bool)
    assert LOSSES[name](30.0 * labels, labels, mask) < 1e-5
    labels = torch.tensor([[0, 1, 2, 0]])  # of several, infonce sets none against another
    assert (LOSSES[name](30.0 * labels, labels, mask) < 1e-5) == (name != "softmax-ce")
