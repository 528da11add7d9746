"""What a training says of itself: how it stands, what it costs, and its log."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import transformers

from rankpipe import lines
from rankpipe.progress import running
from rankpipe.train.optimizers.storage import state_bytes

if TYPE_CHECKING:
    from rankpipe.train.loop.trainer import RankTrainer


class Told(transformers.TrainerCallback):  # type: ignore[misc]
    """Says how it stands after each step, adds to what is logged what it cost, and writes that down."""

    def __init__(self, trainer: RankTrainer, log: Path) -> None:
        self.trainer, self.path = trainer, log
        self.steps = running("", 0)
        self.standing: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Begin to count."""
        self.began, self.first = perf_counter(), state.global_step
        self.steps = running("training: steps", state.max_steps - state.global_step)
        self.say = self.steps.__enter__()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """What the adapter does between steps."""
        for callback in self.trainer.between:
            callback.on_step(given["model"], given["optimizer"], state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """One more."""
        if self.trainer.average:
            self.trainer.average.update()
        self.say(1, ", ".join(f"{name} {value}" for name, value in self.standing.items()))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **given: Any) -> None:  # noqa: ARG002
        """Complete the row of the log, and write all of them."""
        row = state.log_history[-1]
        if "loss" in logs:
            row |= self._costs(state)  # of all processes
            self.standing |= {"loss": f"{row['loss']:.4f}", "tokens/s": f"{row['tokens_per_s']:.0f}"}
            self.standing |= {"memory": _size(row["peak_bytes"]), "optimizer": _size(row["optimizer_bytes"])}
        self.standing |= {k.removeprefix("eval_"): f"{v:.4f}" for k, v in logs.items() if k.startswith("eval_")}
        if state.is_world_process_zero:
            lines.write(self.path, state.log_history)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """No more steps."""
        self.steps.__exit__(None, None, None)

    def _costs(self, state: Any) -> dict[str, float]:
        """What is known of the time, memory and parts of the loss since the last row."""
        trainer, seconds = self.trainer, perf_counter() - self.began
        summed = trainer.accelerator.reduce
        steps = state.global_step - max((r["step"] for r in state.log_history[:-1] if "loss" in r), default=0)
        parts = (summed(trainer.parts) / steps).tolist()
        trainer.parts.zero_()
        named = {f"loss_{name}": v for name, v in zip(trainer.objective.losses, parts, strict=True)}
        return {
            **(named if len(named) > 1 else {}),
            "tokens_per_s": round(summed(trainer.tokens).item() / seconds, 1),
            "peak_bytes": peak_bytes(),
            "optimizer_bytes": state_bytes(trainer.optimizer),
            "seconds_left": round(
                seconds / (state.global_step - self.first) * (state.max_steps - state.global_step), 1
            ),
        }


def peak_bytes() -> int:
    """The most memory that this process took: of the GPU, if there is one; else what it had resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
