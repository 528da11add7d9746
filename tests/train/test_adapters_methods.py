"""What each method says of itself, held against its definition; and what the libraries get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankpipe.catalog import installed
from rankpipe.errors import MissingExtra, ModelError, RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

from rankpipe.train.adapters.adalora import AdaLoRA, Allocation, kept  # noqa: E402
from rankpipe.train.adapters.eva import Eva  # noqa: E402
from rankpipe.train.adapters.factors import NAME, factors, layers  # noqa: E402
from rankpipe.train.adapters.frozen import LoRAFA  # noqa: E402
from rankpipe.train.adapters.inner import LoRASB, LoRAXS  # noqa: E402
from rankpipe.train.adapters.lora import LoRA  # noqa: E402
from rankpipe.train.adapters.loraplus import LoRAPlus  # noqa: E402
from rankpipe.train.adapters.merging import merge  # noqa: E402
from rankpipe.train.adapters.qlora import quantised  # noqa: E402
from rankpipe.train.adapters.randlora import RandLoRA  # noqa: E402
from rankpipe.train.adapters.relora import ReLoRA, Stages  # noqa: E402
from rankpipe.train.optimizers.adam8bit import Adam8bit  # noqa: E402
from rankpipe.train.optimizers.adamw import AdamW  # noqa: E402
from tests.train.adapted import (  # noqa: E402
    METHODS,
    STEPS,
    adapted,
    apart,
    batches,
    bert,
    gpt2,
    llama,
    outputs,
    scattered,
    train,
)  # fmt: skip


def weights(model: Any) -> dict[str, Any]:
    """The weights of all adapted layers by their path in the base model."""
    return {
        path.removeprefix("base_model.model."): layer.get_base_layer().weight.detach().clone()
        for path, layer in layers(model)
    }


def best(matrix: Any, rank: int) -> Any:
    """The nearest matrix of that rank (Eckart and Young)."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).float()


def update(layer: Any) -> Any:
    b, a = factors(layer)
    return b @ a


# LoRA and its scalings


def test_full_rank_can_be_any_update() -> None:
    model = LoRA(rank=24, alpha=12).apply(llama())  # of 16 x 16 to 24 x 16: no layer is of more
    wanted = {}
    for index, (path, layer) in enumerate(layers(model)):
        base, a = layer.get_base_layer().weight, layer.lora_A[NAME].weight
        wanted[path] = torch.randn(base.shape, generator=torch.Generator().manual_seed(index))
        with torch.no_grad():
            layer.lora_B[NAME].weight.copy_(wanted[path] / layer.scaling[NAME] @ torch.linalg.pinv(a))
    before = weights(model)
    merged, _ = merge(model)
    for path, weight in before.items():
        assert apart(merged.get_submodule(path).weight, weight + wanted[f"base_model.model.{path}"]) < 1e-4


@pytest.mark.parametrize(("name", "scaling"), [("lora", 2.0), ("rslora", 4.0)])
def test_scaling(name: str, scaling: float) -> None:
    assert {layer.scaling[NAME] for _, layer in layers(adapted(METHODS[name], llama()))} == {scaling}


def test_dora_trains_lengths_apart() -> None:
    model = adapted(METHODS["dora"], llama())
    train(METHODS["dora"], model)
    lengths = {p: layer.lora_magnitude_vector[NAME].weight.detach().clone() for p, layer in layers(model)}
    merged, _ = merge(model)
    for path, length in lengths.items():
        assert (
            apart(merged.get_submodule(path.removeprefix("base_model.model.")).weight.norm(dim=1), length.abs()) < 1e-5
        )


def test_pissa_is_the_largest_part_of_the_weights() -> None:
    whole = llama()
    model = adapted(METHODS["pissa"], llama())
    for path, layer in layers(model):
        weight = whole.get_submodule(path.removeprefix("base_model.model.")).weight.detach()
        now = layer.get_delta_weight(NAME).detach()
        assert apart(now, best(weight, 4)) < 1e-6
        assert apart(layer.get_base_layer().weight.detach() + now, weight) < 1e-6
        assert apart(update(layer), torch.zeros_like(weight)) < 1e-6
        assert factors(layer)[0].shape[1] == 8


def test_eva_begins_where_inputs_vary() -> None:
    even = Eva(rank=4, spread=1.0, targets=["q_proj"])
    seen: list[Any] = []
    whole = llama("bfloat16")
    handle = whole.model.layers[1].self_attn.q_proj.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    [one] = batches(1, rows=16)
    whole(**one)
    handle.remove()
    model = even.apply(llama("bfloat16"), calibration=[one])
    a = dict(layers(model))["base_model.model.model.layers.1.self_attn.q_proj"].lora_A[NAME].weight.detach()
    assert a.dtype == torch.float32  # PEFT leaves them in the base's, too coarse to be trained
    assert apart(a @ a.T, torch.eye(4)) < 1e-2
    x = seen[0].detach().float().reshape(-1, 16)
    top = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:4]
    assert float(torch.linalg.svdvals(a @ top.T).min()) > 0.99


def test_eva_moves_ranks() -> None:
    model = adapted(Eva(rank=4, spread=2.0), llama())
    ranks = [layer.r[NAME] for _, layer in layers(model)]
    assert sum(ranks) == 4 * 14
    assert len({*ranks}) > 1


# how fast


@pytest.mark.parametrize(("own", "rate_of_head"), [({"head_lr": 2e-4}, 2e-4), ({}, 16.0 * 1e-3)])
def test_bug_lora_plus_moves_the_head_with_a(own: dict[str, float], rate_of_head: float) -> None:
    """PEFT puts a head of two dimensions with A and its bias with B; here it moves with B, or at its own rate."""
    model = LoRAPlus(rank=4, ratio=16.0).apply(bert())
    groups = LoRAPlus(rank=4, ratio=16.0).groups(model, 1e-3, weight_decay=0.1, **own)
    rate = {n: g["lr"] for g in groups for n in g["names"]}
    assert len(rate) == sum(p.requires_grad for p in model.parameters())
    assert {r for n, r in rate.items() if "lora_A" in n} == {1e-3}
    assert {r for n, r in rate.items() if "lora_B" in n} == {16.0 * 1e-3}
    assert {r for n, r in rate.items() if "classifier" in n} == {rate_of_head}
    assert {g["weight_decay"] for g in groups for n in g["names"] if n.endswith("bias")} == {0.0}


@pytest.mark.parametrize("settings", [AdamW(lr=1e-3), Adam8bit(lr=1e-3)])
def test_any_optimizer_is_paced(settings: Any) -> None:
    method = LoRAPlus(rank=4, ratio=8.0)
    model = method.apply(llama())
    optimizer = settings.over(model)
    method.pace(optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(method, model, steps=2, optimizer=optimizer)
    moved = {n: apart(p, before[n]) for n, p in model.named_parameters() if p.requires_grad}
    fast = max(v for n, v in moved.items() if "lora_B" in n)
    assert {g["lr"] for g in optimizer.param_groups} == {1e-3, 8e-3}
    assert fast > 4 * max(v for n, v in moved.items() if "lora_A" in n) > 0


# A that does not move


@pytest.mark.parametrize("name", ["frozen-a", "lora-fa"])
def test_a_does_not_move(name: str) -> None:
    model = adapted(METHODS[name], llama())
    before = {path: layer.lora_A[NAME].weight.clone() for path, layer in layers(model)}
    train(METHODS[name], model)
    for path, layer in layers(model):
        assert torch.equal(layer.lora_A[NAME].weight, before[path])
        assert bool(layer.lora_B[NAME].weight.any())
        if name == "frozen-a":
            assert apart(before[path] @ before[path].T, torch.eye(4)) < 1e-5
    assert set(METHODS[name].report(model).by_kind) == {"lora_B"}
    assert (
        METHODS[name].report(model).trainable
        < 0.6 * METHODS["lora"].report(adapted(METHODS["lora"], llama())).trainable
    )


def test_lora_fa_steps_as_all_weights_do_in_its_rows() -> None:
    whole = llama()
    scattered(whole, batches()[0]).backward()
    model = LoRAFA(rank=4, alpha=8).apply(llama())
    scattered(model, batches()[0]).backward()
    for path, layer in layers(model):
        full = whole.get_submodule(path.removeprefix("base_model.model.")).weight.grad
        a = layer.lora_A[NAME].weight
        step = layer.scaling[NAME] * layer.lora_B[NAME].weight.grad @ a
        assert apart(step, full @ a.T @ torch.linalg.inv(a @ a.T) @ a) < 1e-5 * float(full.abs().max())


# AdaLoRA


@pytest.mark.parametrize("every", [1, 3])
def test_adalora_ends_on_its_budget(every: int, tmp_path: Path) -> None:
    method = AdaLoRA(rank=3, begin_rank=6, every=every)
    model = adapted(method, llama())
    counts = []
    train(method, model, after=lambda _: counts.append(sum(map(sum, kept(model).values()))))
    assert counts[-4:] == [3 * 14] * 4
    assert max(counts) == 6 * 14
    if every == 1:  # else ranks grow again between two allocations, until they are fixed
        assert counts == sorted(counts, reverse=True)
    method.save(model, tmp_path)
    pattern = peft.PeftConfig.from_pretrained(str(tmp_path)).rank_pattern
    empty = sum(not any(ranks) for ranks in kept(model).values())
    assert sum(map(sum, pattern.values())) == 3 * 14 + empty
    assert model.peft_config[NAME].rank_pattern is None


def test_bug_adalora_is_lora_if_the_loop_forgets() -> None:
    method = METHODS["adalora"]
    model = adapted(method, llama())
    train(method, model, callbacks=[])
    assert sum(map(sum, kept(model).values())) == 4 * 14


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bug_a_step_that_is_skipped_ruins_the_scores(bad: float, tmp_path: Path) -> None:
    """Ours makes none of a gradient that is not finite; PEFT's running means were never numbers again."""
    method = AdaLoRA(rank=2, begin_rank=4, every=1)
    model = adapted(method, llama())
    optimizer, counts = Adam8bit(lr=1e-2).over(model), list[int]()
    for p in model.parameters():
        if p.requires_grad:
            p.register_hook(lambda grad: grad.fill_(bad) if len(counts) in (0, 4) else grad)
    train(method, model, optimizer=optimizer, after=lambda _: counts.append(sum(map(sum, kept(model).values()))))
    assert optimizer.skipped == 2
    assert counts[0] == 0  # singular values begin at 0
    assert counts[1:] == sorted(counts[1:], reverse=True)
    assert counts[-1] == 2 * 14
    method.save(model, tmp_path)


def test_ranks_that_were_never_scored_are_not_taken() -> None:
    method = AdaLoRA(rank=2, begin_rank=4, every=1)
    model = adapted(method, llama())
    next(p for n, p in model.named_parameters() if "lora_B" in n).register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(ModelError, match="no step before 9, which fixes the ranks, had gradients that are finite"):
        train(method, model, optimizer=Adam8bit(lr=1e-2).over(model))


def test_more_ranks_than_were_asked_for_are_not_saved(tmp_path: Path) -> None:
    method = AdaLoRA(rank=2, begin_rank=4, every=1)
    model = adapted(method, llama())
    train(method, model, callbacks=[])
    with pytest.raises(ModelError, match="56 ranks are left, and rank=2 asks for 28"):
        method.save(model, tmp_path)


def test_bug_adalora_scores_need_gradients() -> None:
    method = AdaLoRA(rank=2, begin_rank=4)
    model = adapted(method, llama())
    optimizer = train(method, model, steps=1)
    with pytest.raises(ModelError, match="has no gradient: call on_step before"):
        Allocation().on_step(model, optimizer, 2)


def test_adalora_resumed_without_its_callback_says_so() -> None:
    method = AdaLoRA(rank=2, begin_rank=4)
    model = adapted(method, llama())
    with pytest.raises(ModelError, match="resume the callbacks, too"):
        train(method, model, begin=STEPS - 1)


def test_bug_orthogonality_is_lost_on_a_loss_outside_the_model() -> None:
    """PEFT adds it to ``outputs.loss`` alone; ours is there whoever makes the loss, and never twice."""
    method = AdaLoRA(rank=2, begin_rank=4, orthogonality=0.5)
    model = adapted(method, llama())
    extra = method.extra_loss(model)
    theirs = []
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = p @ p.T if "lora_A" in name else p.T @ p
            theirs.append((gram - torch.eye(4)).norm())
    assert float(extra.detach()) == pytest.approx(0.5 * float(sum(theirs).detach()) / len(theirs), rel=1e-6)
    extra.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n)
    [one] = batches()
    labelled = model(**one, labels=one["input_ids"]).loss
    assert float(labelled.detach()) == pytest.approx(
        float(llama()(**one, labels=one["input_ids"]).loss.detach()), abs=1e-5
    )
    assert METHODS["lora"].extra_loss(model) is None


# RandLoRA


def test_randlora_has_the_bases_of_its_seed_and_full_rank() -> None:
    def made(seed: int, rank: int = 8) -> Any:
        return RandLoRA(rank=rank, alpha=20, seed=seed, targets=["q_proj"]).apply(llama())

    one, two, other = (made(seed).base_model.randlora_B[NAME] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert RandLoRA().report(made(0, 4)).trainable > RandLoRA().report(made(0, 8)).trainable
    assert RandLoRA().report(made(0, 8)).trainable == 2 * (16 + 2 * 16)  # d + d * d / r, and the scales of columns
    model = made(0)
    _, layer = next(layers(model))
    with torch.no_grad():
        layer.randlora_lambda[NAME].fill_(1.0)
        torch.nn.init.normal_(layer.randlora_gamma[NAME], generator=torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(layer.get_delta_weight(NAME))) == 16


# a square matrix between factors that do not move


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lora_xs_is_small_and_in_the_largest_directions(dtype: str) -> None:
    """In single precision over any base: rounded factors are no longer orthonormal."""
    method = LoRAXS(rank=4, alpha=4, deviation=0.0)
    model = method.apply(llama(dtype))
    assert torch.equal(outputs(model), outputs(llama(dtype)))
    assert method.report(model).by_kind == {"inner": 14 * 4 * 4}
    for _, layer in layers(model):
        weight = layer.get_base_layer().weight.detach().float()
        v = layer.lora_A[NAME].parametrizations.weight[0].v
        assert apart(v @ v.T, torch.eye(4)) < 1e-5
        largest = layer.lora_B[NAME].weight.detach() @ v
        assert apart(largest, best(weight, 4)) < 1e-5
        tail = torch.linalg.svdvals(weight.double())[4:]
        assert float(((weight - largest) ** 2).sum()) == pytest.approx(float((tail**2).sum()), rel=1e-4)
    moved = {n for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(method, model)
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == moved


def test_lora_sb_begins_after_the_best_step_of_its_rank() -> None:
    method, whole, data = LoRASB(rank=4, alpha=8, first=1e-2), llama(), batches(3)
    sum(scattered(whole, batch) for batch in data).backward()
    model = llama()
    made = method.apply(model, calibration=data, loss=scattered)
    for path, layer in layers(made):
        step = -1e-2 * whole.get_submodule(path.removeprefix("base_model.model.")).weight.grad.sign()
        assert apart(update(layer), best(step, 4)) < 1e-6
        assert layer.lora_A[NAME].parametrizations.weight.original.shape == (4, 4)
    assert all(p.grad is None for p in made.parameters())
    before = sum(float(scattered(llama(), batch).detach()) for batch in data)
    assert sum(float(scattered(made, batch).detach()) for batch in data) < before


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT sets it right by itself
def test_gpt2_has_its_directions_the_right_way_round() -> None:
    """Where a layer is square, the wrong one would show by nothing but what it learns."""
    model = LoRAXS(rank=4, alpha=4, deviation=0.0).apply(gpt2())
    for _, layer in layers(model):
        v = layer.lora_A[NAME].parametrizations.weight[0].v
        assert apart(layer.lora_B[NAME].weight.detach() @ v, best(layer.get_base_layer().weight.detach().T, 4)) < 1e-5
    whole, data = gpt2(), batches(3)
    sum(scattered(whole, batch) for batch in data).backward()
    for path, layer in layers(LoRASB(rank=4, first=1e-2).apply(gpt2(), calibration=data, loss=scattered)):
        step = -1e-2 * whole.get_submodule(path.removeprefix("base_model.model.")).weight.grad.sign()
        assert apart(update(layer), best(step.T, 4)) < 1e-6


# stages


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_stages_add_up_and_change_nothing_when_they_end(dtype: str, bound: float) -> None:
    method = METHODS["relora"]
    model = adapted(method, llama(dtype))
    [stages] = method.callbacks()
    assert isinstance(stages, Stages)
    jumps: list[float] = []

    class Watched(Stages):
        def on_step(self, model: Any, optimizer: Any, step: int) -> None:
            before = outputs(model)
            stages.on_step(model, optimizer, step)
            if step in (4, 8):
                jumps.append(apart(outputs(model), before) / float(before.abs().max()))
                parts = [p for n, p in model.named_parameters() if p.requires_grad]
                assert not [p for p in parts if p in optimizer.state]
                assert not any(bool(p.any()) for n, p in model.named_parameters() if "lora_B" in n)

    ranks: list[int] = []
    _, layer = next(layers(model))
    draw = lambda step: ranks.append(int(torch.linalg.matrix_rank(update(layer), rtol=1e-5)))  # noqa: E731
    train(method, model, callbacks=[Watched(4, 3, 0)], after=draw)
    assert ranks == [4] * 4 + [8] * 4 + [12] * 4
    assert len(jumps) == 2
    assert max(jumps) < bound
    assert len(stages.losses) == 2
    assert (stages.losses[0].of_update < 1e-4) == (dtype == "float32")


def test_each_stage_warms_up() -> None:
    method = ReLoRA(every=10, stages=2, warmup=3)
    assert [method.warmth(step) for step in (1, 10, 11, 12, 13, 14, 25)] == [1, 1, 0.25, 0.5, 0.75, 1, 1]


# a run that was killed


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_is_one_that_went_through(name: str, tmp_path: Path) -> None:
    """By the files and calls of transformers' Trainer; to the bit."""
    from rankpipe.train.adapters.callbacks import keep, resume

    method, half = METHODS[name], 9
    whole = adapted(method, llama(head=True))
    hooks = method.callbacks()
    optimizer = train(method, whole, steps=half, callbacks=hooks)
    whole.save_pretrained(str(tmp_path), save_embedding_layers=False)
    keep(hooks, whole, tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    train(method, whole, begin=half, callbacks=hooks, optimizer=optimizer)

    again = adapted(method, llama(head=True))
    again.load_adapter(str(tmp_path), NAME, is_trainable=True)
    hooks = method.callbacks()
    resume(hooks, again, tmp_path)
    optimizer = torch.optim.AdamW(method.groups(again, 1e-2))
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(method, again, begin=half, callbacks=hooks, optimizer=optimizer)
    for (key, p), q in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), key
    assert half < STEPS


# a base of few bits


NOT_QUANTISED = ("pissa", "lora-sb", "relora")


@pytest.mark.skipif(installed("bitsandbytes"), reason="bitsandbytes is here")
def test_quantised_says_what_it_needs() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'rankpipe\[bnb\]'"):
        quantised(4)


@pytest.mark.skipif(not installed("bitsandbytes"), reason="needs bitsandbytes")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", METHODS)
def test_a_quantised_base_is_trained_over_or_refused(name: str, bits: Any, tmp_path: Path) -> None:
    import transformers

    llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)  # its kernels are for whole blocks

    def load() -> Any:
        return transformers.LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantised(bits)).eval()

    method = METHODS[name]
    if name in NOT_QUANTISED or (name, bits, torch.accelerator.is_available()) == ("dora", 8, False):
        with pytest.raises(RecipeError, match=r"the base is quantised|for GPUs; say dtype: nf4"):
            adapted(method, load())
        return
    model = adapted(method, load())
    before = scattered(model, batches()[0])
    train(method, model)
    assert float(scattered(model, batches()[0]).detach()) < float(before.detach())
    with pytest.raises(RecipeError, match="is quantised"):
        merge(model)
    method.save(model, tmp_path / "made")
    assert peft.PeftConfig.from_pretrained(str(tmp_path / "made"))
