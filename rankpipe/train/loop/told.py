"""What a training says of itself: how it stands, what it costs, and its log."""

from __future__ import annotations

import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import transformers

from rankpipe import lines
from rankpipe.disk import shown
from rankpipe.progress import running
from rankpipe.train.optimizers.storage import state_bytes

if TYPE_CHECKING:
    from rankpipe.train.loop.trainer import RankTrainer


class Told(transformers.TrainerCallback):  # type: ignore[misc]
    """Says how it stands after each step, knows what it cost, and writes down what is logged."""

    def __init__(self, trainer: RankTrainer, log: Path) -> None:
        self.trainer, self.path = trainer, log
        self.shown = ExitStack()  # for as long as it trains
        self.standing: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Begin to count."""
        if self.trainer.average:
            self.trainer.average.begin()
        self.began, self.first = perf_counter(), state.global_step
        self.before = max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)  # in earlier sessions
        self.say = self.shown.enter_context(running("training: steps", state.max_steps - state.global_step))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """What the adapter does between steps."""
        for callback in self.trainer.between:
            callback.on_step(given["model"], given["optimizer"], state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """One more; the last one is logged, too."""
        control.should_log |= state.global_step == state.max_steps
        if self.trainer.average:
            self.trainer.average.update()
        self._say(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **given: Any) -> None:  # noqa: ARG002
        """Write the whole log, and say how it stands now."""
        if "loss" in logs:
            self.standing |= {"loss": f"{logs['loss']:.4f}", "tokens/s": f"{logs['tokens_per_s']:.0f}"}
            self.standing |= {"memory": shown(logs["peak_bytes"]), "optimizer": shown(logs["optimizer_bytes"])}
        if logs.get("cut"):
            self.standing["texts cut"] = f"{logs['cut']:.0%}"
        if logs.get("skipped"):
            self.standing |= {"not finite, skipped": f"{logs['skipped']}"}
        self.standing |= {k.removeprefix("eval_"): f"{v:.4f}" for k, v in logs.items() if k.startswith("eval_")}
        self._say(0)
        if state.is_world_process_zero:
            lines.write(self.path, state.log_history)

    def _say(self, more: int) -> None:
        self.say(more, ", ".join(f"{name} {value}" for name, value in self.standing.items()))

    def costs(self) -> dict[str, float]:
        """Tokens and time, the memory of this process, and the parts of the loss since this session last logged it."""
        trainer, state, seconds = self.trainer, self.trainer.state, perf_counter() - self.began
        summed = trainer.accelerator.reduce
        steps = state.global_step - max([self.first, *(r["step"] for r in state.log_history if "loss" in r)])
        parts = (summed(trainer.parts) / steps).tolist()
        trainer.parts.zero_()
        cut, texts = summed(trainer.cut).tolist()
        named = {f"loss_{name}": v for name, v in zip(trainer.objective.losses, parts, strict=True)}
        return {
            **(named if len(named) > 1 else {}),
            "seconds": round(self.before + seconds, 1),
            "tokens_per_s": round(summed(trainer.tokens).item() / seconds, 1),
            "cut": round(cut / texts, 4),
            "peak_bytes": peak_bytes(),
            "optimizer_bytes": state_bytes(trainer.optimizer),
            **({"skipped": trainer.ours.skipped} if hasattr(trainer.ours, "skipped") else {}),
            "seconds_left": round(
                seconds / (state.global_step - self.first) * (state.max_steps - state.global_step), 1
            ),
        }


def peak_bytes() -> int:
    """The most memory that this process took: of the GPU, if there is one; else what it had resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists() and "VmHWM:" in (told := status.read_text()):  # what getrusage says begins with its parent's
        return 1024 * int(told.split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
