"""Trainings that end before their time."""

from __future__ import annotations

import signal
from typing import Any

import transformers


class Killed(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends the process, as good as, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Signalled(transformers.TrainerCallback):  # type: ignore[misc]
    """Sends signals to the process in the middle of a step."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step, self.numbers = step, numbers

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step - 1:
            for number in self.numbers:
                signal.raise_signal(number)
