"""Killed for good at each step, and while a checkpoint is written: the weights of an uninterrupted run, to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

from tuned import GALORE, LORA, tensors  # noqa: E402

from rankpipe.train.tuning import read_log  # noqa: E402

SESSIONS = """
import os, signal, sys
from pathlib import Path
import datasets, peft, torch, transformers
from transformers.trainer_callback import ExportableState
from rankpipe.train.tuning import Tuning

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class AtStep(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step
    def on_step_end(self, args, state, control, **given):
        if state.global_step == self.step:
            kill()

class AtSave(transformers.TrainerCallback, ExportableState):
    def __init__(self, folder):
        self.folder = folder
    def state(self):  # also asked for when weights and optimizer of a checkpoint are written, and the rest is not
        if any(not (path / "whole").exists() for path in self.folder.glob("kept/*/checkpoints/checkpoint-*")):
            kill()
        return {"args": {"folder": str(self.folder)}, "attributes": {}}

def session(folder, *callbacks):
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        Tuning(folder).run(callbacks=callbacks)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for whole, killed in zip(sys.argv[1::2], sys.argv[2::2]):
    assert session(Path(whole)) == 0
    for step in range(1, 7):
        assert session(Path(killed), AtStep(step)) == -signal.SIGKILL
        if step % 2 == 0:
            assert session(Path(killed), AtSave(Path(killed))) == -signal.SIGKILL
            [begun] = Path(killed).glob(f"kept/*/checkpoints/checkpoint-{step}")
            assert not (begun / "whole").exists()
    assert not (Path(killed) / "manifest.json").exists()
    assert session(Path(killed)) == 0
"""


def test_killed_at_each_step_it_goes_on(written: Any) -> None:
    ways: dict[str, dict[str, Any]] = {
        "lora": {"adapter": LORA | {"dropout": 0.3}, "dev": {"share": 0.3, "every": 2, "depth": 8}},
        "galore": {"adapter": None, "optimizer": GALORE},
        "adamw": {"adapter": None, "ema": 0.5},
    }
    folders = [written(f"{name}-{how}", **keys) for name, keys in ways.items() for how in ("whole", "killed")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SESSIONS, *map(str, folders)], env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for whole, killed in zip(folders[::2], folders[1::2], strict=True):
        one, other = tensors(whole), tensors(killed)
        assert one.keys() == other.keys()
        assert all(torch.equal(v, other[k]) for k, v in one.items())
        for key in ("loss", "eval_nDCG@10"):
            first, second = ([(r["step"], r[key]) for r in read_log(f) if key in r] for f in (whole, killed))
            assert first == second
