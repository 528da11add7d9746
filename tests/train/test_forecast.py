"""What a training is foretold to hold is what it holds."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from rankpipe import st  # noqa: E402
from rankpipe.data import Doc, Query  # noqa: E402
from rankpipe.errors import RecipeError  # noqa: E402
from rankpipe.train import tuning as module  # noqa: E402
from rankpipe.train.examples import Example  # noqa: E402
from rankpipe.train.forecast import longest  # noqa: E402
from rankpipe.train.optimizers.storage import state_bytes  # noqa: E402
from rankpipe.train.tuning import Tuning  # noqa: E402
from tests.train.tuned import TRAINING  # noqa: E402


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"adapter": None, "ema": 0.9},
        {"adapter": None, "optimizer": {"use": "galore", "rank": 4, "lr": 0.01}},
        {"adapter": None, "optimizer": {"use": "adam8bit"}, "dtype": "bfloat16"},
        {"adapter": {"use": "dora", "rank": 2}},
        {"adapter": {"use": "randlora", "rank": 2}},
        {"adapter": {"use": "randlora", "rank": 2}, "dtype": "bfloat16"},
        {"adapter": {"use": "lora-xs", "rank": 2}},
        {"adapter": {"use": "lora-xs", "rank": 2}, "dtype": "bfloat16"},
        {"adapter": {"use": "lora-sb", "rank": 2}},
        {"adapter": {"use": "frozen-a", "rank": 2}},
        {"adapter": {"use": "lora-fa", "rank": 2}},
        {"head": {"use": "listwise-head"}, "loss": {"use": "permutation-lm"}},
        {"head": {"use": "pointwise-head"}, "loss": {"use": "ranknet"}, "adapter": None},
    ],
    ids=[
        "lora",
        "adamw",
        "galore",
        "8bit",
        "dora",
        "randlora",
        "randlora-half",
        "lora-xs",
        "lora-xs-half",
        "lora-sb",
        "frozen-a",
        "lora-fa",
        "listwise",
        "pointwise",
    ],
)
def test_every_part_is_as_it_is_when_it_is_really_trained(how: dict[str, Any], written: Any) -> None:
    tuning = Tuning(written(training=TRAINING | {"per_device_train_batch_size": 3}, **how))
    foretold = tuning.forecast()
    trainer = tuning.trainer()
    model, optimizer = trainer.model.train(), trainer.create_optimizer()
    batch = trainer._collated([e.row() for e in module.longest(trainer.train_dataset, 3)])
    kept, saved = {}, torch.autograd.graph.saved_tensors_hooks
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage, storage.nbytes()
        return tensor

    with saved(pack, lambda tensor: tensor):
        outputs = trainer.ranker.forward(model, batch)
    logits = 0 if outputs.logits is None else 8 * outputs.logits.numel()
    loss, _ = trainer.objective(outputs, batch, trainer.objective.counts([batch]))
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert foretold.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)
    optimizer.step()
    assert foretold.optimizer == state_bytes(optimizer)
    assert foretold.weights == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert foretold.average == ("ema" in how) * 4 * sum(p.numel() for p in trained)
    assert foretold.activations == sum(size for _, size in kept.values()) + logits


def test_layer_by_layer_gradients_are_held_until_the_last_batch_of_a_step(written: Any) -> None:
    how: dict[str, Any] = {"adapter": None, "optimizer": {"use": "galore", "rank": 4, "layerwise": True}}
    one, two = (
        Tuning(written(str(n), training=TRAINING | {"gradient_accumulation_steps": n, "max_grad_norm": 0}, **how))
        for n in (1, 2)
    )
    trainer = two.trainer()
    trainer.create_optimizer()
    batch = trainer._collated([trainer.train_dataset[0]])
    loss, _ = trainer.objective(trainer.ranker.forward(trainer.model, batch), batch, trainer.objective.counts([batch]))
    loss.backward()
    held = [p.grad.nbytes for p in trainer.model.parameters()]
    assert two.forecast().gradients == sum(held)
    assert one.forecast().gradients == max(held)


def test_the_longest_lists_are_found_without_holding_the_others() -> None:
    made = [Example(Query(str(i), "?"), (Doc("d", "x" * (i * 7 % 50)),), (1.0,)) for i in range(50)]
    rows = [e.row() for e in made]
    others = sum(type(o) is Example for o in gc.get_objects())

    def passing() -> Iterator[dict[str, Any]]:
        for row in rows:
            assert sum(type(o) is Example for o in gc.get_objects()) - others <= 4
            yield row

    assert longest(passing(), 3) == sorted(made, key=lambda e: -len(e.docs[0].text))[:3]


@pytest.mark.parametrize("head", ["cross-encoder-head", "bi-encoder-head"])
def test_encoders_are_foretold_and_checkpoints_save_activations(head: str, written: Any, tiny_bert: Path) -> None:
    pytest.importorskip("sentence_transformers")
    how = {"model": str(tiny_bert), "head": {"use": head}, "loss": {"use": "ranknet"}, "adapter": None}
    whole = Tuning(written("whole", **how)).forecast()
    less = Tuning(written("less", **how, training=TRAINING | {"gradient_checkpointing": True})).forecast()
    assert 0 < less.activations < whole.activations
    assert less.weights == whole.weights > 0


def test_no_weights_are_read_to_count_them(tiny_bert: Path) -> None:
    """Of bi-encoders, too, which sentence-transformers loads."""
    pytest.importorskip("sentence_transformers")
    empty, whole = (st.load("SentenceTransformer", tiny_bert, "float32", None, empty=e) for e in (True, False))
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert [p.shape for p in empty.parameters()] == [p.shape for p in whole.parameters()]


def test_what_cannot_fit_is_refused_and_says_what_helps(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free", lambda device: 1000.0)
    with pytest.raises(RecipeError, match=r"memory: about 12.* this cpu has 0.977 KB") as refused:
        Tuning(written()).forecast()
    assert "gradient_checkpointing: true" in str(refused.value)
    assert "dtype: bfloat16" in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"adapter": None}], ids=["lora", "adamw"])
def test_smollm2_peaks_where_it_was_foretold(how: dict[str, Any], written: Any) -> None:
    """By the operating system's own count, in a process of its own, whose allocator gives back what is freed: else
    glibc keeps holes of up to as much again.
    """
    how = {"model": "smollm2", "head": {"use": "first-head"}, "training": {"max_steps": 2, "use_cpu": True}, **how}
    folder = written(**how)
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    tree["training"] |= {"logging_steps": 1, "per_device_train_batch_size": 2}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    program = """
import sys, json
from pathlib import Path
from rankpipe.train.loop.told import peak_bytes
from rankpipe.train.tuning import Tuning
import sentence_transformers, peft
tuning = Tuning(Path(sys.argv[1]))
foretold, before = tuning.forecast().total, peak_bytes()
print(json.dumps([before, foretold, tuning.run()["peak_bytes"]]))
"""
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", program, str(folder)]
    ran = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    before, foretold, peak = json.loads(ran.stdout.splitlines()[-1])
    assert 0.8 < foretold / (peak - before) < 1.25, (before, foretold, peak)
