"""What ``train.py`` races: our trainer and transformers' own, each with its optimizers. One system, one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from common import Row, peak_mb

from rankpipe import weights
from rankpipe.train import arguments
from rankpipe.train.adapters.lora import LoRA
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Dtype, Ranker
from rankpipe.train.heads.windows import ListwiseHead
from rankpipe.train.lists import Lists
from rankpipe.train.losses import PermutationLM
from rankpipe.train.objective import Objective
from rankpipe.train.optimizers.adafactor import Adafactor
from rankpipe.train.optimizers.adam8bit import Adam8bit, BitsAndBytes
from rankpipe.train.optimizers.adamw import AdamW
from rankpipe.train.optimizers.apollo import Apollo
from rankpipe.train.optimizers.galore import GaLore, GaLore8bit, LayerWiseGaLore
from rankpipe.train.optimizers.groups import sort
from rankpipe.train.optimizers.settings import Settings

RANK, GAP, SCALE, LR = 128, 200, 0.25, 1e-5
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of each block
POOL = "trec-dl19-pool"  # passages of some 80 tokens; nothing is measured of what is learned


@dataclass(frozen=True)
class Task:
    """What each system does, so many steps of one list.

    :param passages: of a list.
    :param words: of a passage, at most.
    :param dtype: of the model's weights.
    """

    data: Path
    model: str
    passages: int
    words: int
    steps: int
    dtype: Dtype
    threads: int


@dataclass(frozen=True)
class Step:
    """A step, from the end of the one before. The time that counts is the processor's where there is no GPU, so that
    other work on the machine counts little.

    :param wall_s: by the clock on the wall.
    :param seconds: that count.
    :param optimizer_s: of these, in the optimizer.
    :param tokens: that were read.
    """

    wall_s: float
    seconds: float
    optimizer_s: float
    tokens: int


class GaLoreTorch(Settings):
    """galore-torch's AdamW, with the groups of its README."""

    def _made(self, model: Any) -> Any:
        from galore_torch import GaLoreAdamW

        placed = sort(model, LINEAR)
        low = {"rank": RANK, "update_proj_gap": GAP, "scale": SCALE, "proj_type": "std"}
        groups = [
            {"params": [p.parameter for p in placed if not p.projected]},
            {"params": [p.parameter for p in placed if p.projected], **low},
        ]
        return GaLoreAdamW(groups, lr=self.lr, no_deprecation_warning=True)


def read(task: Task) -> tuple[Ranker, list[Example]]:
    """The ranker, and as many lists as there are steps."""
    run = task.data / POOL / "runs" / "BM25.trec"
    length = (task.passages, task.passages)
    lists = Lists(str(task.data / POOL), run, length=length, copies=-(-task.steps // 40), relevant=False)
    examples = [*lists.examples(lists.parts()[0])][: task.steps]
    return ListwiseHead(max_words=task.words).over(task.model), examples


def ours(settings: Callable[..., Settings], task: Task, work: Path, adapter: LoRA | None = None, **more: Any) -> Any:
    """``rankpipe train``'s trainer."""
    from rankpipe.train.loop import Method, RankTrainer

    ranker, examples = read(task)
    model = ranker.load(task.dtype)
    model = adapter.apply(model) if adapter else model
    objective = Objective(PermutationLM(), ListwiseHead())
    method = Method(ranker, objective, settings(lr=LR), adapter)
    args = arguments.made(said(task, **more), work, None)
    return RankTrainer(model, args, method, [e.row() for e in examples], None, work)


def plain(optim: str, task: Task, work: Path, *, adapter: bool = False, cut: bool = False, **more: Any) -> Any:
    """transformers' Trainer by itself, on lists that are tokens already; the loss is the model's own.

    :param adapter: PEFT's LoRA, as ours is set.
    :param cut: logits of the reply only.
    """
    import torch
    import transformers

    ranker, examples = read(task)
    folder, dtype = weights.resolve(task.model), getattr(torch, task.dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype)
    if adapter:
        import peft

        config = peft.LoraConfig(
            r=16, lora_alpha=LoRA().alpha, lora_dropout=0.0, target_modules=[*LINEAR], task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, config)
    args = transformers.TrainingArguments(
        output_dir=str(work), optim=optim, learning_rate=LR, remove_unused_columns=False, disable_tqdm=True,
        report_to="none", dataloader_pin_memory=False, save_strategy="no", **said(task), **more,
    )  # fmt: skip
    return transformers.Trainer(
        model=model, args=args, data_collator=lambda rows: rows[0], train_dataset=[*tokens(ranker, examples, cut)]
    )


def said(task: Task, **more: Any) -> dict[str, Any]:
    """The arguments of both trainers. What they log is the loss of the first step."""
    return {
        "max_steps": task.steps, "per_device_train_batch_size": 1, "logging_steps": 10**6, "logging_first_step": True,
        "max_grad_norm": 1.0, "train_sampling_strategy": "sequential", "lr_scheduler_type": "constant", **more,
    }  # fmt: skip


def tokens(ranker: Ranker, examples: Sequence[Example], cut: bool) -> Iterator[dict[str, Any]]:
    """Lists as causal language models take them."""
    import torch

    for example in examples:
        batch = ranker.batch([example], reply=True)
        labels = batch["tokens"]  # (1, T), of the last T places
        given = {k: batch[k] for k in ("input_ids", "attention_mask")}
        if cut:
            yield {**given, "labels": labels, "logits_to_keep": labels.shape[1]}
        else:
            before = torch.full((1, given["input_ids"].shape[1] - labels.shape[1]), -100)
            yield {**given, "labels": torch.cat([before, labels], dim=1)}


def projecting(scale: float) -> dict[str, Any]:
    """What transformers is told to project."""
    options = f"rank={RANK},update_proj_gap={GAP},scale={scale}"
    return {"optim_target_modules": [*LINEAR], "optim_args": options}


SYSTEMS: dict[str, Callable[..., Any]] = {  # given a task and a folder
    "AdamW": partial(ours, AdamW),
    "Adafactor": partial(ours, Adafactor),
    "8-bit Adam": partial(ours, Adam8bit),
    "bitsandbytes 8-bit Adam": partial(ours, BitsAndBytes),
    "LoRA": partial(ours, AdamW, adapter=LoRA(rank=16)),
    "PEFT + Trainer": partial(plain, "adamw_torch_fused", adapter=True),
    "PEFT + Trainer, logits cut": partial(plain, "adamw_torch_fused", adapter=True, cut=True),
    "GaLore": partial(ours, partial(GaLore, rank=RANK, gap=GAP, scale=SCALE)),
    "GaLore 8-bit": partial(ours, partial(GaLore8bit, rank=RANK, gap=GAP, scale=SCALE)),
    "GaLore, layer-wise": partial(ours, partial(LayerWiseGaLore, rank=RANK, gap=GAP, scale=SCALE), max_grad_norm=0.0),
    "galore-torch": partial(ours, GaLoreTorch),
    "transformers galore_adamw": partial(plain, "galore_adamw", cut=True, **projecting(SCALE)),
    "APOLLO": partial(ours, partial(Apollo, rank=RANK, gap=GAP)),
    "transformers apollo_adamw": partial(plain, "apollo_adamw", cut=True, **projecting(1.0)),
}


class Process:
    """A system that makes a step each time it is told to."""

    def __init__(self, name: str, task: Task) -> None:
        context = get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(name, task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> Step:
        """One more; the first time also everything that is done before it, which is not counted."""
        self._pipe.send("go")
        return self.answer()

    def answer(self) -> Any:
        """What it says next.

        :raises SystemExit: If it has ended.
        """
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise SystemExit(f"{self.name}: ended before its last step") from None

    def end(self) -> Row:
        """What it held, at the end."""
        facts = self.answer()
        self._process.join()
        return facts

    def stop(self) -> None:
        """Whatever it does."""
        self._process.kill()


def work(name: str, task: Task, pipe: Connection) -> None:
    """The process: train, and say what was held."""
    import torch

    torch.set_num_threads(task.threads)
    with TemporaryDirectory() as folder, weights.quiet():
        trainer = SYSTEMS[name](task, Path(folder))
        told = turns(trainer, pipe, task.steps)
        trainer.add_callback(told)
        trainer.train()
        linear = () if hasattr(trainer.model, "peft_config") else None  # of a model with an adapter none is trained
        matrices = [p.parameter for p in sort(trainer.model, linear) if p.projected]
        optimizer = told.optimizer
        pipe.send(
            {
                "loss": trainer.state.log_history[0]["loss"],
                "peak_mb": peak_mb(),
                "state": held(optimizer.state.values()),
                "projected": held([optimizer.state[p] for p in matrices if p in optimizer.state]),
                "gpu": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            }
        )


def turns(trainer: Any, pipe: Connection, steps: int) -> Any:
    """A callback that waits before each step until it is told to go on, and tells what the step took.

    A step is all that is done from the end of the one before: the batch is made, too.
    """
    import torch
    import transformers

    collate, read_tokens = trainer.data_collator, []
    clock = perf_counter if torch.cuda.is_available() else process_time

    def counted(rows: Any) -> Any:
        batch = collate(rows)
        read_tokens.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted

    class Turns(transformers.TrainerCallback):  # type: ignore[misc]
        """Ours."""

        optimizer: Any
        stepping = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
            self.optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])
            self.optimizer.register_step_pre_hook(lambda *_: setattr(self, "began", clock()))
            self.optimizer.register_step_post_hook(
                lambda *_: setattr(self, "stepping", self.stepping + clock() - self.began)
            )
            self.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
            wall_s, seconds = perf_counter() - self.wall, clock() - self.start
            pipe.send(Step(wall_s, seconds, self.stepping, read_tokens[state.global_step - 1]))
            if state.global_step < steps:
                self.wait()

        def wait(self) -> None:
            pipe.recv()
            self.stepping, self.wall, self.start = 0.0, perf_counter(), clock()

    return Turns()


def held(states: Any) -> int:
    """Bytes of all tensors in optimizers' states, by storage, in whatever objects they lie."""
    storages: dict[int, int] = {}

    def see(value: Any) -> None:
        if hasattr(value, "untyped_storage"):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for one in value.values():
                see(one)
        elif isinstance(value, list | tuple):
            for one in value:
                see(one)
        elif hasattr(value, "__dict__"):
            see(vars(value))

    see([*states])
    return sum(storages.values())
