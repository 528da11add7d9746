"""Recipes that are quickly tuned."""

from __future__ import annotations

TRAINING = {
    "max_steps": 6, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "logging_steps": 2,
    "save_steps": 2, "use_cpu": True, "seed": 5,
}  # fmt: skip
LORA = {"use": "lora", "rank": 2}
