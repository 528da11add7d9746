"""Recipes that are quickly tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankpipe import store

TRAINING = {
    "max_steps": 6, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "logging_steps": 2,
    "save_steps": 2, "use_cpu": True, "seed": 5,
}  # fmt: skip
EPOCHS = {k: v for k, v in TRAINING.items() if k != "max_steps"} | {"num_train_epochs": 2}
LORA = {"use": "lora", "rank": 2}
GALORE = {"use": "galore", "rank": 4, "gap": 2, "lr": 0.01, "scale": 1.0}


def tensors(folder: Path) -> dict[str, Any]:
    """What was made."""
    from safetensors.torch import load_file

    [file] = store.open_artefact(folder, kind="ranker").path.glob("*.safetensors")
    return load_file(str(file))
