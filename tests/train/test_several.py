"""One recipe in several processes, as a user launches them: what one process makes, made once."""

from __future__ import annotations

import json
import shutil
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

from several import DEV, TWO, launched, same  # noqa: E402
from tuned import GALORE  # noqa: E402

from rankpipe.train.tuning import Tuning  # noqa: E402


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
