"""Recipes whose weights (FSDP2) or optimizer (DeepSpeed) processes share out: what comes out is what one makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
for package in ("peft", "accelerate", "datasets"):
    pytest.importorskip(package)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from several import DEV, TWO, launched, same  # noqa: E402
from tuned import GALORE, TRAINING, tensors  # noqa: E402

from rankpipe.errors import RecipeError  # noqa: E402
from rankpipe.train import shards  # noqa: E402
from rankpipe.train.optimizers.adamw import AdamW  # noqa: E402
from rankpipe.train.tuning import Tuning, read_log  # noqa: E402

SHARDED = Path(__file__).with_name("sharded.py")
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
ZERO = ("--use_deepspeed", "--zero_stage", "2")
UNEVEN = DEV | {"queries": 1}  # the second process asks the model nothing
POINT = {"head": {"use": "pointwise-head"}, "loss": {"use": "ranknet"}}
PAIRS = {"head": {"use": "cross-encoder-head"}, "loss": {"use": "ranknet"}}


def shared_out(written: Any, ways: dict[str, dict[str, Any]], flags: Sequence[str] = FSDP, processes: int = 2) -> None:
    """Each recipe in one process, and in several that have a part each; ``one`` and ``two`` are of their training."""
    pairs: dict[str, tuple[Path, Path]] = {}
    for name, how in ways.items():
        how = {"dev": DEV} | how
        alone, parted = TRAINING | how.pop("one", {}), TWO | how.pop("two", {})
        pairs[name] = written(f"{name}-1", training=alone, **how), written(f"{name}-2", training=parted, **how)
        Tuning(pairs[name][0]).run()
    done = launched(SHARDED, *(two for _, two in pairs.values()), how=flags, processes=processes)
    assert done.returncode == 0, done.stderr
    for one, two in pairs.values():
        same(one, two)
        alone, both = ([r["optimizer_bytes"] for r in read_log(f) if "loss" in r] for f in (one, two))
        assert all(part < 0.6 * whole for part, whole in zip(both, alone, strict=True))
        configs = [json.loads(path.read_text()) for f in (one, two) for path in f.glob("made/*/config.json")]
        assert configs[:1] == configs[1:]


def test_processes_with_half_the_weights_make_what_one_makes(written: Any, tiny_chat: Path, tmp_path: Path) -> None:
    """An adapter; all weights, also where a process measures nothing, and the logits' own are gathered last."""
    own = transformers.AutoModelForCausalLM.from_pretrained(tiny_chat)
    own.config.tie_word_embeddings, own.lm_head.weight = False, torch.nn.Parameter(own.lm_head.weight.detach().clone())
    shutil.copytree(tiny_chat, tmp_path / "untied")
    own.save_pretrained(tmp_path / "untied")
    whole = {"model": str(tmp_path / "untied"), "adapter": None, "ema": 0.5, "dev": UNEVEN}
    shared_out(written, {"lora": {}, "all": whole})


@pytest.mark.slow
def test_whatever_is_shared_out(written: Any, tiny_bert: Path, tmp_path: Path) -> None:
    """Orders that are written, as unevenly; encoders; every kind of head; adapters whose weights are made of others;
    steps of several batches, whose gradients are clipped, and activations that are computed again.
    """
    still = shutil.copytree(tiny_bert, tmp_path / "still")  # two processes do not drop what one drops
    config = json.loads((still / "config.json").read_text())
    dropped = {k: 0.0 for k in config if k.endswith("dropout_prob")}
    (still / "config.json").write_text(json.dumps(config | dropped))
    bert = {"model": str(still)}
    listwise = {"head": {"use": "listwise-head", "context": 1024}, "loss": {"use": "permutation-lm"}}
    ways: dict[str, dict[str, Any]] = {
        "written": {**listwise, "dev": UNEVEN},
        "cross": {**bert, **PAIRS},
        "bi": {**bert, "head": {"use": "bi-encoder-head"}, "loss": {"use": "infonce"}, "adapter": None},
    }
    for name in ("dora", "eva", "lora-xs", "pissa", "lora-sb"):
        ways[name] = {"adapter": {"use": name, "rank": 2}}
    again = {"max_grad_norm": 0.01, "gradient_checkpointing": True}
    steps = {k: again | {"gradient_accumulation_steps": n} for k, n in (("one", 4), ("two", 2))}
    ways |= {
        "point": POINT,
        "cross-lm": {**PAIRS, "adapter": None},
        "bi-lora": {**ways["bi"], "adapter": {"use": "lora", "rank": 2}},
        "randlora": {"adapter": {"use": "randlora", "rank": 4, "alpha": 80}},
        "steps": {"adapter": None, **steps},
    }
    shared_out(written, ways)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "flags", "processes"),
    [
        ({"fsdp": True}, ("--multi_gpu",), 2),
        ({}, ("--use_fsdp", "--fsdp_version", "2"), 2),  # all layers at once
        ({}, FSDP, 3),
    ],
)
def test_however_it_is_launched(written: Any, said: dict[str, Any], flags: Sequence[str], processes: int) -> None:
    way = {"ema": 0.5, "one": {"gradient_accumulation_steps": processes}, "two": said}
    shared_out(written, {"it": way}, flags, processes)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "2"])
def test_deepspeed_shares_the_optimizer_out(written: Any, stage: str) -> None:
    pytest.importorskip("deepspeed")
    ways = {"lora": {"dev": UNEVEN}, "all": {"adapter": None}, "point": POINT}
    shared_out(written, ways, ("--use_deepspeed", "--zero_stage", stage))


@pytest.mark.slow
def test_what_deepspeed_cannot_do_says_why(written: Any) -> None:
    pytest.importorskip("deepspeed")
    folder = written(adapter=None, ema=0.5, optimizer=GALORE, training=TWO)
    done = launched("-m", "rankpipe.cli", "train", folder, how=("--use_deepspeed", "--zero_stage", "3"))
    assert done.returncode != 0
    for told in ("stage 3 has weights in parts", "ema: is not kept", "GaLore sees whole matrices"):
        assert told in done.stderr


@pytest.mark.slow
def test_deepspeed_computes_in_bfloat16_and_keeps_weights_as_they_are(written: Any) -> None:
    """Rounded weights were measured and published, and losses were others."""
    pytest.importorskip("deepspeed")
    one, two = (written(f"{n}", dev=DEV, training=t | {"bf16": True}) for n, t in ((1, TRAINING), (2, TWO)))
    Tuning(one).run()
    done = launched(SHARDED, two, how=ZERO)
    assert done.returncode == 0, done.stderr
    same(one, two)
    assert {v.dtype for v in tensors(two).values()} == {torch.float32}


def test_deepspeed_does_not_halve_weights() -> None:
    plugin = SimpleNamespace(zero_stage=2, deepspeed_config={})
    args: Any = SimpleNamespace(fsdp=None, deepspeed_plugin=plugin, mixed_precision="fp16")
    with pytest.raises(RecipeError, match="fp16: DeepSpeed rounds the weights to it"):
        shards.refuse(args, AdamW(), None, "float32", ema=False)


@pytest.mark.slow
def test_deepspeeds_part_is_foretold(written: Any) -> None:
    """Half of the optimizer's state, and half of the weights that it keeps."""
    pytest.importorskip("deepspeed")
    folder = written(adapter=None, training=TWO)
    done = launched("-m", "rankpipe.cli", "train", folder, "--dry-run", "--json", how=ZERO)
    part, whole = json.loads(done.stdout), Tuning(folder).forecast().parts
    half = 0.5 * (whole["optimizer"] + whole["weights"])
    assert part["optimizer_bytes"] == pytest.approx(half, rel=0.01)
    assert [part[f"{name}_bytes"] for name in ("weights", "gradients")] == [whole["weights"], whole["gradients"]]


@pytest.mark.slow
def test_a_part_is_foretold(written: Any) -> None:
    folder = written(adapter=None, training=TWO)
    done = launched("-m", "rankpipe.cli", "train", folder, "--dry-run", "--json", how=FSDP)
    part, whole = json.loads(done.stdout), Tuning(folder).forecast().parts
    assert part["weights_bytes"] == pytest.approx(1.5 * whole["weights"], rel=0.01)
    for name in ("gradients", "optimizer"):
        assert part[f"{name}_bytes"] == pytest.approx(0.5 * whole[name], rel=0.01)
    assert part["activations_bytes"] == whole["activations"]


@pytest.mark.slow
def test_on_processors_accelerate_shares_nothing_out_and_that_is_said(written: Any) -> None:
    done = launched("-m", "rankpipe.cli", "train", written(training=TWO), how=FSDP)
    assert done.returncode != 0
    assert "fsdp: accelerate shares nothing out on cpu" in done.stderr


def test_what_cannot_be_shared_out_says_why(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[str, dict[str, Any]] = {
        "GaLore sees whole matrices": {"adapter": None, "optimizer": GALORE},
        "Adam8bit sees whole matrices": {"optimizer": {"use": "adam8bit"}},
        "adalora looks between steps": {"adapter": {"use": "adalora", "rank": 2, "begin_rank": 4}},
        "lora-?fa looks between steps": {"adapter": {"use": "lora-fa", "rank": 2}},
        "relora looks between steps": {"adapter": {"use": "relora", "rank": 2, "every": 2, "stages": 2}},
    }
    for i, (told, how) in enumerate(ways.items()):
        folder = written(f"it{i}", **how)
        assert not Tuning(folder).check()
        with monkeypatch.context() as launch:
            launch.setenv("ACCELERATE_USE_FSDP", "true")
            launch.setenv("FSDP_VERSION", "2")
            with pytest.raises(RecipeError, match=told):
                Tuning(folder).run()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"version": "1"}, "version 1 flattens weights; accelerate launch --use_fsdp --fsdp_version 2"),
        ({"offload_params": "true"}, "leave cpu_offload out"),
        ({"activation_checkpointing": "true"}, "say training: {gradient_checkpointing: true}"),
        ({"state_dict_type": "FULL_STATE_DICT"}, "checkpoints are written in parts"),
        ({"auto_wrap_policy": "SIZE_BASED_WRAP"}, "say TRANSFORMER_BASED_WRAP"),
        ({}, "there is one process, which would have all weights"),
    ],
)
def test_flags_of_fsdp_that_are_not_followed_are_refused(
    written: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], told: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for key, value in ({"version": "2"} | said).items():
        monkeypatch.setenv(f"FSDP_{key.upper()}", value)
    with pytest.raises(RecipeError, match=told):
        Tuning(written()).run()


def test_a_recipe_asks_for_it_too(written: Any) -> None:
    first = written("first", training=TRAINING | {"fsdp": True, "fsdp_config": {"version": 1}})
    assert "fsdp: version 1 flattens weights" in Tuning(first).check()[0]
    second = written("second", training=TRAINING | {"fsdp": True})
    assert not Tuning(second).check()
    for begin in (Tuning(second).run, Tuning(second).forecast):
        with pytest.raises(RecipeError, match="fsdp: there is one process"):
            begin()
    assert not (second / "kept").exists()  # no lists


def test_a_checkpoint_of_others_is_not_gone_on_from(written: Any) -> None:
    for mark, told in (("pytorch_model_fsdp_0", "FSDP"), ("global_step6", "DeepSpeed")):
        folder = written(told, training=TRAINING)
        Tuning(folder).run()
        [last] = folder.glob("kept/*/checkpoints/checkpoint-6")
        (last / mark).mkdir()
        shutil.rmtree(folder / "made")
        with pytest.raises(RecipeError, match=f"checkpoint-6: was written under {told}; launch it as then"):
            Tuning(folder).run()


def test_a_checkpoint_of_more_processes_is_not_gone_on_from(written: Any) -> None:
    """A step had more lists, and the data another order."""
    folder = written(training=TRAINING)
    Tuning(folder).run()
    [state] = folder.glob("kept/*/checkpoints/checkpoint-6/rng_state.pth")
    for rank in range(2):  # as two write them
        shutil.copy(state, state.with_name(f"rng_state_{rank}.pth"))
    state.unlink()
    shutil.rmtree(folder / "made")
    with pytest.raises(RecipeError, match="checkpoint-6: was written by 2, not 1, processes; launch it as then"):
        Tuning(folder).run()
