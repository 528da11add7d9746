"""Weights that move during backward(): the same as those that wait, to the bit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from rankpipe.errors import ModelError, RecipeError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

from rankpipe.train.optimizers.galore import GaLore  # noqa: E402


class Net(torch.nn.Module):  # type: ignore[misc]
    """Two linear layers and a norm between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.down = torch.nn.Linear(12, 20), torch.nn.LayerNorm(20), torch.nn.Linear(20, 12)

    def forward(self, x: Any) -> Any:
        return (self.down(self.norm(self.up(x)).relu()) - x).square().mean()


BATCHES = torch.randn(24, 6, 12, generator=torch.Generator().manual_seed(1))
USUAL = {"lr": 1e-2, "rank": 4, "gap": 3, "weight_decay": 0.1}


def train(model: Any, optimizer: Any, batches: Any, every: int = 1) -> list[Any]:
    """As a trainer does: each step of ``every`` backward passes, the last one of what is left; a falling rate."""
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 10)
    for k in range(0, len(batches), every):
        for x in batches[k : k + every]:
            (model(x) / every).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("every", [1, 4, 5])
@pytest.mark.parametrize("inner", ["adam", "adafactor", "adam8bit"])
def test_bug_layerwise_has_no_accumulation(inner: Any, every: int) -> None:
    """With it the weights are those of ordinary steps; 24 batches are no whole number of steps of 5."""
    plain, one = Net(), Net()
    whole = train(plain, GaLore(**USUAL, inner=inner).over(plain), BATCHES, every)
    by_layer = GaLore(**USUAL, inner=inner, layerwise=True).over(one, accumulation=every)
    assert same(train(one, by_layer, BATCHES, every), whole)
    assert by_layer.state_bytes() == by_layer.formula_bytes()


def test_gradients_are_freed_as_they_come() -> None:
    model = Net()
    GaLore(layerwise=True).over(model)
    model(BATCHES[0]).backward()
    assert [p.grad for p in model.parameters()] == [None] * 6


def test_a_wrong_accumulation_is_noticed() -> None:
    model = Net()
    optimizer = GaLore(layerwise=True).over(model)
    with pytest.raises(ModelError, match=r"gradient 2 of a parameter .* before step.*say how many backward passes"):
        train(model, optimizer, BATCHES, 2)


def test_bug_layerwise_resume_loses_the_state() -> None:
    straight, first = Net(), Net()
    options = GaLore(**USUAL, layerwise=True, on_switch="reproject")
    whole = train(straight, options.over(straight), BATCHES)
    optimizer = options.over(first)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 10)
    for x in BATCHES[:10]:
        first(x).backward()
        optimizer.step()
        schedule.step()
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again = Net()
    again.load_state_dict(kept["model"])
    resumed = options.over(again)
    resumed.load_state_dict(kept["optimizer"])
    rest = torch.optim.lr_scheduler.LinearLR(resumed, 1.0, 0.1, 10, last_epoch=10)
    for x in BATCHES[10:]:
        again(x).backward()
        resumed.step()
        rest.step()
    assert same([p.detach() for p in again.parameters()], whole)


def test_bug_max_grad_norm_is_ignored_layerwise() -> None:
    """It cannot be kept there, and so it is refused; each parameter's own norm can."""
    with pytest.raises(RecipeError, match=r"max_grad_norm=0.5 cannot be kept; say max_grad_norm: 0, and clip: 0.5"):
        GaLore(layerwise=True).over(Net(), max_grad_norm=0.5)
    with pytest.raises(RecipeError, match="clip is of layerwise: true"):
        GaLore(clip=0.5)
    moved = {}
    for clip in (1e9, 1e-3):
        model = Net()
        optimizer = GaLore(lr=1.0, rank=4, scale=1.0, inner="sgd", targets=["up"], layerwise=True, clip=clip).over(
            model
        )
        before = model.up.weight.detach().clone()
        train(model, optimizer, BATCHES[:1])
        moved[clip] = float((model.up.weight - before).detach().norm())
    assert moved[1e-3] <= 1e-3 * 1.001
    assert moved[1e9] > 0.01


def test_bug_the_norm_of_gradients_is_logged_as_zero() -> None:
    plain, model = Net(), Net()
    optimizer = GaLore(**USUAL, layerwise=True).over(model, accumulation=2)
    for x in BATCHES[:2]:
        plain(x).backward()
        model(x).backward()
    optimizer.step()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1e9)
    assert optimizer.layers.grad_norm == pytest.approx(float(norm), rel=1e-6)
    optimizer.step()
    assert optimizer.layers.grad_norm == 0.0


def test_a_gradient_that_is_not_finite_leaves_its_parameter_as_it_was() -> None:
    model = Net()
    optimizer = GaLore(**USUAL, layerwise=True).over(model)
    before = model.up.weight.detach().clone()
    model.up.weight.register_hook(lambda grad: grad * float("nan"))
    train(model, optimizer, BATCHES[:1])
    assert torch.equal(model.up.weight, before)
    assert optimizer.skipped == 1
    assert all(p.isfinite().all() for p in model.parameters())


def test_it_can_be_ended() -> None:
    model = Net()
    optimizer = GaLore(layerwise=True).over(model)
    optimizer.layers.remove()
    model(BATCHES[0]).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_several_processes_are_refused(tmp_path: Any) -> None:
    """Seen by a group of two in which this process is alone; nothing is sent."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("fake", store=store, rank=0, world_size=2)
    try:
        with pytest.raises(RecipeError, match="averaged after they were used; say layerwise: false"):
            GaLore(layerwise=True).over(Net())
    finally:
        torch.distributed.destroy_process_group()
