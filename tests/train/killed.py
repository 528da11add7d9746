"""Trainings that end before their time."""

from __future__ import annotations

from typing import Any

import transformers


class Killed(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends the process, as good as, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt
