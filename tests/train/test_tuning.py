"""``rankpipe train`` from recipe to what is used: on a tiny model, whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from importlib.util import find_spec
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

from killed import Killed  # noqa: E402
from tuned import EPOCHS, GALORE, TRAINING, tensors  # noqa: E402

from rankpipe import recipe, store, trec  # noqa: E402
from rankpipe.catalog import CATALOG  # noqa: E402
from rankpipe.errors import DiskError, MissingExtra, ModelError, RecipeError  # noqa: E402
from rankpipe.measure.ranking import evaluate  # noqa: E402
from rankpipe.progress import listening  # noqa: E402
from rankpipe.train import calibration  # noqa: E402
from rankpipe.train.tuning import Tuning, read_log  # noqa: E402
from tests.heard import Heard  # noqa: E402


def test_from_data_to_an_adapter_that_is_used(written: Any) -> None:
    folder = written(dev={"share": 0.3, "every": 2, "depth": 8}, ema=0.5)
    assert Tuning(folder).check() == []
    facts = Tuning(folder).run()
    made = store.open_artefact(folder, kind="ranker")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= made.files.keys()
    log = read_log(folder)
    found = {row["step"]: row["eval_nDCG@10"] for row in log if "eval_nDCG@10" in row}
    assert [*found] == [0, 2, 4, 6]
    assert facts["best"] == max(value for step, value in found.items() if step)
    assert facts["untrained"] == found[0]
    losses = [row for row in log if "loss" in row]
    assert [row["step"] for row in losses] == [2, 4, 6]
    assert all(row["tokens_per_s"] > 0 and row["optimizer_bytes"] > 0 and row["peak_bytes"] > 0 for row in losses)
    assert losses[0]["loss"] == pytest.approx(losses[0]["loss_lm"] + 10 * losses[0]["loss_ranknet"], rel=1e-4)
    card = (folder / "card.md").read_text()
    assert all(f"| {step} | {value:.4f}" in card for step, value in found.items())
    assert facts["best"] == again(Tuning(folder), facts)


@pytest.mark.parametrize("drop", [False, True])
def test_steps_are_foreseen_as_they_are_made(drop: bool, written: Any) -> None:
    for size, accumulation, epochs in ((2, 2, 1.5), (3, 1, 2), (5, 2, 0.4)):
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        how |= {"num_train_epochs": epochs, "dataloader_drop_last": drop}
        trainer = Tuning(written(f"{size}", training=EPOCHS | how)).trainer()
        made = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]
        assert calibration._steps(trainer.args, len(trainer.train_dataset)) == made


def test_an_adapter_that_is_not_done_is_not_made(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankpipe.train.calibration._steps", lambda *_: 100)
    folder = written(adapter=ADALORA)
    with pytest.raises(ModelError, match="adalora is not done after 6 steps; let it train for longer"):
        Tuning(folder).run()
    assert not (folder / "manifest.json").exists()


PAIRS = {"head": {"use": "cross-encoder-head", "max_length": 64}, "loss": {"use": "ranknet"}}
VECTORS = {"head": {"use": "bi-encoder-head", "max_length": 64}, "loss": {"use": "infonce", "temperature": 0.05}}
BATCH = {"head": {"use": "bi-encoder-head"}, "loss": {"use": "in-batch", "temperature": 0.05}}


@pytest.mark.parametrize(
    "how",
    [PAIRS, PAIRS | {"adapter": None}, VECTORS, BATCH | {"adapter": None}],
    ids=["cross-lora", "cross", "bi-lora", "bi"],
)
def test_encoders_are_made_that_score_as_they_were_evaluated(
    how: dict[str, Any], written: Any, tiny_bert: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    folder = written(model=str(tiny_bert), dev={"share": 0.3, "every": 2, "depth": 8}, **how)
    tuning = Tuning(folder)
    facts = tuning.run()
    assert facts["best"] == again(tuning, facts)
    assert ("rounding" in facts.get("merged", "")) is (tuning.tree.get("adapter") is not None)
    assert ("Merged into the base: rounding" in (folder / "card.md").read_text()) is ("merged" in facts)


ADALORA = {"use": "adalora", "rank": 2, "begin_rank": 4, "every": 1}
OTHERS = {
    "adalora": ADALORA, "relora": {"use": "relora", "rank": 2, "every": 2, "stages": 3, "warmup": 0},
    "periodic-lora": {"use": "periodic-lora", "rank": 2, "every": 2, "stages": 3, "warmup": 0},
    "randlora": {"use": "randlora", "rank": 4, "alpha": 80}, "eva": {"use": "eva", "rank": 2, "spread": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("method", sorted(name for name, e in CATALOG.items() if ".train.adapters." in e.target))
def test_what_is_made_of_the_best_step_is_what_was_best(method: str, written: Any) -> None:
    """Whatever the adapter did to the model after it, and whatever it needs to see before it begins."""
    adapter = OTHERS.get(method, {"use": method, "rank": 2})
    dev = {"share": 0.3, "every": 2, "depth": 8}
    tuning = Tuning(written(adapter=adapter, dev=dev, head={"use": "pointwise-head"}, loss={"use": "ranknet"}))
    facts = tuning.run(callbacks=[Favoured()])
    assert facts["best_step"] == (6 if method == "adalora" else 2)  # before which its ranks are not those asked for
    assert facts["best"] - (facts["best_step"] == 2) == again(tuning, facts)


class Favoured(transformers.TrainerCallback):  # type: ignore[misc]
    """Makes the second step the best."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **given: Any) -> None:
        metrics["eval_nDCG@10"] += state.global_step == 2


def again(tuning: Tuning, facts: dict[str, Any]) -> Any:
    """What the reranker that was made achieves on the development queries."""
    node = facts["reranker"]
    if node["use"] == "bi-encoder":
        node |= {"backend": "torch-float32"}  # as it was measured; else it is what is fastest at this moment
    stage = recipe.build(node, tuning.root)
    _, theirs = tuning._parts.examples.parts(0.3)
    held = tuning._parts.dev.held(tuning._parts.examples, theirs)
    with chdir(tuning.root):
        run = trec.to_run(stage.run(held.rankings))
    return pytest.approx(evaluate(run, held.qrels, ["nDCG@10"]).means["nDCG@10"])


def test_batches_of_a_step_are_as_good_as_one(written: Any) -> None:
    at_once = TRAINING | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    one, two = written("one"), written("two", training=at_once)
    Tuning(one).run()
    Tuning(two).run()
    [a, b] = [[r["loss"] for r in read_log(folder) if "loss" in r] for folder in (one, two)]
    assert a == pytest.approx(b, rel=1e-4)


class Watched(transformers.TrainerCallback):  # type: ignore[misc]
    """The trained weights before the first step, and after each."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.on_step_end(args, state, control, **given)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        named = given["model"].named_parameters()
        self.seen.append({name: p.detach().clone() for name, p in named if p.requires_grad})


def test_the_average_is_that_of_all_steps_and_is_what_is_measured_and_made(written: Any) -> None:
    """And it changes no step."""
    dev = {"share": 0.3, "every": 2, "depth": 8}
    plain, mean, last = written("plain", dev=dev), written("mean", dev=dev, ema=0.6), written("last", ema=0.6)
    Tuning(plain).run()
    for folder in (mean, last):
        watched = Watched()
        facts = Tuning(folder).run(callbacks=[watched])
        average, *steps = watched.seen
        averages = [average := {k: 0.6 * v + 0.4 * step[k] for k, v in average.items()} for step in steps]
        made = tensors(folder)
        for k, v in averages[facts.get("best_step", 6) - 1].items():
            assert torch.allclose(v, made[k.replace(".default", "")], atol=1e-6), k
    for key, unmoved in (("loss", True), ("eval_nDCG@10", False)):
        one, other = ([row[key] for row in read_log(folder) if key in row] for folder in (plain, mean))
        assert (one == other) is unmoved


class Numbered(transformers.TrainerCallback):  # type: ignore[misc]
    """Writes the step into what an untrained LoRA's weights do not depend on: A, before B moves."""

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for name, p in given["model"].named_parameters():
            if "lora_A" in name:
                p.detach().fill_(state.global_step)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_first_of_the_best_is_made_and_a_killed_one_loses_no_patience(ema: float | None, written: Any) -> None:
    dev = {"share": 0.3, "every": 2, "depth": 8, "patience": 3}
    still = {"optimizer": {"use": "adamw", "lr": 0.0}, "training": TRAINING | {"max_steps": 40}}
    folder = written(dev=dev, ema=ema, **still)
    with pytest.raises(KeyboardInterrupt):
        Tuning(folder).run(callbacks=[Numbered(), Killed(7)])
    facts = Tuning(folder).run(callbacks=[Numbered()])
    assert (facts["best_step"], facts["steps"]) == (2, 8)
    for name, value in tensors(folder).items():
        if "lora_A" in name and ema is None:
            assert (value == 2).all()
        elif "lora_A" in name:
            assert torch.allclose(value, torch.tensor(0.5), atol=0.3)  # of what was drawn, and 1: 2 comes after it


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("dtype", ["nf4", "int8"])
def test_a_quantised_base_is_tuned_by_its_recipe(dtype: str, written: Any, tiny_chat: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_chat, tmp_path / "wide")  # kernels for four bits are for whole blocks
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    config = transformers.AutoConfig.from_pretrained(tiny_chat, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    tuning = Tuning(written(model=str(tmp_path / "wide"), dev={"share": 0.3, "every": 2, "depth": 8}, dtype=dtype))
    assert tuning.check() == []
    foretold = tuning.forecast()
    model = tuning.trainer().model
    scales = [s for m in model.modules() for s in scales_of(getattr(m, "weight", None))]
    assert foretold.weights == pytest.approx(
        sum(t.nbytes for t in (*model.parameters(), *model.buffers(), *scales)), rel=0.02
    )
    facts = tuning.run()
    assert facts["reranker"]["lm"]["dtype"] == "bfloat16"
    made = store.open_artefact(tuning.folder, kind="ranker")
    assert "adapter_model.safetensors" in made.files
    assert facts["best"] > 0


def scales_of(weight: Any) -> list[Any]:
    """The tensors beside a quantised weight."""
    if state := getattr(weight, "quant_state", None):
        return [state.absmax, state.state2.absmax]
    return [weight.SCB] if getattr(weight, "SCB", None) is not None else []


def test_what_is_quantised_has_an_adapter_and_is_a_language_model(written: Any, tiny_bert: Path) -> None:
    bare = Tuning(written(dtype="nf4", adapter=None)).check()
    assert bare == ["dtype: nf4 is not trained itself; add adapter: {use: lora}"]
    pairs = {"head": {"use": "cross-encoder-head"}, "loss": {"use": "softmax-ce"}, "model": str(tiny_bert)}
    said = Tuning(written("pairs", dtype="int8", **pairs)).check()
    assert said == ["dtype: int8 is for heads of language models, not for this one"]
    if find_spec("bitsandbytes") is None:
        with pytest.raises(MissingExtra, match=r"pip install 'rankpipe\[bnb\]'"):
            Tuning(written("chat", dtype="nf4")).check()


def test_what_is_wrong_with_a_recipe_is_told_at_once(written: Any) -> None:
    folder = written(
        head={"use": "pointwise-head"}, training={"learning_rate": 1.0, "max_step": 3, "output_dir": "x"},
        optimizer={"use": "adamw", "lr": 1.0}, emma=0.9,
    )  # fmt: skip
    told = "\n".join(Tuning(folder).check())
    for said in (
        "no key 'emma'; did you mean ema",
        "did you mean max_steps",
        "output_dir: is said by",
        "the optimizer says lr",
    ):
        assert said in told
    other = written("other", head={"use": "pointwise-head"})
    with pytest.raises(RecipeError, match="take first-head"):
        Tuning(other).run()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"adapter": ADALORA, "ema": 0.9}, "ema: the mean of adalora's steps is no such adapter; leave it out"),
        ({"training": TRAINING | {"adam_beta1": 0.5}}, "training: adam_beta1: the recipe says optimizer; say it there"),
        ({"training": TRAINING | {"max_steps": "many"}}, "training: max_steps: 'many' is a str, expected a number"),
        ({"training": TRAINING | {"per_device_train_batch_size": 2.5}}, "2.5; expected a whole number, 1 or more"),
        ({"training": TRAINING | {"num_train_epochs": 0}}, "training: num_train_epochs: 0; expected more than 0"),
        ({"training": TRAINING | {"deepspeed": "ds3.json"}}, "training: deepspeed: ds3.json: no such file"),
        ({"training": TRAINING | {"fsdp_config": "f.json"}}, "training: fsdp_config: f.json: no such file"),
        ({"optimizer": {"use": "adamw", "lr": "1e-4"}}, "a text: write it with a point and without quotes, as 1.0e-4"),
        ({"optimizer": GALORE | {"layerwise": True}, "adapter": None}, "say max_grad_norm: 0, and clip: 1.0"),
        (
            {"optimizer": None, "training": TRAINING | {"optim": "galore_adamw", "optim_args": "rank=abc"}},
            "rank=abc: expected a number",
        ),
    ],
)
def test_what_cannot_go_together_is_told_before_anything_is_made(how: dict[str, Any], said: str, written: Any) -> None:
    [told] = Tuning(written(**how)).check()
    assert said in told


def test_a_graph_is_refused_before_lists_are_made(written: Any, embedded: Callable[[str], Path]) -> None:
    pytest.importorskip("sentence_transformers")
    folder = written(model=str(embedded("minilm-l12")), **PAIRS | {"adapter": None})
    with pytest.raises(ModelError, match=r"a graph of ONNX only, .* or name the folder of the model"):
        Tuning(folder).run()
    assert not (folder / "kept").exists()


def test_an_alias_of_a_graph_is_a_fault_of_the_recipe(written: Any) -> None:
    [told] = Tuning(written(model="minilm-l12", **PAIRS | {"adapter": None})).check()
    assert told.startswith(
        "model: minilm-l12: a graph of ONNX only, which is run, not trained; take minilm or smollm2 "
    )
    assert "hf download cross-encoder/ms-marco" in told


def test_a_seed_is_of_the_adapter_too_unless_that_has_its_own(written: Any) -> None:
    def begin(name: str, trained: int, **own: int) -> Any:
        tuning = Tuning(written(name, training=TRAINING | {"seed": trained}, adapter={"use": "lora", "rank": 2, **own}))
        return next(p for n, p in tuning.trainer().model.named_parameters() if "lora_A" in n)

    one, two, own = begin("one", 1), begin("two", 2), begin("own", 1, seed=2)
    assert not torch.equal(one, two)
    assert torch.equal(two, own)


def test_stages_are_warmed_or_refused(written: Any) -> None:
    training = TRAINING | {"lr_scheduler_type": "reduce_lr_on_plateau"}
    adapter = {"use": "relora", "rank": 2, "every": 2, "stages": 2}
    folder = written(adapter=adapter, training=training, dev={"share": 0.3, "every": 2, "depth": 8})
    with pytest.raises(RecipeError, match="reduce_lr_on_plateau cannot be warmed at each stage"):
        Tuning(folder).run()


@pytest.mark.parametrize("how", [{}, {"dev": {"share": 0.3, "every": 2, "depth": 8, "patience": 1}, "ema": 0.5}])
def test_no_step_is_made_after_the_last(how: dict[str, Any], written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a model that is there, nor of one that was killed before it was published."""
    whole, killed = written("whole", **how), written("killed", **how)
    facts = Tuning(whole).run()
    made, seen = store.read_manifest(whole), Watched()
    with listening(heard := Heard()):
        assert Tuning(whole).run(callbacks=[seen]) == store.read_manifest(whole).facts
    assert (store.read_manifest(whole).build, seen.seen) == (made.build, [])
    assert heard.notices[-1] == f"{whole} is current; --force tunes it again"
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(Tuning, "_publish", lambda *_: raised(KeyboardInterrupt()))
        Tuning(killed).run()
    again = Tuning(killed).run(callbacks=[seen])
    assert seen.seen == []
    one, other = tensors(whole), tensors(killed)
    assert all(torch.equal(one[k], other[k]) for k in one)
    kept = ("steps", "best", "best_step", "optimizer_bytes")
    assert [again.get(k) for k in kept] == [facts.get(k) for k in kept]
    assert Tuning(whole).run(force=True, callbacks=[seen])["steps"] == facts["steps"]
    assert len(seen.seen) == facts["steps"] + 1


def raised(error: BaseException) -> None:
    raise error


def test_a_full_disk_is_no_bug(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", lambda *_: raised(SafetensorError(said)))
    with pytest.raises(DiskError, match="no space left"):
        Tuning(written()).run()
