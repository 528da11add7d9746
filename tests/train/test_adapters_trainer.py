"""Adapters under transformers' Trainer, and a real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from rankpipe.train.adapters.adalora import AdaLoRA, kept  # noqa: E402
from rankpipe.train.adapters.callbacks import FILE, for_trainer  # noqa: E402
from rankpipe.train.adapters.lora import LoRA  # noqa: E402
from rankpipe.train.adapters.merging import merge, merge_loss  # noqa: E402
from tests.train.adapted import WORDS, adapted, apart, llama, outputs  # noqa: E402


def trainer(model: Any, method: Any, folder: Path, callbacks: list[Any], steps: int = 6, lr: float = 1e-2) -> Any:
    args = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, save_steps=3, report_to="none",
        use_cpu=True, disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    ids = torch.randint(1, WORDS, (20, 8), generator=torch.Generator().manual_seed(1)).tolist()
    optimizer = torch.optim.AdamW(method.groups(model, lr))
    return transformers.Trainer(
        model,
        args,
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
        optimizers=(optimizer, None),
        callbacks=callbacks,
    )


@pytest.mark.parametrize("told", [True, False])
def test_bug_trainer_forgets_adalora(told: bool, tmp_path: Path) -> None:
    method = AdaLoRA(rank=2, begin_rank=4, every=1)
    model = adapted(method, llama(), steps=6)
    trainer(model, method, tmp_path, [for_trainer(method.callbacks())] if told else []).train()
    assert sum(map(sum, kept(model).values())) == (2 if told else 4) * 14
    if told:
        assert (tmp_path / "checkpoint-3" / FILE).is_file()
        method.save(model, tmp_path / "made")
        assert peft.PeftConfig.from_pretrained(str(tmp_path / "made")).target_r == 2


@pytest.mark.slow
def test_a_real_model(embedded: Callable[[str], Path], tmp_path: Path) -> None:
    """Trained, saved and loaded by plain PEFT; merged in float32, and what bfloat16 would lose."""

    def load(dtype: str = "bfloat16") -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(embedded("smollm2"), dtype=dtype)

    method = LoRA(rank=16, alpha=32)
    model = method.apply(load())
    assert method.report(model).trainable == 4_884_480
    trainer(model, method, tmp_path, [], lr=2e-4).train()
    method.save(model, tmp_path / "made")
    trained = outputs(model.eval())
    again = peft.PeftModel.from_pretrained(load(), str(tmp_path / "made"))
    assert apart(outputs(again.eval()), trained) == 0.0
    assert merge_loss(again).of_update > 0.5  # six steps: most of it is below half of a weight's last digit
    exact = peft.PeftModel.from_pretrained(load("float32"), str(tmp_path / "made")).eval()
    trained = outputs(exact)
    merged, loss = merge(exact)
    assert loss.of_update < 1e-3
    assert apart(outputs(merged), trained) < 1e-4 * float(trained.abs().max())
