"""What the trainer does for an adapter, which it alone can: rates, stages, and a loss beside the head's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),  # PEFT of any AdaLoRA; it does use them
]

from tuned import TRAINING, tensors  # noqa: E402

from rankpipe.train.tuning import Tuning, read_log  # noqa: E402

ADALORA = {"use": "adalora", "rank": 2, "begin_rank": 4, "every": 1}
ONCE = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def test_lora_plus_moves_b_faster(written: Any) -> None:
    trainer = Tuning(written(adapter={"use": "lora-plus", "rank": 2, "ratio": 8.0})).trainer()
    optimizer = trainer.create_optimizer()
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    rate = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {r for n, r in rate.items() if "lora_A" in n} == {0.01}
    assert {r for n, r in rate.items() if "lora_B" in n} == {0.08}


def test_each_stage_warms_up(written: Any) -> None:
    adapter = {"use": "relora", "rank": 2, "every": 2, "stages": 3, "warmup": 1}
    training = TRAINING | {"lr_scheduler_type": "constant"}
    trainer = Tuning(written(adapter=adapter, training=training)).trainer()
    optimizer = trainer.create_optimizer()
    scheduler = trainer.create_scheduler(6, optimizer)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.01, 0.005, 0.01])


def test_adalora_is_held_to_be_orthogonal(written: Any) -> None:
    """By a loss of its own, which counts once in a step, however many batches that has."""
    made: dict[str, dict[str, Any]] = {}
    losses: dict[str, list[float]] = {}
    for name, weight, how in (("free", 0.0, {}), ("held", 5.0, {}), ("at-once", 5.0, ONCE)):
        folder = written(name, adapter=ADALORA | {"orthogonality": weight}, training=TRAINING | how)
        Tuning(folder).run()
        made[name] = tensors(folder)
        losses[name] = [row["loss"] for row in read_log(folder) if "loss" in row]
    bases = [key for key in made["free"] if "lora_A" in key]
    apart = {name: sum(unlike_one(values[key]) for key in bases) for name, values in made.items()}
    assert apart["held"] < 0.99 * apart["free"]
    assert apart["at-once"] == pytest.approx(apart["held"], rel=1e-3)
    assert losses["at-once"] == pytest.approx(losses["held"], rel=1e-3)


def unlike_one(a: Any) -> float:
    return float((a @ a.T - torch.eye(len(a))).norm())
