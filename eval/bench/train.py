"""Trainers and optimizers on SmolLM2: what they hold, and how long a step takes, on the same lists in the same order.

.venv-train/bin/python eval/bench/train.py [--heats galore lora] [--steps 6] [--threads 1]

Each system is a process of its own; those of a heat take turns, step by step, so that ratios within a round are of the
same mood of the machine. Seconds are the processor's where there is no GPU, so that other work counts little. All learn
to write the order of short lists, one list a step. Ours is ``rankpipe train``'s trainer, with any optimizer;
transformers' own computes the same loss. A last heat has lists of 20 passages. What projections capture is measured on
the gradients of short lists.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from common import HERE, Row, alone, file
from train_bases import bases
from train_systems import GAP, SYSTEMS, Process, Step, Task

from rankpipe.provenance import versions

BASE, LORA = "AdamW", "LoRA"
HEATS = {
    "galore": (BASE, "GaLore", "galore-torch"),
    "lora": (BASE, LORA, "PEFT + Trainer", "PEFT + Trainer, logits cut"),
    "8bit": (BASE, "8-bit Adam", "bitsandbytes 8-bit Adam", "GaLore 8-bit"),
    "layers": (BASE, "GaLore, layer-wise", "transformers galore_adamw"),
    "apollo": (BASE, "Adafactor", "APOLLO", "transformers apollo_adamw"),
}
LONG = (BASE, "GaLore")
WARM = 2  # steps that are not counted
PROJECTING = [name for name in SYSTEMS if "alore" in name.lower() or "apollo" in name.lower()]
MIB = 2**20


@dataclass(frozen=True)
class Made:
    """What a system did and held."""

    steps: Sequence[Step]
    facts: Row

    @property
    def counted(self) -> Sequence[Step]:
        """Steps after the first ones."""
        return self.steps[WARM:]

    @property
    def seconds(self) -> float:
        """Of a step, that count; the median."""
        return median(step.seconds for step in self.counted)

    @property
    def optimizer_s(self) -> float:
        """Of the optimizer's step, the median."""
        return median(step.optimizer_s for step in self.counted)

    @property
    def refresh_s(self) -> float:
        """How much longer the optimizer's first step takes, in which directions are found."""
        return self.steps[0].optimizer_s - self.optimizer_s

    def to(self, other: Made) -> float:
        """Its steps as shares of another's in the same rounds, the median."""
        return median(a.seconds / b.seconds for a, b in zip(self.counted, other.counted, strict=True))

    def over(self, base: Made) -> float:
        """What its optimizer takes beyond another's, with directions found anew every ``GAP`` steps, as a share of a
        whole step of the other; the median over rounds.
        """
        return median(
            (a.optimizer_s + self.refresh_s / GAP - b.optimizer_s) / b.seconds
            for a, b in zip(self.counted, base.counted, strict=True)
        )


def main() -> None:
    """Race, and file the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heats", nargs="*", choices=[*HEATS, "long", "bases"], help="only these")
    parser.add_argument("--steps", type=int, default=6, help="that are counted; of long lists half as many")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for each system")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--into", type=Path, default=HERE, help="where the results are filed")
    told = parser.parse_args()
    wanted = told.heats or [*HEATS, "long", "bases"]
    data = Path(os.environ["RANKPIPE_DATA"])
    task = Task(data, told.model, 5, 40, told.steps + WARM, told.dtype, told.threads)
    rows: dict[str, Row] = {}
    overheads: list[Row] = []
    for heat in [name for name in HEATS if name in wanted]:
        made = raced(HEATS[heat], task)
        rows |= {name: row for name, row in table(made, task).items() if name not in rows}
        overheads += overhead(made, task)
    if "long" in wanted:
        longer = replace(task, passages=20, words=300, steps=max(told.steps // 2, 1) + WARM)
        overheads += overhead(raced(LONG, longer), longer)
    also = versions(("peft", "bitsandbytes", "galore-torch", "apollo-torch"))
    for name, made_rows in (("train", [*rows.values()]), ("train-overhead", overheads)):
        if made_rows:
            file(name, made_rows, told.into, also)
    if "bases" in wanted:
        file("train-bases", alone(bases, task), told.into)


def raced(names: Sequence[str], task: Task) -> dict[str, Made]:
    """One heat: a step each, in turn, every other round backwards."""
    processes = [Process(name, task) for name in names]
    steps: dict[str, list[Step]] = {name: [] for name in names}
    try:
        for number in range(task.steps):
            for process in processes if number % 2 else reversed(processes):
                steps[process.name].append(process.step())
                print(process.name, steps[process.name][-1], flush=True)
        return {process.name: Made(steps[process.name], process.end()) for process in processes}
    finally:
        for process in processes:
            process.stop()


def table(made: Mapping[str, Made], task: Task) -> dict[str, Row]:
    """A row for each system of a heat."""
    base, rows = made[BASE], {}
    whole = base.facts["projected"]
    for name, one in made.items():
        facts = one.facts
        projected = name in PROJECTING or "8-bit" in name or name == "Adafactor"
        row = {
            "system": name, "state_mib": round(facts["state"] / MIB, 2),
            "saved_pct": round(100 - 100 * facts["projected"] / whole, 1) if projected else None,
            "peak_mb": facts["peak_mb"], "first_s": round(one.steps[0].seconds, 1),
            "first_optimizer_s": round(one.steps[0].optimizer_s, 2), "step_s": round(one.seconds, 2),
            "wall_s": round(median(step.wall_s for step in one.counted), 2),
            "optimizer_s": round(one.optimizer_s, 3), "to_adamw": round(one.to(base), 3),
            "to_lora": round(one.to(made[LORA]), 3) if LORA in made else None,
            "tokens_s": round(median(step.tokens / step.seconds for step in one.counted)),
            "loss": round(facts["loss"], 5), "dtype": task.dtype, "steps": len(one.counted), "threads": task.threads,
        }  # fmt: skip
        rows[name] = row | ({"gpu_mb": round(facts["gpu"] / 1e6)} if facts["gpu"] is not None else {})
    return rows


def overhead(made: Mapping[str, Made], task: Task) -> list[Row]:
    """What projecting takes beyond AdamW."""
    base = made[BASE]
    return [
        {
            "system": name, "passages": task.passages, "tokens": round(median(s.tokens for s in one.counted)),
            "adamw_step_s": round(base.seconds, 2), "adamw_optimizer_s": round(base.optimizer_s, 3),
            "optimizer_s": round(one.optimizer_s, 3), "refresh_s": round(one.refresh_s, 2), "gap": GAP,
            "overhead_pct": round(100 * one.over(base), 1), "steps": len(one.counted), "dtype": task.dtype,
        }
        for name, one in made.items()
        if name in PROJECTING and "layer-wise" not in name  # whose steps are within the backward pass
    ]  # fmt: skip


if __name__ == "__main__":
    main()
