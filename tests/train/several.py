"""Recipes in several processes, as a user launches them, beside the same in one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tuned import TRAINING, tensors

from rankpipe.train.tuning import read_log

ROOT = Path(__file__).parents[2]
TWO = TRAINING | {"gradient_accumulation_steps": 1}  # a batch in each of two processes, not two in one
DEV = {"share": 0.3, "every": 2, "depth": 8}


def launched(*words: object, processes: int = 2, how: Sequence[str] = ("--multi_gpu",)) -> Any:
    """The end of a command in processes of its own.

    :param how: accelerate's flags.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += [*how, "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", *map(str, words)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=300)  # if one waits


def same(one: Path, two: Path) -> None:
    """What a recipe made in one process, and in two."""
    alone, both = read_log(one), read_log(two)
    assert [sorted(row) for row in alone] == [sorted(row) for row in both]
    told = [{k: v for k, v in row.items() if k.startswith(("loss", "eval_"))} for row in (*alone, *both)]
    for a, b in zip(told[: len(alone)], told[len(alone) :], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert sum(map(bool, told)) >= 2 * 3
    for k, v in tensors(one).items():
        assert v.allclose(tensors(two)[k], atol=1e-3), k
