"""``rankpipe train`` that ended before its time, or whose recipe, data or base were others when it was called again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for package in ("peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),  # PEFT of any AdaLoRA; it does use them
]

from killed import Killed, Signalled  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tuned import EPOCHS, GALORE, tensors  # noqa: E402

from rankpipe.disk import lock  # noqa: E402
from rankpipe.errors import Busy  # noqa: E402
from rankpipe.progress import listening  # noqa: E402
from rankpipe.train.tuning import Tuning, read_log  # noqa: E402
from tests.heard import Heard  # noqa: E402


@pytest.mark.parametrize(
    "how",
    [
        {"ema": 0.9},
        {"adapter": {"use": "adalora", "rank": 2, "begin_rank": 4, "every": 1}},
        {"adapter": None, "optimizer": GALORE},
        {"adapter": None, "head": {"use": "listwise-head"}, "loss": {"use": "permutation-lm"}},
        {"training": EPOCHS | {"bf16": True}, "dtype": "bfloat16"},
        {"training": EPOCHS | {"gradient_checkpointing": True}, "adapter": None, "optimizer": GALORE},
    ],
    ids=["lora", "adalora", "galore", "adamw", "bf16", "checkpointing"],
)
def test_killed_it_goes_on_to_the_same_weights(how: dict[str, Any], written: Any) -> None:
    whole, killed = written("whole", **how), written("killed", **how)
    Tuning(whole).run()
    with pytest.raises(KeyboardInterrupt):
        Tuning(killed).run(callbacks=[Killed(5)])
    assert not (killed / "manifest.json").exists()
    broken = next(Tuning(killed).work.glob("checkpoints/checkpoint-4"))
    (broken / "whole").unlink()  # as if it had been killed while writing it
    Tuning(killed).run()
    one, other = tensors(whole), tensors(killed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert [r.get("loss") for r in read_log(whole)] == [r.get("loss") for r in read_log(killed)]


def test_another_base_is_another_model(written: Any, tiny_chat: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_chat, tmp_path / "base")
    folder = written(model=str(base))
    with pytest.raises(KeyboardInterrupt):
        Tuning(folder).run(callbacks=[Killed(3)])
    heard = Heard()
    with listening(heard):
        for _ in range(2):
            [file] = base.glob("*.safetensors")
            weights = load_file(file)
            save_file({k: v + 0.01 for k, v in weights.items()}, file, {"format": "pt"})
            Tuning(folder).run()
    assert not any(said.startswith(("going on", f"{folder} is current")) for said in heard.notices)
    with listening(heard):
        Tuning(folder).run()
    assert heard.notices[-1].startswith(f"{folder} is current")


def test_a_card_that_is_gone_is_written_again(written: Any) -> None:
    folder = written(dev={"share": 0.3, "every": 2, "depth": 8})
    Tuning(folder).run()
    told = {name: (folder / name).read_text() for name in ("card.md", "log.jsonl")}
    (folder / "card.md").unlink()
    (folder / "log.jsonl").write_text("")
    Tuning(folder).run()
    assert told == {name: (folder / name).read_text() for name in told}
    (folder / "card.md").write_text("my own")
    Tuning(folder).run()
    assert (folder / "card.md").read_text() == "my own"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_loses_nothing(number: signal.Signals, written: Any) -> None:
    """The step is finished and kept, though no checkpoint is due; the next session ends with the same weights."""
    before = signal.getsignal(number)
    whole, ended = written("whole"), written("ended")
    Tuning(whole).run()
    notices = Heard()
    with listening(notices), pytest.raises(KeyboardInterrupt):
        Tuning(ended).run(callbacks=[Signalled(3, number)])
    assert signal.getsignal(number) is before
    assert "it ends when this step is made and kept" in str(notices.notices)
    assert Tuning(ended).begun.name == "checkpoint-3"
    Tuning(ended).run()
    one, other = tensors(whole), tensors(ended)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_one_training_at_a_time(written: Any) -> None:
    """Neither learns from the other's checkpoints."""
    folder = written("twice")
    with lock(folder / "kept"), pytest.raises(Busy, match="another process is writing here"):
        Tuning(folder).run()
    assert not (folder / "kept").exists()
    busy = list[bool]()

    class Second(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **given: Any) -> None:
            with pytest.raises(Busy), lock(folder / "kept"):
                pass
            busy.append(True)

    Tuning(folder).run(callbacks=[Second()])
    assert len(busy) == 6


def test_interrupted_twice_it_ends_at_once(written: Any) -> None:
    folder = written("ended")
    with pytest.raises(KeyboardInterrupt):
        Tuning(folder).run(callbacks=[Signalled(3, signal.SIGINT, signal.SIGINT)])
    assert Tuning(folder).begun.name == "checkpoint-2"


@pytest.mark.slow
def test_killed_for_good_it_goes_on(written: Any) -> None:
    """By the command line, and by a signal that cannot be caught."""
    whole, killed = written("whole"), written("killed")
    command = [sys.executable, "-c", "from rankpipe.cli import main; main()", "train", "--json"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*command, str(whole)], env=env, check=True, capture_output=True)
    process = subprocess.Popen([*command, str(killed)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(killed.glob("kept/*/checkpoints/checkpoint-2/whole")):
        pass
    process.kill()
    process.wait()
    done = subprocess.run([*command, str(killed)], env=env, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["steps"] == 6
    assert all(torch.equal(v, tensors(killed)[k]) for k, v in tensors(whole).items())


def test_a_teacher_that_says_other_things_is_learned_from_anew(
    written: Any, tiny_path: Path, first_stage: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said.trec"
    said.write_text(first_stage.read_text())
    lists = {"use": "lists", "data": str(tiny_path), "run": str(first_stage), "length": [3, 5]}
    folder = written(examples={**lists, "labels": {"use": "recorded", "path": str(said)}})
    for _ in range(2):
        Tuning(folder).run()
        before = [row["loss"] for row in read_log(folder) if "loss" in row]
        assert len(before) == 3
    said.write_text("".join(line.replace(" 0.", " -0.") for line in first_stage.read_text().splitlines(keepends=True)))
    Tuning(folder).run()
    after = [row["loss"] for row in read_log(folder) if "loss" in row]
    assert len(after) == 3
    assert all(a != b for a, b in zip(before, after, strict=True))
