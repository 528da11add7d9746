"""Which parameter goes into which group, on real kinds of model; what is refused, and why."""

from __future__ import annotations

from typing import Any

import pytest

from rankpipe.errors import RecipeError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

from rankpipe.progress import listening  # noqa: E402
from rankpipe.train.optimizers.adamw import AdamW  # noqa: E402
from rankpipe.train.optimizers.galore import GaLore  # noqa: E402
from rankpipe.train.optimizers.groups import Placed, sort  # noqa: E402
from tests.heard import Heard  # noqa: E402

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llama(kind: str = "LlamaForCausalLM", **more: Any) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, **more,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    return transformers.BertForSequenceClassification(config)


def projected(placed: list[Placed]) -> set[str]:
    return {p.name for p in placed if p.projected}


@pytest.mark.parametrize("tied", [False, True])
def test_linear_layers_are_projected_and_the_logits_are_not(tied: bool) -> None:
    model = llama(tie_word_embeddings=tied)
    placed = GaLore().report(model)
    assert [p.name for p in placed] == [name for name, _ in model.named_parameters()]
    layers = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    layers += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert projected(placed) == {f"model.layers.{i}.{name}.weight" for i in (0, 1) for name in layers}
    kinds = {p.name: p.kind for p in placed if not p.projected}
    assert kinds["model.embed_tokens.weight"] == "embedding or logits"
    assert kinds.get("lm_head.weight", "embedding or logits") == "embedding or logits"
    assert kinds["model.norm.weight"] == "other"


def test_a_rank_that_saves_nothing_is_told() -> None:
    """The largest matrix that is projected is (24, 16)."""
    for rank, tells in ((15, 0), (16, 1), (99, 1)):
        with listening(heard := Heard()):
            GaLore(rank=rank).over(llama())
        assert len(heard.notices) == tells
    assert "rank: 99: what is projected has 16 directions at most" in heard.notices[0]


def test_bug_the_score_head_is_projected() -> None:
    """It never is, whatever was asked for, and has its own learning rate."""
    model = llama("LlamaForSequenceClassification", num_labels=4)
    [score] = [p for p in GaLore().report(model) if p.name == "score.weight"]
    assert (score.kind, score.projected, score.decays, score.head) == ("score head", False, True, True)
    groups = GaLore(lr=1e-5, head_lr=1e-3, weight_decay=0.1).over(model).param_groups
    [head] = [g for g in groups if "score.weight" in g["names"]]
    assert (head["names"], head["lr"], head["weight_decay"], head["proj"]) == (["score.weight"], 1e-3, 0.1, "identity")
    assert {g["lr"] for g in groups if g is not head} == {1e-5}
    with pytest.raises(RecipeError, match="targets: score is never projected: score head"):
        GaLore(targets=["q_proj", "score"]).report(model)
    with pytest.raises(RecipeError, match="lm_head is never projected"):
        GaLore(targets=["lm_head"]).report(llama(tie_word_embeddings=False))


def test_a_head_of_several_layers_is_a_head() -> None:
    config = transformers.RobertaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    placed = GaLore().report(transformers.RobertaForSequenceClassification(config))
    head = {p.name for p in placed if p.head}
    assert head == {f"classifier.{layer}.{part}" for layer in ("dense", "out_proj") for part in ("weight", "bias")}
    assert not any(p.projected for p in placed if p.head)


def test_bug_a_layer_of_the_head_is_projected() -> None:
    """DistilBERT's ``pre_classifier`` is drawn anew and saved in full, as adapters have it."""
    config = transformers.DistilBertConfig(vocab_size=20, n_layers=1, n_heads=2, dim=8, hidden_dim=8)
    model = transformers.DistilBertForSequenceClassification(config)
    head = {f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in ("weight", "bias")}
    assert {p.name for p in GaLore().report(model) if p.head} == head
    groups = GaLore(lr=1e-5, head_lr=1e-3).over(model).param_groups
    assert {name for g in groups if g["lr"] == 1e-3 for name in g["names"]} == head
    with pytest.raises(RecipeError, match="targets: pre_classifier is never projected: score head"):
        GaLore(targets=["pre_classifier"]).report(model)


def test_bug_targets_match_substrings() -> None:
    model = bert()
    assert len(projected(GaLore(targets=["query", "value"]).report(model))) == 4
    for part in ("quer", "attention", "att", "bert.encoder.layer.*.intermediate.dens"):
        with pytest.raises(RecipeError, match=r"no module is called exactly|no linear layer"):
            GaLore(targets=[part]).report(model)
    with pytest.raises(RecipeError, match="exactly 'quer'; did you mean query"):
        GaLore(targets=["quer"]).report(model)
    dense = projected(GaLore(targets=["dense"]).report(model))
    assert len(dense) == 2 * 3 + 1
    assert "bert.pooler.dense.weight" in dense
    paths = [f"bert.encoder.layer.*.{part}.dense" for part in ("attention.output", "intermediate", "output")]
    assert projected(GaLore(targets=paths).report(model)) == dense - {"bert.pooler.dense.weight"}
    with pytest.raises(RecipeError, match=r"exactly 'output.dense'"):
        GaLore(targets=["output.dense"]).report(model)


def test_a_target_that_is_no_linear_layer_is_named() -> None:
    with pytest.raises(RecipeError, match=r"targets: bert\.embeddings\.LayerNorm is a LayerNorm, no linear layer"):
        GaLore(targets=["LayerNorm"]).report(bert())


def test_norms_and_biases_do_not_decay() -> None:
    """Of any optimizer."""
    for made in (AdamW(weight_decay=0.1), GaLore(weight_decay=0.1)):
        for group in made.over(bert()).param_groups:
            small = {p.dim() == 1 for p in group["params"]}
            assert small == {group["weight_decay"] == 0.0}
            assert len(group["names"]) == len(group["params"])


def test_frozen_parameters_are_left_out() -> None:
    model = llama()
    model.model.layers[0].requires_grad_(False)
    names = [p.name for p in sort(model)]
    assert names
    assert not any(name.startswith("model.layers.0.") for name in names)
    model.requires_grad_(False)
    with pytest.raises(RecipeError, match="galore: no trainable linear layer to project"):
        GaLore().report(model)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft still asks for it
def test_adapters_are_not_projected_once_more() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(
        RecipeError, match=r"galore: .*lora_A.* is an adapter, of low rank already: train it with adamw"
    ):
        GaLore().report(model)
    assert all("lora_" in name for group in AdamW().over(model).param_groups for name in group["names"])


def test_bug_flattened_weights_are_refused_by_name() -> None:
    """As FSDP 1 and DeepSpeed leave a linear layer's weight: of one dimension, or empty."""
    model = llama()
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach().flatten())
    with pytest.raises(RecipeError, match=r"model.layers.1.mlp.up_proj.weight \(384,\) is flat"):
        GaLore().over(model)


@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_by_its_name(name: str) -> None:
    assert len(projected(GaLore(targets=[name]).report(llama()))) == 2
