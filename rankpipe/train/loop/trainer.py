"""transformers' Trainer with a ranking head: losses that add up, our optimizers, evaluation by nDCG, exact resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object

from rankpipe import disk
from rankpipe.errors import ModelError, RecipeError
from rankpipe.train import shards
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.callbacks import keep, resume
from rankpipe.train.dev import Held
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Ranker
from rankpipe.train.loop.average import Average
from rankpipe.train.loop.ending import Ending
from rankpipe.train.loop.sharded import complete, gathered, layers, make_whole, refuse_other
from rankpipe.train.loop.told import Told
from rankpipe.train.making import WHOLE
from rankpipe.train.objective import Objective
from rankpipe.train.optimizers.settings import Settings


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
        shards.refuse_alone(args, taken=self.is_fsdp_enabled)
        if self.is_fsdp_enabled and not (plugin := self.accelerator.state.fsdp_plugin).transformer_cls_names_to_wrap:
            plugin.transformer_cls_names_to_wrap = layers(self.model)
        self.model_accepts_loss_kwargs = True  # the loss is of the whole step already
        self.average = Average(self.model, method.average) if method.average else None
        for printing in (transformers.PrinterCallback, transformers.ProgressCallback):
            self.remove_callback(printing)
        self.told = Told(self, folder / "log.jsonl")
        self.add_callback(self.told)
        self.ending = Ending()
        self.add_callback(self.ending)
        if method.patience:
            self.add_callback(transformers.EarlyStoppingCallback(method.patience))
        # of this process: read in this session, and how many texts in part; the losses since they were last logged
        self.tokens = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self.cut = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        self.parts = torch.zeros(len(self.objective.losses), device=self.args.device)

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """As ever, but that no step is made after the last one; whatever ends it, nothing is shown any more."""
        if resume_from_checkpoint:
            shared = "FSDP" if self.is_fsdp_enabled else "DeepSpeed" if self.is_deepspeed_enabled else None
            refuse_other(Path(resume_from_checkpoint), shared)
            if self._is_over(Path(resume_from_checkpoint)):
                return
        alone = self.args.world_size == 1
        with self.told.shown, self.ending.heard() if alone else nullcontext():
            super().train(resume_from_checkpoint=resume_from_checkpoint)

    def _is_over(self, checkpoint: Path) -> bool:
        """Take up a training that was killed after its last step; False if there are more."""
        state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        stopped = state.stateful_callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop")
        if state.global_step < state.max_steps and not stopped:
            return False
        self.state = state
        if state.best_model_checkpoint and not self.is_deepspeed_enabled:
            self._load_best_model()
        else:  # DeepSpeed has no model yet, but its checkpoints have plain weights, too
            self._load_from_checkpoint(state.best_model_checkpoint or str(checkpoint))
        return True

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

    @property
    def ours(self) -> Any:
        """The optimizer that was made, out of what accelerate puts around it."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """transformers' own, times what the adapter says."""
        made = super().create_scheduler(num_training_steps, optimizer)
        if self.adapter and isinstance(made, torch.optim.lr_scheduler.LambdaLR):
            made.lr_lambdas = [_warmed(rate, self.adapter) for rate in made.lr_lambdas]
        elif self.adapter and any(self.adapter.warmth(step + 1) != 1 for step in range(num_training_steps)):
            fault = (
                f"lr_scheduler_type: {self.args.lr_scheduler_type.value} cannot be warmed at each stage, as "
                f"{self.adapter.method_name} wants it; say cosine, or warmup: 0 there"
            )
            raise RecipeError([fault])
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
        self.cut += inputs["cut"][0]
        if "attention_mask" in inputs:
            self.tokens += inputs["attention_mask"].sum()
        loss = loss * self.accelerator.num_processes  # which gradients are the mean over
        if self.adapter and (more := self.adapter.extra_loss(self.model)) is not None:
            loss = loss + more / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:  # noqa: ARG002
        """Measure the model as it is now, or its average, on the development queries, which processes share out."""
        assert self.held is not None
        mine = self.held.rankings[self.args.process_index :: self.args.world_size]
        with self.averaged(), gathered(self.model), self.compute_loss_context_manager():
            made = self.held.reranked(self.ranker, self.accelerator.unwrap_model(self.model), mine)
        found = self.held.measured(dict(gather_object([*made.items()])))
        metrics = {f"{metric_key_prefix}_{measure}": value for measure, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """For all who are told, with what it cost."""
        if "loss" in logs:
            logs |= self.told.costs()
            if not isfinite(logs["loss"]):
                self.refuse_lost()
        super().log(logs, start_time)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the weights are their average, if there is one."""
        if self.average is None:
            yield
            return
        with self.average.lent():
            yield

    def finish(self) -> None:
        """Make the model of the first process what comes out of the training: whole, and the average, if there is one.

        :raises ModelError: If weights are no numbers any more.
        """
        if self.average:
            self.average.put()
        self.refuse_lost()
        make_whole(self.model, here=self.is_world_process_zero())

    def refuse_lost(self) -> None:
        """:raises ModelError: If weights are no numbers any more."""
        trained = ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)
        if lost := next((n for n, p in trained if not p.detach().isfinite().all()), None):
            raise ModelError(
                f"step {self.state.global_step}: {lost} has no numbers any more; lower the learning rate, or warm it "
                "up for longer (training: {warmup_steps: ...})"
            )

    def _collated(self, rows: Sequence[dict[str, Any]]) -> Batch:
        objective = self.objective
        return self.ranker.batch([Example.of(row) for row in rows], reply=objective.reply, together=objective.together)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.refuse_lost()
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)  # or else, of weights in parts, it is never the best one
        if self.is_fsdp_enabled:
            complete(self.ours)
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its random state
        if self.average:
            self.average.save(folder, here=self.args.should_save)
        if self.args.should_save:
            keep(self.between, self.accelerator.unwrap_model(self.model), folder)
            for path in [*folder.rglob("*"), folder]:
                disk.fsync(path)
            with disk.write(folder / WHOLE) as f:
                f.write("")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restored(Path(resume_from_checkpoint))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As ever, of the steps after which the adapter is what was asked for."""
        if self.adapter and not self.adapter.may_end(self.accelerator.unwrap_model(self.model), self.state.global_step):
            return False
        return bool(super()._determine_best_metric(metrics, trial))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Of all gradients, also of those that are gone, because they were used as they came."""
        norm = super()._get_grad_norm(model, grad_norm)
        layers = getattr(self.ours, "layers", None)
        return norm if layers is None else float((norm**2 + layers.squares) ** 0.5)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        model = self.accelerator.unwrap_model(self.model)
        for callback in self.between:
            callback.rewind(model, lambda: self.ranker.load("float32"))
        self._restored(Path(self.state.best_model_checkpoint))

    def _restored(self, checkpoint: Path) -> None:
        resume(self.between, self.accelerator.unwrap_model(self.model), checkpoint)
        if self.average:
            self.average.load(checkpoint)


def _warmed(rate: Callable[[int], float], adapter: Adapter) -> Callable[[int], float]:
    return lambda step: rate(step) * adapter.warmth(step + 1)
