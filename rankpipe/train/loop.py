"""transformers' Trainer with a ranking head: losses that add up, our optimizers, evaluation by nDCG, exact resuming.

Imports torch and transformers, since its class is one of theirs; so it is imported only when something is tuned.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from rankpipe import disk, lines
from rankpipe.progress import running
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.callbacks import keep, resume
from rankpipe.train.dev import Held
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Ranker
from rankpipe.train.objective import Objective
from rankpipe.train.optimizers.settings import Settings
from rankpipe.train.optimizers.storage import state_bytes

WHOLE = "whole"  # marks a checkpoint of which every file is written
AVERAGE = "average.safetensors"


@dataclass(frozen=True)
class Method:
    """How a model is tuned.

    :param adapter: None trains all weights.
    :param average: how much of the moving average of the weights is kept at a step; it is what is evaluated and what
        comes out. None for no average.
    :param patience: evaluations without a better one after which it ends; None is to the last step.
    """

    ranker: Ranker
    objective: Objective
    optimizer: Settings
    adapter: Adapter | None = None
    average: float | None = None
    patience: int | None = None


class RankTrainer(transformers.Trainer):  # type: ignore[misc]
    """Tunes a ranker.

    Losses of a step are means over all its lists (or tokens), whatever the batches and processes that they come in. A
    checkpoint has all that decides what comes next, so that a killed run goes on to the same weights, to the bit.

    :param model: as the ranker loaded it, with its adapter.
    :param folder: where ``log.jsonl`` is written while it runs.
    """

    optimizer: Any
    control: Any

    def __init__(self, model: Any, args: Any, method: Method, examples: Any, held: Held | None, folder: Path) -> None:
        self.method, self.held = method, held
        self.between = method.adapter.callbacks() if method.adapter else []
        self.ranker, self.objective, self.adapter = method.ranker, method.objective, method.adapter
        super().__init__(
            model=model, args=args, data_collator=self._collated, train_dataset=examples,
            eval_dataset=held.rankings if held else None,
        )  # fmt: skip
        self.model_accepts_loss_kwargs = True  # the loss is of the whole step already
        self.average = Average(self.model, method.average) if method.average else None
        for printing in (transformers.PrinterCallback, transformers.ProgressCallback):
            self.remove_callback(printing)
        self.add_callback(Told(self, folder / "log.jsonl"))
        if method.patience:
            self.add_callback(transformers.EarlyStoppingCallback(method.patience))
        self.tokens = torch.zeros((), dtype=torch.int64, device=self.args.device)  # read in this session
        self.parts = torch.zeros(len(self.objective.losses), device=self.args.device)  # since they were last logged

    def create_optimizer(self, model: Any = None) -> Any:
        """Ours, with the adapter's learning rates."""
        if self.optimizer is None:
            self.optimizer = self.method.optimizer.over(
                model or self.model,
                accumulation=self.args.gradient_accumulation_steps,
                max_grad_norm=self.args.max_grad_norm or 0.0,
            )
            if self.adapter:
                self.adapter.pace(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """transformers' own, times what the adapter says."""
        made = super().create_scheduler(num_training_steps, optimizer)
        if self.adapter and isinstance(made, torch.optim.lr_scheduler.LambdaLR):
            made.lr_lambdas = [_warmed(rate, self.adapter) for rate in made.lr_lambdas]
        return made

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of a step, and what each loss counts in all of them, of all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = self.objective.counts(batches).to(device)
        return batches, self.accelerator.reduce(counts, "sum")

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share in the loss of its step."""
        outputs = self.ranker.forward(model, inputs)
        counts = self.objective.counts([inputs]) if num_items_in_batch is None else num_items_in_batch
        loss, parts = self.objective(outputs, inputs, counts)
        self.parts += parts
        if "attention_mask" in inputs:
            self.tokens += inputs["attention_mask"].sum()
        if self.adapter and (more := self.adapter.extra_loss(model)) is not None:
            loss = loss + more / self.current_gradient_accumulation_steps
        loss = loss * self.accelerator.num_processes  # which gradients are the mean over
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:  # noqa: ARG002
        """Measure the model as it is now, or its average, on the development queries."""
        assert self.held is not None
        with self.averaged(), self.compute_loss_context_manager():
            found = self.held.measure(self.ranker, self.accelerator.unwrap_model(self.model))
        metrics = {f"{metric_key_prefix}_{measure}": value for measure, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the weights are their average, if there is one."""
        if self.average is None:
            yield
            return
        with self.average.lent():
            yield

    def _collated(self, rows: Sequence[dict[str, Any]]) -> Batch:
        objective = self.objective
        return self.ranker.batch([Example.of(row) for row in rows], reply=objective.reply, together=objective.together)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            keep(self.between, self.accelerator.unwrap_model(self.model), folder)
            if self.average:
                save_file(self.average.held, str(folder / AVERAGE))
            for path in [*folder.rglob("*"), folder]:
                disk.fsync(path)
            with disk.write(folder / WHOLE) as f:
                f.write("")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restored(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._restored(Path(self.state.best_model_checkpoint))

    def _restored(self, checkpoint: Path) -> None:
        resume(self.between, self.accelerator.unwrap_model(self.model), checkpoint)
        if self.average:
            self.average.load(checkpoint)


class Average:
    """The moving average of all weights that are trained, in single precision."""

    def __init__(self, model: Any, kept: float) -> None:
        self.kept = kept
        self._own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.held = {name: p.detach().float().clone() for name, p in self._own.items()}

    def update(self) -> None:
        """After a step."""
        for name, p in self._own.items():
            self.held[name].lerp_(p.detach().float(), 1 - self.kept)

    def put(self) -> None:
        """Into the model, for good."""
        for name, p in self._own.items():
            p.detach().copy_(self.held[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Into the model, for as long as the block lasts."""
        own = {name: p.detach().clone() for name, p in self._own.items()}
        self.put()
        try:
            yield
        finally:
            for name, p in self._own.items():
                p.detach().copy_(own[name])

    def load(self, checkpoint: Path) -> None:
        """That of a checkpoint."""
        for name, value in load_file(str(checkpoint / AVERAGE)).items():
            self.held[name].copy_(value)


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
        if not state.is_world_process_zero:
            return
        row = state.log_history[-1]
        if "loss" in logs:
            row |= self._costs(state)
            self.standing |= {"loss": f"{row['loss']:.4f}", "tokens/s": f"{row['tokens_per_s']:.0f}"}
            self.standing |= {"memory": _size(row["peak_bytes"]), "optimizer": _size(row["optimizer_bytes"])}
        self.standing |= {k.removeprefix("eval_"): f"{v:.4f}" for k, v in logs.items() if k.startswith("eval_")}
        lines.write(self.path, state.log_history)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """No more steps."""
        self.steps.__exit__(None, None, None)

    def _costs(self, state: Any) -> dict[str, float]:
        """What is known of the time, memory and parts of the loss since the last row."""
        trainer, seconds = self.trainer, perf_counter() - self.began
        steps = state.global_step - max((r["step"] for r in state.log_history[:-1] if "loss" in r), default=0)
        parts = (trainer.parts / steps).tolist()
        trainer.parts.zero_()
        named = {f"loss_{name}": v for name, v in zip(trainer.objective.losses, parts, strict=True)}
        return {
            **(named if len(named) > 1 else {}),
            "tokens_per_s": round(trainer.tokens.item() / seconds, 1),
            "peak_bytes": peak_bytes(),
            "optimizer_bytes": state_bytes(trainer.optimizer),
            "seconds_left": round(
                seconds / (state.global_step - self.first) * (state.max_steps - state.global_step), 1
            ),
        }


def _warmed(rate: Callable[[int], float], adapter: Adapter) -> Callable[[int], float]:
    return lambda step: rate(step) * adapter.warmth(step + 1)


def peak_bytes() -> int:
    """The most memory that was taken: of the GPU, if there is one; else what the process had resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def last_whole(folder: Path) -> Path | None:
    """The last checkpoint of which every file is written."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
