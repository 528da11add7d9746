"""One recipe in several processes, as a user launches them: what one process makes, made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from tuned import GALORE, TRAINING, tensors  # noqa: E402

from rankpipe.errors import RecipeError  # noqa: E402
from rankpipe.train.tuning import Tuning, read_log  # noqa: E402

ROOT = Path(__file__).parents[2]
TWO = TRAINING | {"gradient_accumulation_steps": 1}  # a batch in each of two processes, not two in one
DEV = {"share": 0.3, "every": 2, "depth": 8}


def launched(*words: object, processes: int = 2) -> Any:
    """The end of a command in processes of its own."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", *map(str, words)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True)


def same(one: Path, two: Path) -> None:
    """What a recipe made in one process, and in two."""
    alone, both = read_log(one), read_log(two)
    assert [sorted(row) for row in alone] == [sorted(row) for row in both]
    told = [{k: v for k, v in row.items() if k.startswith(("loss", "eval_"))} for row in (*alone, *both)]
    for a, b in zip(told[: len(alone)], told[len(alone) :], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert sum(map(bool, told)) >= 2 * 3
    for k, v in tensors(one).items():
        assert torch.allclose(v, tensors(two)[k], atol=1e-3), k


def test_two_processes_make_what_one_makes_and_one_speaks(written: Any) -> None:
    one, two = written("one", dev=DEV), written("two", dev=DEV, training=TWO)
    Tuning(one).run()
    done = launched("-m", "rankpipe.cli", "train", two, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    same(one, two)
    assert len([*two.glob("made/*")]) == len([*two.glob("kept/lists/made/*")]) == 1
    assert (two / "card.md").read_text().count("(taken)") == 1
    said = [line.partition(",")[0] for line in done.stderr.splitlines() if "reducer.cpp" not in line]
    assert len({*said}) == len(said), done.stderr  # how far it is, if it takes long


ALL = """
import sys
from pathlib import Path
import torch
from tuned import tensors
from rankpipe.train.tuning import Tuning
for folder in map(Path, sys.argv[1:]):
    Tuning(folder).run()
    made = tensors(folder)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        [last] = folder.glob("kept/*/checkpoints/checkpoint-6")
        assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in last.iterdir()}
        (last / "whole").unlink()  # as if it had been killed while writing it
    torch.distributed.barrier()
    Tuning(folder).run()
    assert all(torch.equal(v, made[k]) for k, v in tensors(folder).items())
"""


@pytest.mark.slow
def test_whatever_is_trained(written: Any, tiny_bert: Path, tmp_path: Path) -> None:
    """All weights, by AdamW and by GaLore; a loss outside the model; an average; an encoder. Killed, it
    goes on to the same weights, to the bit.
    """
    still = shutil.copytree(tiny_bert, tmp_path / "still")  # two processes do not drop what one drops
    config = json.loads((still / "config.json").read_text())
    dropped = {k: 0.0 for k in config if k.endswith("dropout_prob")}
    (still / "config.json").write_text(json.dumps(config | dropped))
    ways: dict[str, dict[str, Any]] = {
        "adamw": {"adapter": None, "ema": 0.5},
        "galore": {"adapter": None, "optimizer": GALORE},
        "adalora": {"adapter": {"use": "adalora", "rank": 2, "begin_rank": 4, "every": 1}},
        "bi": {"model": str(still), "head": {"use": "bi-encoder-head"}, "loss": {"use": "infonce"}},
    }
    for name, how in ways.items():
        written(f"{name}-2", training=TWO, dev=DEV, **how)
        Tuning(written(f"{name}-1", dev=DEV, **how)).run()
    (tmp_path / "all.py").write_text(ALL)
    done = launched(tmp_path / "all.py", *(tmp_path / "models" / f"{name}-2" for name in ways))
    assert done.returncode == 0, done.stderr
    for name in ways:
        same(tmp_path / "models" / f"{name}-1", tmp_path / "models" / f"{name}-2")


@pytest.mark.slow
def test_what_cannot_be_in_several_processes_says_why(written: Any) -> None:
    at_once = GALORE | {"layerwise": True}
    folder = written(adapter=None, training=TWO | {"max_grad_norm": 0.0}, optimizer=at_once)
    done = launched("-m", "rankpipe.cli", "train", folder)
    assert done.returncode != 0
    assert "gradients of several processes are averaged after they were used" in done.stderr


def test_weights_in_parts_are_refused(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(training=TRAINING | {"deepspeed": "zero2.json"})
    assert "deepspeed: keeps each weight in parts" in Tuning(folder).check()[0]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="fsdp: keeps"):
        Tuning(written("other")).run()
