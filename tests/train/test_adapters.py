"""What holds of every adapter: it begins as nothing, merges, is saved as PEFT saves, and leaves the head alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.catalog import CATALOG, find
from rankpipe.errors import RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),  # PEFT of any AdaLoRA; it does use them
]

from rankpipe.train.adapters.adapter import Adapter  # noqa: E402
from rankpipe.train.adapters.factors import base_layer, factors, layers, product  # noqa: E402
from rankpipe.train.adapters.lora import LoRA  # noqa: E402
from rankpipe.train.adapters.merging import merge, merge_loss  # noqa: E402
from rankpipe.train.adapters.targets import spread  # noqa: E402
from tests.train.adapted import (  # noqa: E402
    METHODS,
    adapted,
    apart,
    batches,
    bert,
    gpt2,
    llama,
    outputs,
    seeded,
    train,
)

EACH = pytest.mark.parametrize("adapter", METHODS.values(), ids=METHODS)
BF16 = 2.0**-8  # half of the distance of two numbers in bfloat16, relative


def base_like(model: Any) -> Any:
    return bert() if "bert" in type(model).__name__.lower() else llama(head=hasattr(model, "score"))


def test_every_name_is_here() -> None:
    named = {n for n, entry in CATALOG.items() if entry.target.startswith("rankpipe.train.adapters")}
    assert named == {*METHODS, "periodic-lora"}
    assert all(type(adapter) is find(name) for name, adapter in METHODS.items())


def test_a_recipe_makes_one(tmp_path: Path) -> None:
    made = recipe.build({"use": "lora", "rank": 16, "alpha": 32, "targets": "all-linear"}, tmp_path)
    assert made == LoRA(rank=16, alpha=32)
    assert recipe.check({"use": "lora", "ranks": 16})


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_begins_as_nothing(adapter: Adapter, dtype: str) -> None:
    before = outputs(llama(dtype))
    after = outputs(adapted(adapter, llama(dtype)).eval())
    if adapter.method_name == "lorasb":
        assert apart(before, after) > 1e-6  # a step of full training: see test_adapters_methods
    else:
        assert apart(before, after) < (1e-5 if dtype == "float32" else 2e-2) * float(before.abs().max() + 1)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_is_unmerged(adapter: Adapter, dtype: str) -> None:
    model = adapted(adapter, llama(dtype))
    train(adapter, model)
    model.eval()
    trained, foretold = outputs(model), merge_loss(model)
    assert apart(outputs(model), trained) == 0.0  # measuring changes nothing
    merged, loss = merge(model)
    assert loss == foretold
    assert not [n for n, _ in merged.named_parameters() if "lora" in n]
    assert len(loss.layers) == 14
    assert sum(layer.update > 0 for layer in loss.layers) > 10
    scale = float(trained.abs().max())
    if dtype == "float32":
        assert loss.of_update < 1e-4
        assert apart(outputs(merged), trained) < 1e-5 * scale
    else:
        largest = max(float(p.abs().max()) for p in merged.parameters())
        assert 0 < loss.largest <= BF16 * largest
        assert apart(outputs(merged), trained) < 16 * BF16 * scale
    assert ("of the update" in str(loss)) is (loss.largest > 0)


@pytest.mark.parametrize("name", ["lora", "pissa", "relora", "adalora"])
def test_what_a_merge_loses_is_what_is_lost(name: str) -> None:
    """Of what was learned, in the base as it was, whatever of it the base has held meanwhile."""
    model = adapted(METHODS[name], llama("bfloat16"))
    train(METHODS[name], model, lr=1e-3)
    learned = {path: product(layer, *factors(layer)).detach() for path, layer in layers(model)}
    merged, loss = merge(model, lambda: llama("bfloat16"))
    for layer in loss.layers:
        update = learned[layer.path]
        wanted = base_layer(llama("bfloat16"), layer.path).weight.float() + update
        error = base_layer(merged, layer.path).weight.detach().float() - wanted.detach()
        assert layer.update == pytest.approx(float(update.norm()), rel=1e-2)
        assert layer.error == pytest.approx(float(error.norm()), rel=1e-2)


@EACH
def test_plain_peft_loads_what_is_saved(adapter: Adapter, tmp_path: Path) -> None:
    model = adapted(adapter, llama(head=True))
    train(adapter, model)
    adapter.save(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(llama(head=True), str(tmp_path))
    trained = outputs(model.eval())
    assert apart(outputs(loaded.eval()), trained) < 1e-5 * float(trained.abs().max())
    assert apart(outputs(llama(head=True)), trained) > 1e-3


@EACH
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT sets it right by itself
def test_gpt2_whose_weights_lie_the_other_way_round_is_adapted(adapter: Adapter, tmp_path: Path) -> None:
    model = adapted(adapter, gpt2())
    train(adapter, model)
    adapter.save(model, tmp_path)
    trained = outputs(model.eval())
    assert apart(outputs(peft.PeftModel.from_pretrained(gpt2(), str(tmp_path)).eval()), trained) < 1e-5
    assert apart(outputs(merge(model)[0]), trained) < 1e-5
    assert apart(outputs(gpt2()), trained) > 1e-3


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("dora", "randlora")])
def test_all_of_low_rank_are_one_plain_lora_too(name: str, tmp_path: Path) -> None:
    adapter = METHODS[name]
    model = adapted(adapter, bert())
    train(adapter, model)
    adapter.save(model, tmp_path, as_lora=True)
    config = peft.LoraConfig.from_pretrained(str(tmp_path))
    assert config.r == config.lora_alpha
    assert not config.rank_pattern
    assert config.init_lora_weights is True
    loaded = peft.PeftModel.from_pretrained(bert(), str(tmp_path))
    assert apart(outputs(loaded.eval()), outputs(model.eval())) < 1e-5


@pytest.mark.parametrize("name", ["dora", "randlora"])
def test_what_is_not_of_low_rank_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not of low rank"):
        METHODS[name].save(adapted(METHODS[name], llama()), tmp_path, as_lora=True)


@EACH
@pytest.mark.parametrize("make", [bert, lambda: llama(head=True)], ids=["classifier", "score"])
def test_bug_the_head_is_left_frozen(adapter: Adapter, make: Any, tmp_path: Path) -> None:
    """``CrossEncoder.add_adapter`` leaves it so; here it is trained at its own rate, saved, and never adapted."""
    model = adapted(adapter, make())
    head = [n for n, p in model.named_parameters() if p.requires_grad and "modules_to_save" in n]
    assert head
    assert not [path for path, _ in layers(model) if "classifier" in path or "score" in path]
    groups = adapter.groups(model, 1e-3, head_lr=1e-4)
    assert {g["lr"] for g in groups for n in g["names"] if n in head} == {1e-4}
    assert sum(g["lr"] == 1e-4 and {*g["names"]} <= {*head} for g in groups) >= 1
    assert adapter.report(model).by_kind["score head"] == sum(dict(model.named_parameters())[n].numel() for n in head)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n in head}
    train(adapter, model, steps=3) if adapter.method_name != "adalora" else train(adapter, model)
    adapter.save(model, tmp_path)
    again = dict(peft.PeftModel.from_pretrained(make(), str(tmp_path)).named_parameters())
    for name, p in model.named_parameters():
        if name in head:
            assert not torch.equal(p, before[name])
            assert torch.equal(p, again[name])


@EACH
def test_the_report_counts(adapter: Adapter) -> None:
    model = adapted(adapter, llama())
    report = adapter.report(model)
    assert report.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report.trainable == sum(p.numel() for group in adapter.groups(model, 1e-3) for p in group["params"])
    assert 0 < report.share < 1
    assert f"{report.trainable:,}" in str(report)


@EACH
def test_the_same_seed_makes_the_same(adapter: Adapter) -> None:
    torch.manual_seed(5)
    one = adapted(adapter, llama()).state_dict()
    torch.manual_seed(6)
    two = adapted(adapter, llama()).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


# where they go


def test_all_linear_is_all_but_head_and_logits() -> None:
    assert set(spread(llama(), "all-linear", "lora").names) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    where = spread(llama(head=True), "all-linear", "lora")
    assert (where.heads, where.task) == (("score",), "SEQ_CLS")
    assert "score" not in where.names


def test_a_name_that_others_have_too_becomes_paths() -> None:
    """Roberta's head has a layer ``dense``, as its body has; DistilBERT's pre_classifier is saved in full by PEFT."""
    import transformers

    options = {"vocab_size": 20, "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8}
    config = transformers.RobertaConfig(num_attention_heads=2, **options)
    model = seeded(transformers.RobertaForSequenceClassification, config)
    where = spread(model, "all-linear", "lora")
    assert "roberta.encoder.layer.0.attention.output.dense" in where.names
    assert not [n for n in where.names if n.startswith("classifier")]
    assert not [p for p, _ in layers(LoRA(rank=2).apply(model)) if "classifier" in p]
    config = transformers.DistilBertConfig(vocab_size=20, n_layers=1, n_heads=2, dim=8, hidden_dim=8)
    distil = LoRA(rank=2).apply(seeded(transformers.DistilBertForSequenceClassification, config))
    assert not [p for p, _ in layers(distil) if "classifier" in p]
    saved = {n for n, p in distil.named_parameters() if p.requires_grad and "modules_to_save" in n}
    assert len(saved) == 4


def test_targets_by_name_and_path() -> None:
    assert spread(llama(), ["q_proj"], "lora").names == ("q_proj",)
    assert spread(llama(), ["model.layers.1.mlp.up_proj"], "lora").names == ("model.layers.1.mlp.up_proj",)
    assert len(spread(llama(), "model.layers.*.mlp.up_proj", "lora").layers) == 2


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], "did you mean q_proj"),
        (["score"], "score is never adapted: score head"),
        (["embed_tokens"], "Embedding, no linear layer"),
    ],
)
def test_wrong_targets(targets: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        LoRA(targets=targets).apply(llama(head=True))
    if targets == ["score"]:
        with pytest.raises(RecipeError, match="lm_head is never adapted: embedding or logits"):
            LoRA(targets=["lm_head"]).apply(llama())


def test_an_adapted_model_is_not_adapted_again() -> None:
    with pytest.raises(RecipeError, match="has an adapter already"):
        LoRA().apply(LoRA(rank=2).apply(llama()))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lora", {"rank": 0}, "rank=0: must be 1 or more"),
        ("lora", {"dropout": 1.0}, "dropout=1.0"),
        ("adalora", {"rank": 8, "begin_rank": 8}, "begin_rank=8: must be more than rank=8"),
        ("adalora", {"warm": 0.6, "settle": 0.6}, "together below 1"),
        ("lora", {"alpha": 0}, "alpha=0: must be more than 0"),
        ("lora", {"alpha": -32}, "alpha=-32: must be more than 0"),
        ("lora-sb", {"first": -1}, "first=-1: must be more than 0"),
        ("relora", {"every": 0}, "every=0"),
        ("eva", {"spread": 0.5}, "spread=0.5"),
    ],
)
def test_numbers_out_of_range(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        find(name)(**options)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("adalora", {}, "needs steps"),
        ("adalora", {"steps": 1}, "lower warm"),
        ("eva", {}, "needs calibration"),
        ("eva", {"calibration": []}, "is empty"),
        ("eva", {"calibration": batches(1, rows=1, width=4)}, "sees 4 vectors in a batch of calibration; at least"),
        ("lora-sb", {}, "needs calibration"),
        ("relora", {"steps": 8}, "before stage 3"),
    ],
)
def test_what_apply_was_not_given(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        METHODS[name].apply(llama(), **given)
