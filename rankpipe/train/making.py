"""What is made of a tuning: the model, its log and its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankpipe import lines
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.errors import ModelError
from rankpipe.store import Manifest
from rankpipe.train.adapters.merging import merge
from rankpipe.train.card import card
from rankpipe.train.heads.head import Numbers

CARD, LOG = "card.md", "log.jsonl"
WHOLE = "whole"  # marks a checkpoint of which every file is written
KEPT_LOG = f".{LOG}"  # in what is made: no file of the model's, and not given away with it


def put(trainer: Any, folder: Path, place: str, dtype: Numbers) -> dict[str, Any]:
    """Write what was tuned, and its log, into a folder; facts of it.

    :param place: where it will be found by recipes.
    :param dtype: of the model's weights.
    :raises ModelError: If its adapter is not yet what was asked for.
    """
    model, ranker, adapter = trainer.model, trainer.ranker, trainer.adapter
    facts: dict[str, Any] = {}
    if adapter:
        if not adapter.may_end(model, step := trainer.state.best_global_step or trainer.state.global_step):
            raise ModelError(f"{adapter.method_name} is not done after {step} steps; let it train for longer")
        facts["report"] = str(adapter.report(model))
        adapter.save(model, at := folder / "adapter" if ranker.whole else folder)
        (at / "README.md").unlink(missing_ok=True)  # PEFT's card, which says nothing
        if ranker.whole:
            model, loss = merge(model, lambda: ranker.load(dtype))
            facts["merged"] = str(loss)
    ranker.save(model, folder, whole=ranker.whole or not adapter)
    lines.write(folder / KEPT_LOG, trainer.state.log_history)
    half = trainer.args.bf16 or dtype != "float32"
    return {**facts, "reranker": ranker.node(place, bool(adapter), "bfloat16" if half else "float32")}


def tell(made: Manifest, collections: Sequence[Dataset]) -> None:
    """Write the log and the card beside what was made."""
    history = read_log(made.path, KEPT_LOG)
    lines.write(made.folder / LOG, history)
    with write(made.folder / CARD) as f:
        f.write(card(made.folder.resolve().name, made, collections, history))


def read_log(folder: Path, name: str = LOG) -> list[dict[str, Any]]:
    """The log of a tuned model."""
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def last_whole(folder: Path) -> Path | None:
    """The last checkpoint of which every file is written."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
