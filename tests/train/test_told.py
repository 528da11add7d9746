"""What a training says of itself while it runs, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for package in ("peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from killed import Killed  # noqa: E402
from tuned import GALORE, TRAINING  # noqa: E402

from rankpipe.disk import shown  # noqa: E402
from rankpipe.errors import ModelError, RecipeError  # noqa: E402
from rankpipe.progress import listening  # noqa: E402
from rankpipe.train import arguments  # noqa: E402
from rankpipe.train.optimizers.galore import GaLore  # noqa: E402
from rankpipe.train.optimizers.storage import state_bytes  # noqa: E402
from rankpipe.train.tuning import Tuning, read_log  # noqa: E402
from tests.heard import Heard  # noqa: E402

ON_CPU = pytest.mark.skipif(torch.accelerator.is_available(), reason="has a GPU")
DEV = {"share": 0.3, "every": 2, "depth": 8}


class Read(Heard):
    """Writes down what stands beside the count of steps, too."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.under_way = 0

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        if not label.startswith("training"):
            with super().counting(label, total) as told:
                yield told
            return

        def steps(more: int, text: str = "") -> None:
            self.steps.append(more)
            self.texts.append(text)

        self.counts.append((label, total))
        self.under_way += 1
        try:
            yield steps
        finally:
            self.under_way -= 1


def test_a_line_says_how_it_stands(written: Any) -> None:
    folder, heard = written(dev=DEV), Read()
    with listening(heard):
        Tuning(folder).run()
    assert ("training: steps", 6) in heard.counts
    assert heard.under_way == 0
    log = read_log(folder)
    loss = [row for row in log if "loss" in row][-1]
    ndcg = [row["eval_nDCG@10"] for row in log if "eval_nDCG@10" in row]
    last = heard.texts[-1]
    assert f"loss {loss['loss']:.4f}" in last
    assert f"tokens/s {loss['tokens_per_s']:.0f}" in last
    assert f"memory {shown(loss['peak_bytes'])}" in last
    assert f"optimizer {shown(loss['optimizer_bytes'])}" in last
    assert f"nDCG@10 {ndcg[-1]:.4f}" in last
    assert f"nDCG@10 {ndcg[0]:.4f}" in heard.texts[0]  # before the first step
    assert [row["seconds_left"] > 0 for row in log if "loss" in row] == [True, True, False]


class Weighed(transformers.TrainerCallback):  # type: ignore[misc]
    """What the optimizer holds, and the tokens that were read, as it trains."""

    def __init__(self) -> None:
        self.optimizer_bytes = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.optimizer_bytes = state_bytes(given["optimizer"])


def test_one_that_goes_on_counts_what_is_left_and_logs_what_it_saw(written: Any) -> None:
    """Rows of the log are of three steps, checkpoints of two: the first row is of this session's two steps."""
    folder = written(training=TRAINING | {"logging_steps": 3})
    with pytest.raises(KeyboardInterrupt), listening(killed := Read()):
        Tuning(folder).run(callbacks=[Killed(5)])
    assert killed.under_way == 0
    heard, weighed = Read(), Weighed()
    with listening(heard):
        facts = Tuning(folder).run(callbacks=[weighed])
    assert ("training: steps", 2) in heard.counts
    assert sum(heard.steps) >= 2
    assert any(said.startswith("going on from") for said in heard.notices)
    rows = [row for row in read_log(folder) if "loss" in row]
    assert [row["step"] for row in rows] == [3, 6]
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_lm"] + 10 * row["loss_ranknet"], rel=1e-4)
    assert facts["optimizer_bytes"] == weighed.optimizer_bytes > 0


class Broken(transformers.TrainerCallback):  # type: ignore[misc]
    """Has a gradient that is not finite on the third step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 2:
            next(p for p in given["model"].parameters() if p.requires_grad).grad.fill_(float("nan"))


def test_what_is_skipped_is_told(written: Any) -> None:
    folder, heard = written(adapter=None, optimizer=GALORE), Read()
    with listening(heard):
        facts = Tuning(folder).run(callbacks=[Broken()])
    assert [row["skipped"] for row in read_log(folder) if "loss" in row] == [0, 1, 1]
    assert facts["skipped"] == 1
    assert "not finite, skipped 1" in heard.texts[-1]
    assert "Not made, because gradients were not finite: 1 update." in (folder / "card.md").read_text()


def test_what_is_cut_is_told(written: Any) -> None:
    folder, heard = written(head={"use": "first-head", "context": 1024, "max_words": 1}), Read()
    with listening(heard):
        facts = Tuning(folder).run()
    assert [row["cut"] for row in read_log(folder) if "loss" in row] == [1, 1, 1]
    assert facts["cut"] == 1
    assert "texts cut 100%" in heard.texts[-1]
    assert "not read to their end (`max_words`, `max_length`, the context): 100.0%." in (folder / "card.md").read_text()


@pytest.mark.parametrize("how", [{}, {"logging_steps": 100}, {"logging_steps": 100, "save_steps": 100}])
def test_weights_that_are_lost_end_it(how: dict[str, Any], written: Any) -> None:
    folder = written(optimizer={"use": "adamw", "lr": 1e38}, training=TRAINING | how)
    with pytest.raises(ModelError, match=r"step \d: .* has no numbers any more; lower the"):
        Tuning(folder).run()
    assert not (folder / "manifest.json").exists()
    assert Tuning(folder).begun is None


def test_the_norm_of_gradients_is_that_of_weights_that_waited(written: Any) -> None:
    plain, layers = ({"adapter": None, "optimizer": GALORE | more} for more in ({}, {"layerwise": True}))
    training, norms = TRAINING | {"max_grad_norm": 0.0}, []
    for name, how in (("plain", plain), ("layers", layers)):
        folder = written(name, training=training, **how)
        Tuning(folder).run()
        norms.append([row["grad_norm"] for row in read_log(folder) if "loss" in row])
    assert min(norms[0]) > 0
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_a_logger_that_is_not_there_is_named(written: Any) -> None:
    integrations = transformers.integrations
    here = integrations.get_available_reporting_integrations()
    absent = next(name for name in integrations.INTEGRATION_TO_CALLBACK if name not in here)
    told = "\n".join(Tuning(written(training=TRAINING | {"report_to": ["tensorbord", absent]})).check())
    assert "training: report_to: no logger 'tensorbord'; did you mean tensorboard" in told
    assert f"training: report_to: {absent} is not installed; pip install {absent}" in told


def test_tensorboard_is_told_what_the_log_is(written: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = written(dev=DEV, training=TRAINING | {"report_to": "tensorboard"})
    Tuning(folder).run()
    [events] = folder.glob("kept/*/checkpoints/runs/*/events*")
    read = EventAccumulator(str(events))
    read.Reload()
    for key, row in (("train/loss", "loss"), ("train/loss_lm", "loss_lm"), ("eval/nDCG@10", "eval_nDCG@10"),
                     ("train/optimizer_bytes", "optimizer_bytes")):  # fmt: skip
        said = {e.step: e.value for e in read.Scalars(key)}
        assert said == pytest.approx({r["step"]: r[row] for r in read_log(folder) if row in r}, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "dtype", "said"),
    [
        ("pissa", "nf4", "pissa: needs weights in full, and the base is quantised; say dtype: bfloat16, or"),
        ("lora-sb", "int8", "lorasb: needs weights in full"),
        ("relora", "int8", "relora: needs weights in full"),
        pytest.param("dora", "int8", "dora: over a base of eight bits it is for GPUs; say dtype: nf4", marks=ON_CPU),
    ],
)
def test_bug_a_base_that_cannot_be_quantised_is_refused_late(method: str, dtype: str, said: str, written: Any) -> None:
    """ReLoRA was, after its first stage."""
    [told] = Tuning(written(adapter={"use": method, "rank": 2}, dtype=dtype)).check()
    assert said in told


@pytest.mark.parametrize(
    "how",
    [
        {"optimizer": GALORE},
        {"optimizer": {"use": "apollo"}},
        {"optimizer": None, "training": TRAINING | {"optim": "galore_adamw"}},
    ],
)
def test_bug_an_adapter_under_galore_is_refused_late(how: dict[str, Any], written: Any) -> None:
    """When lists and model were made."""
    [told] = Tuning(written(**how)).check()
    assert "projects whole matrices, no adapter, of low rank already; say adamw" in told


def test_bug_weights_move_by_gradients_that_are_scaled_up(tmp_path: Path) -> None:
    """By hooks, before ``GradScaler`` unscales them; its step then asserts."""
    args = arguments.made({"use_cpu": True, "max_grad_norm": 0}, tmp_path, None)
    args.fp16 = True  # which is for GPUs
    with pytest.raises(RecipeError, match="fp16: weights would move by gradients that are still scaled up; say bf16"):
        arguments.fit(GaLore(layerwise=True), args, None, "float32")
    arguments.fit(GaLore(), args, None, "float32")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"adapter": None}, True),
        ({"adapter": None, "optimizer": None}, True),
        ({}, False),
        ({"adapter": None, "optimizer": {"use": "adam8bit"}}, False),
        ({"adapter": None, "dtype": "float32"}, False),
    ],
)
def test_steps_that_are_lost_in_weights_of_few_bits_are_told(how: dict[str, Any], told: bool, written: Any) -> None:
    with listening(heard := Heard()):
        assert Tuning(written(**{"dtype": "bfloat16"} | how)).check() == []
    assert ("rounded to nothing by this optimizer; say adam8bit" in str(heard.notices)) is told


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_lists_have_no_length_to_go_by(strategy: str, written: Any) -> None:
    [told] = Tuning(written(training=TRAINING | {"train_sampling_strategy": strategy})).check()
    assert f"training: train_sampling_strategy: {strategy} goes by lengths" in told


def test_settings_that_would_change_nothing_are_refused(written: Any) -> None:
    training = TRAINING | {"label_smoothing_factor": 0.1, "save_only_model": True, "save_total_limit": 1}
    told = "\n".join(Tuning(written(training=training)).check())
    assert "label_smoothing_factor: is said by the loss" in told
    assert "save_only_model: is said by rankpipe train" in told
    assert "save_total_limit: 1 would remove a checkpoint before the next one is whole" in told
