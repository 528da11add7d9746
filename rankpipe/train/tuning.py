"""A tuned model is a recipe on the ``models`` shelf: from data to an evaluated adapter.

    model: smollm2                                        # an alias, a Hugging Face id or a folder
    head: {use: first-head, context: 2048}
    examples: {use: lists, data: beir/scifact/train, run: bm25.trec, length: [2, 20]}
    loss: {use: first-loss}
    adapter: {use: lora, rank: 16}                        # without one, all weights are trained
    optimizer: {use: adamw, lr: 1.0e-4}                   # without one, training.optim, as transformers has it
    training: {max_steps: 500, per_device_train_batch_size: 4, bf16: true}   # transformers.TrainingArguments
    dev: {share: 0.1, every: 50, patience: 5}             # evaluation by nDCG@10, early stopping, the best checkpoint
    ema: 0.999                                            # the weights' moving average
    dtype: bfloat16                                       # of the model's weights; float32 by default; nf4 is QLoRA

What is made lies under ``made/``: the adapter in PEFT's layout, or the whole model (encoders have
both). ``log.jsonl`` and ``card.md`` say how it came about.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from rankpipe import recipe, store, weights
from rankpipe.catalog import near, need
from rankpipe.disk import disk_errors, write
from rankpipe.errors import MissingWeights, RecipeError, faults_of, refuse
from rankpipe.progress import notice, working
from rankpipe.provenance import digest
from rankpipe.train import arguments, calibration, processes, shards
from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.adapters.qlora import BITS, loading
from rankpipe.train.card import facts_of
from rankpipe.train.dev import Held
from rankpipe.train.forecast import Forecast, forecast, free, longest
from rankpipe.train.heads.head import Head, Numbers
from rankpipe.train.lists import Source
from rankpipe.train.making import CARD, KEPT_LOG, last_whole, put, read_log, tell
from rankpipe.train.objective import Objective

__all__ = ["Tuning", "read_log"]
NEEDED = ("model", "head", "examples", "loss")
COMPONENTS = ("head", "examples", "loss", "adapter", "optimizer")
KEYS = (*NEEDED, "adapter", "optimizer", "training", "dev", "ema", "dtype")


@dataclass(frozen=True)
class Parts:
    """What a recipe is made of, built."""

    head: Head
    examples: Source
    loss: Any
    adapter: Any
    dev: Any


class Tuning:
    """A recipe that was read; ``check`` it, then ``run`` it.

    :param path: the recipe, or its folder.
    :raises DataError: If there is no recipe, or it is not YAML.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self.tree, self.root = recipe.load(path), recipe.house(path)
        for key in COMPONENTS:
            if isinstance(named := self.tree.get(key), str):
                self.tree[key] = {"use": named}
        if isinstance(dev := self.tree.get("dev"), dict):
            self.tree["dev"] = {"use": "dev", **dev}

    @property
    def work(self) -> Path:
        """Where checkpoints of this very recipe are kept."""
        return self.folder / "kept" / digest(self.tree)[:12]

    @property
    def begun(self) -> Path | None:
        """The last checkpoint of this very recipe, if there is any."""
        return last_whole(self.work / "checkpoints")

    @property
    def dtype(self) -> Numbers:
        """Of the model's weights."""
        said: Numbers = self.tree.get("dtype", "float32")
        return said

    def check(self) -> list[str]:
        """Every fault, each with its place; loads no model and reads no data."""
        tree = self.tree
        faults = [f"{key} is missing; a recipe of a model has {', '.join(NEEDED)}" for key in NEEDED if key not in tree]
        faults += [f"no key {key!r}{near(key, [*KEYS])}" for key in tree if key not in KEYS]
        for key in (*COMPONENTS, "dev"):
            node = recipe.meant(tree.get(key))
            if node is not None and not (isinstance(node, dict) and "use" in node):
                faults.append(f"{key}: expected a component, as {{use: ...}}")
            elif node is not None:
                faults += recipe.check(node, key, self.root)
        faults += faults_of("model", lambda: weights.refuse_to_train(tree.get("model", "")))
        if tree.get("dtype", "float32") not in get_args(Numbers):
            faults.append(f"dtype: {tree['dtype']!r} is not one of {', '.join(get_args(Numbers))}")
        elif self.dtype in BITS and not tree.get("adapter"):
            faults.append(f"dtype: {self.dtype} is not trained itself; add adapter: {{use: lora}}")
        ema = tree.get("ema")
        if ema is not None and not (isinstance(ema, float) and 0 < ema < 1):
            faults.append(f"ema: {ema!r}; expected a number between 0 and 1, such as 0.999")
        faults += faults_of("training", lambda: arguments.check(tree.get("training", {}), tree.get("optimizer")))
        if not faults:
            faults += faults_of("", self._fits)
        return faults

    def _fits(self) -> None:
        parts = self._parts
        if not isinstance(parts.head, Head):
            raise RecipeError([f"head: {parts.head!r} is no head; for example {{use: first-head}}"])
        if not isinstance(parts.examples, Source):
            raise RecipeError([f"examples: {parts.examples!r} is none; for example {{use: lists, ...}}"])
        if parts.adapter is not None and not isinstance(parts.adapter, Adapter):
            raise RecipeError([f"adapter: {parts.adapter!r} is none; for example {{use: lora}}"])
        if self.dtype in BITS:
            if not parts.head.quantised:
                raise RecipeError([f"dtype: {self.dtype} is for heads of language models, not for this one"])
            if parts.adapter:
                parts.adapter.refuse_quantised(BITS[self.dtype])
            loading(self.dtype)
        Objective(parts.loss, parts.head)
        if "ema" in self.tree and parts.adapter and not parts.adapter.averages:
            raise RecipeError(
                [f"ema: the mean of {parts.adapter.method_name}'s steps is no such adapter; leave it out"]
            )
        args = self._arguments()
        settings = arguments.optimizer(self.tree.get("optimizer"), args)
        shards.refuse(args, settings, parts.adapter, self.dtype, ema="ema" in self.tree)
        arguments.fit(settings, args, parts.adapter, self.dtype)

    @processes.one_voice()
    def run(self, *, force: bool = False, callbacks: Sequence[Any] = ()) -> dict[str, Any]:
        """Make the examples, tune, evaluate, and publish the best model; goes on where a killed run stopped. A model of
        this recipe and these lists that is there already stays.

        :param force: tune again, and forget what is kept of earlier runs.
        :param callbacks: ``transformers.TrainerCallback``, told of what happens.
        :return: the facts of what was made.
        :raises RecipeError: If ``check`` finds faults; MissingExtra if they are only of extras.
        :raises ArtefactError: If something else was built in the recipe's folder; Busy if it is being tuned there.
        """
        refuse(self.check(), str(self.path))
        store.refuse_other(self.folder, weights.TUNED)
        with processes.one_training(self.folder / "kept"):
            args = self._arguments()
            examples, held = self._data(args)
            if not force and self._is_there():
                if processes.first():
                    self._tell()
                notice(f"{self.folder} is current; --force tunes it again")
                return store.read_manifest(self.folder).facts
            self._objective.refuse_silence(examples, args.per_device_train_batch_size)
            with args.main_process_first(local=False):
                self._forget_others()
            trainer = self._trainer(args, examples, held)
            for callback in callbacks:
                trainer.add_callback(callback)
            with trainer.args.main_process_first(local=False):
                if force and trainer.is_world_process_zero():
                    shutil.rmtree(self.work / "checkpoints", ignore_errors=True)
            if begun := self.begun:
                notice(f"going on from {begun}")
                trainer.args.eval_on_start = False  # it was measured; and patience counts measurements
            unsaved = need("safetensors", name="training", extra="train").SafetensorError
            with weights.quiet(), disk_errors(self.folder, (RuntimeError, unsaved)):
                trainer.train(resume_from_checkpoint=str(begun) if begun else None)
                trainer.finish()
                if trainer.is_world_process_zero():
                    self._publish(trainer)
            trainer.accelerator.wait_for_everyone()
            return store.read_manifest(self.folder).facts

    @processes.one_voice()
    def forecast(self) -> Forecast:
        """What training will hold in memory; makes the examples, and loads no weights.

        :raises RecipeError: If ``check`` finds faults, or it is more than can be had here; says what makes it less.
        """
        refuse(self.check(), str(self.path))
        parts, args = self._parts, self._arguments()
        examples, _ = self._data(args)
        self._objective.refuse_silence(examples, args.per_device_train_batch_size)
        made = forecast(
            parts.head.over(str(self.tree["model"])), self._objective,
            arguments.optimizer(self.tree.get("optimizer"), args), parts.adapter,
            longest(examples, args.per_device_train_batch_size), dtype=self.dtype, args=args, ema="ema" in self.tree,
        )  # fmt: skip
        made.refuse(free(args.device.type), f"this {args.device.type}")
        return made

    def trainer(self) -> Any:
        """transformers' Trainer, ready to train."""
        args = self._arguments()
        return self._trainer(args, *self._data(args))

    def _is_there(self) -> bool:
        lists = store.read_manifest(self.folder / "kept" / "lists").data
        if store.staleness(self.folder, kind=weights.TUNED, recipe=self.tree, data=lists) is not None:
            return False
        with suppress(MissingWeights):  # then it is not known to be another
            return bool(store.read_manifest(self.folder).facts.get("base", self.base) == self.base)
        return True

    def _trainer(self, args: Any, examples: Any, held: Held | None) -> Any:
        transformers, parts = need("transformers", name="training", extra="train"), self._parts
        transformers.set_seed(args.seed)  # a new score head is drawn
        ranker = parts.head.over(str(self.tree["model"]))
        processes.load_whole()
        with working(f"{self.tree['model']}: loading"):
            model = ranker.load(self.dtype)
        if self.dtype not in BITS:
            model = model.to(args.device)  # where adapters decompose it
        objective = self._objective
        if parts.adapter:
            with weights.quiet():
                model = calibration.adapted(model, parts.adapter, ranker, objective, examples, args)
        from rankpipe.train.loop import Method, RankTrainer

        method = Method(
            ranker,
            objective,
            arguments.optimizer(self.tree.get("optimizer"), args),
            parts.adapter,
            self.tree.get("ema"),
            parts.dev.patience if parts.dev else None,
        )
        return RankTrainer(model, args, method, examples, held, self.work)

    def _arguments(self) -> Any:
        parts = self._parts
        folder = self.work / "checkpoints"
        return arguments.made(self.tree.get("training", {}), folder, parts.dev, ordered=parts.examples.ordered)

    def _data(self, args: Any) -> tuple[Any, Held | None]:
        """The lists to learn from, and the development queries, if there are any. One process makes what is kept."""
        shards.refuse_alone(args, taken=args.world_size > 1)
        with suppress(MissingWeights):  # where it is current, they are not needed
            weights.to_train(str(self.tree["model"]))
        lists, dev = self._parts.examples, self._parts.dev
        with args.main_process_first(local=False):
            lists = dev.beside(lists) if dev else lists
            mine, theirs = lists.parts(dev.share if dev else 0.0)
            examples = lists.ensure(self.folder / "kept" / "lists", self.tree["examples"], mine)
            return examples, dev.held(lists, theirs) if dev else None

    def _forget_others(self) -> None:
        """Checkpoints of other lists than these, or of another base, by their checksums."""
        lists = f"{store.read_manifest(self.folder / 'kept' / 'lists').data.checksum} {self.base}"
        mark = self.work / "lists"
        if mark.exists() and mark.read_text("utf-8") != lists:
            notice("the lists or the base are others than before: training begins anew")
            shutil.rmtree(self.work / "checkpoints", ignore_errors=True)
        with write(mark) as f:
            f.write(lists)

    @property
    def _objective(self) -> Objective:
        return Objective(self._parts.loss, self._parts.head)

    @cached_property
    def base(self) -> str:
        """What model is tuned, by its files."""
        return weights.identity(weights.to_train(str(self.tree["model"])))

    @cached_property
    def _parts(self) -> Parts:
        def built(key: str) -> Any:
            return recipe.build(self.tree[key], self.root) if self.tree.get(key) else None

        adapter = built("adapter")
        if isinstance(adapter, Adapter) and adapter.seed is None:
            adapter = replace(adapter, seed=self.tree.get("training", {}).get("seed"))
        return Parts(built("head"), built("examples"), built("loss"), adapter, built("dev"))

    def _publish(self, trainer: Any) -> None:
        """The model, its log and its card."""
        data = store.read_manifest(self.folder / "kept" / "lists").data
        with store.publish(self.folder, kind=weights.TUNED, recipe=self.tree, data=data) as draft:
            place = recipe.place(self.folder, self.root)
            draft.facts |= {**facts_of(trainer, self._parts.dev), "base": self.base}
            draft.facts |= put(trainer, draft.folder, place, self.dtype)
            (self.folder / CARD).unlink(missing_ok=True)  # it is of what is there now
        self._tell()

    def _tell(self) -> None:
        """The log and the card of what was made, unless they are there already."""
        made = store.read_manifest(self.folder)
        if not (self.folder / CARD).exists() and (made.path / KEPT_LOG).exists():
            tell(made, self._parts.examples.collections)
