"""Adapters under transformers' Trainer, and a real model."""

from __future__ import annotations

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
from tests.train.adapted import WORDS, adapted, apart, llama, outputs  # noqa: E402


def trainer(model: Any, method: Any, folder: Path, callbacks: list[Any], steps: int = 6) -> Any:
    args = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, save_steps=3, report_to="none",
        use_cpu=True, disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    ids = torch.randint(1, WORDS, (20, 8), generator=torch.Generator().manual_seed(1)).tolist()
    optimizer = torch.optim.AdamW(method.groups(model, 1e-2))
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
def test_a_real_model(data_root: Path, tmp_path: Path) -> None:
    """Trained, saved and loaded by plain PEFT; merged in bfloat16, with what that loses."""
    from rankpipe.train.adapters.merging import merge

    found = sorted(data_root.parent.rglob("SmolLM2-135M*/config.json"))
    if not found:
        pytest.skip("no SmolLM2 here")
    load = transformers.AutoModelForCausalLM.from_pretrained
    method = LoRA(rank=16, alpha=32)
    model = method.apply(load(found[0].parent, dtype=torch.bfloat16))
    assert method.report(model).trainable == 4_884_480
    trainer(model, method, tmp_path, []).train()
    method.save(model, tmp_path / "made")
    trained = outputs(model.eval())
    loaded = peft.PeftModel.from_pretrained(load(found[0].parent, dtype=torch.bfloat16), str(tmp_path / "made"))
    assert apart(outputs(loaded.eval()), trained) == 0.0
    merged, loss = merge(model)
    assert 0 < loss.of_update < 0.5
    assert apart(outputs(merged), trained) < 0.05 * float(trained.abs().max())
