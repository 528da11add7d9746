"""What adapters that look at data before they begin are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, floor
from typing import Any

from rankpipe.train.adapters.adapter import Adapter
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Ranker
from rankpipe.train.objective import Objective

READ = ("input_ids", "attention_mask", "position_ids", "token_type_ids")  # by models, of a batch
MOST = 4  # batches


def adapted(model: Any, adapter: Adapter, ranker: Ranker, objective: Objective, examples: Any, args: Any) -> Any:
    """The model with an adapter, which is shown the first lists.

    :param args: ``transformers.TrainingArguments``.
    """

    def loss(model: Any, batch: Mapping[str, Any]) -> Any:
        whole = dict(batch)
        return objective(ranker.forward(model, whole), whole, objective.counts([whole]))[0]

    first = _first(ranker, objective, examples, args.per_device_train_batch_size)
    batches = [{k: v.to(args.device) if hasattr(v, "to") else v for k, v in batch.items()} for batch in first]
    if not adapter.by_loss:
        batches = [{k: v for k, v in batch.items() if k in READ} for batch in batches]
    return adapter.apply(model, calibration=batches, loss=loss, steps=_steps(args, len(examples)))


def _first(ranker: Ranker, objective: Objective, examples: Any, size: int) -> Iterator[Batch]:
    for first in range(0, min(MOST * size, len(examples)), size):
        rows = examples[first : first + size]
        lists = [Example.of(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
        yield ranker.batch(lists, reply=objective.reply, together=objective.together)


def _steps(args: Any, lists: int) -> int:
    """Of the whole training, as transformers' Trainer counts them."""
    if args.max_steps > 0:
        return int(args.max_steps)
    whole = floor if args.dataloader_drop_last else ceil
    batches = whole(whole(lists / args.train_batch_size) / args.world_size)  # of each process
    steps: int = ceil(args.num_train_epochs * max(1, ceil(batches / args.gradient_accumulation_steps)))
    return steps
