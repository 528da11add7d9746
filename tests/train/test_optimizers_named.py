"""Optimizers by their names, ours and transformers', with all that was asked for."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.catalog import CATALOG, find, installed
from rankpipe.errors import MissingExtra, RecipeError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

from rankpipe.train.optimizers.adafactor import Adafactor  # noqa: E402
from rankpipe.train.optimizers.adam8bit import Adam8bit  # noqa: E402
from rankpipe.train.optimizers.adamw import AdamW  # noqa: E402
from rankpipe.train.optimizers.apollo import Apollo  # noqa: E402
from rankpipe.train.optimizers.arguments import asked  # noqa: E402
from rankpipe.train.optimizers.galore import GaLore, GaLore8bit, GaLoreAdafactor  # noqa: E402
from rankpipe.train.optimizers.storage import state_bytes  # noqa: E402

NAMES = [name for name, entry in CATALOG.items() if entry.target.startswith("rankpipe.train.optimizers.")]
OURS = [name for name in NAMES if CATALOG[name].extra == "train"]
HAS_BNB = installed("bitsandbytes")


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(80, 96), torch.nn.LayerNorm(96), torch.nn.Linear(96, 64))


def trained(optimizer: Any, model: Any, steps: int = 3) -> list[Any]:
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model(torch.randn(8, 80, generator=draw)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "paged_adamw_8bit"])
def test_every_name_makes_a_torch_optimizer_that_learns(name: str) -> None:
    if CATALOG[name].extra == "bnb" and not HAS_BNB:
        pytest.skip("needs bitsandbytes")
    spec, model = recipe.build({"use": name, "lr": 1e-3}, Path()), net()
    optimizer = spec.over(model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    before = model(torch.ones(1, 80)).square().mean().item()
    trained(optimizer, model, 10)
    assert model(torch.ones(1, 80)).square().mean().item() < before
    assert state_bytes(optimizer) == spec.formula_bytes(net())


def test_a_recipe_says_galore() -> None:
    node = {"use": "galore", "rank": 128, "gap": 200, "scale": 0.25, "proj": "rsvd"}
    assert recipe.check({"optimizer": node}) == []
    assert recipe.build(node, Path()) == GaLore(rank=128, gap=200, scale=0.25, proj="rsvd")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"use": "galor"}, "did you mean galore"),
        ({"use": "galore", "ranks": 8}, "did you mean rank"),
        ({"use": "galore", "proj": "svdd"}, "'svdd' is not one of rsvd, svd"),
        ({"use": "galore", "rank": 0}, "rank=0: must be 1 or more"),
        ({"use": "galore", "lr": -1.0}, "lr=-1.0: must be 0 or more"),
        ({"use": "galore", "betas": [0.9, 1.0]}, "betas=.*two numbers"),
        ({"use": "galore", "clip": 1.0}, "clip is of layerwise"),
        ({"use": "galore", "layerwise": True, "clip": 0.0}, "clip=0.0: must be more than 0, or nothing moves"),
    ],
)
def test_faults_are_told_before_anything_is_loaded(node: dict[str, Any], said: str) -> None:
    [fault] = recipe.check({"optimizer": node})
    assert fault.startswith("optimizer: ")
    assert re.search(said, fault)


def test_python_users_are_told_the_near_names() -> None:
    with pytest.raises(RecipeError, match="on_switch: no 'resets'; did you mean reset"):
        GaLore(on_switch="resets")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OURS)
def test_no_setting_is_dropped(name: str) -> None:
    """Whatever the optimizer, what was asked for is in its groups."""
    kind = find(name)
    said: dict[str, Any] = {"lr": 3e-4, "weight_decay": 0.1, "betas": (0.5, 0.6), "eps": 1e-4}
    said = {k: v for k, v in said.items() if k in {f.name for f in fields(kind)}}
    groups = kind(**said).over(net()).param_groups
    for k, v in said.items():
        assert {g[k] for g in groups} == ({0.0, v} if k == "weight_decay" else {v})


def arguments(folder: Path, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    settings = {"learning_rate": 3e-4, "weight_decay": 0.1, "adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-4}
    return transformers.TrainingArguments(output_dir=str(folder), use_cpu=True, **(settings | more))


@pytest.mark.parametrize("name", [n for n in OURS if n.startswith(("adamw_", "galore_", "apollo_"))])
def test_bug_transformers_drops_weight_decay_betas_and_eps(name: str, tmp_path: Path) -> None:
    spec: Any = asked(arguments(tmp_path, optim=name))
    assert (spec.lr, spec.weight_decay, spec.betas, spec.eps) == (3e-4, 0.1, (0.5, 0.6), 1e-4)
    groups = spec.over(net()).param_groups
    assert {(g["lr"], tuple(g["betas"]), g["eps"]) for g in groups} == {(3e-4, (0.5, 0.6), 1e-4)}
    assert {g["weight_decay"] for g in groups} == {0.0, 0.1}


def test_transformers_own_options_mean_what_they_mean_there(tmp_path: Path) -> None:
    text = "rank=64, update_proj_gap=100, scale=0.10, proj_type=std"
    spec = asked(arguments(tmp_path, optim="galore_adafactor_layerwise", optim_args=text, optim_target_modules=["0"],
                           adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8))  # fmt: skip
    assert isinstance(spec, GaLoreAdafactor)
    assert (spec.rank, spec.gap, spec.scale, spec.layerwise, spec.targets) == (64, 100, 0.1, True, ["0"])
    mini = "rank=1,proj=random,scale_type=tensor,scale=128.0,update_proj_gap=200"
    apollo = asked(arguments(tmp_path, optim="apollo_adamw", optim_args=mini, optim_target_modules="all-linear"))
    assert isinstance(apollo, Apollo)
    assert (apollo.scale_type, apollo.scale, apollo.targets) == ("tensor", 128.0, None)
    assert isinstance(asked(arguments(tmp_path, optim="galore_adamw_8bit")), GaLore8bit)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"optim": "lion_8bit"}, "optim: no optimizer 'lion_8bit'"),
        ({"optim": "galore_adamw", "optim_args": "rnk=8"}, "galore_adamw: no setting 'rnk'; did you mean rank"),
        ({"optim": "galore_adamw", "optim_args": "proj_type=reverse_std"}, "there is only std"),
        ({"optim": "adafactor"}, "adafactor: no setting 'betas'"),
        ({"optim": "adamw_torch", "optim_target_modules": ["q_proj"]}, "adamw_torch: no setting 'targets'"),
    ],
)
def test_what_cannot_be_kept_is_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        asked(arguments(tmp_path, **more))


def test_adafactor_is_asked_for_as_transformers_means_it(tmp_path: Path) -> None:
    made = asked(arguments(tmp_path, optim="adafactor", adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8))
    assert made == Adafactor(lr=3e-4, weight_decay=0.1)
    assert not made.scale_parameter


def test_adamw_is_fused_where_it_can_be() -> None:
    assert AdamW().over(net()).param_groups[0]["fused"]
    assert not find("adamw_torch")().over(net()).param_groups[0]["fused"]
    assert not AdamW().over(net().to("meta")).param_groups[0]["fused"]


@pytest.mark.skipif(HAS_BNB, reason="bitsandbytes is here")
def test_without_bitsandbytes_its_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"adamw_8bit needs 'bitsandbytes'.*pip install 'rankpipe\[bnb\]'"):
        find("adamw_8bit")()


# eight bits


def test_eight_bits_are_near_the_exact_optimizer_in_a_quarter_of_its_memory() -> None:
    start, exact, few = net(), net(), net()
    wanted = trained(AdamW(lr=1e-3, weight_decay=0.1).over(exact), exact, 20)
    optimizer = Adam8bit(lr=1e-3, weight_decay=0.1).over(few)
    made = trained(optimizer, few, 20)
    for a, b, c in zip(made, wanted, start.parameters(), strict=True):
        assert float((a - b).norm()) < 0.05 * float((b - c.detach()).norm())
    large = sum(p.numel() for p in few.parameters() if p.numel() >= 4096)
    small = sum(p.numel() for p in few.parameters() if p.numel() < 4096)
    assert optimizer.state_bytes() == 2 * (large + large // 256 * 4) + 8 * small + 4 * 6


@pytest.mark.parametrize("signed", [False, True])
def test_codes_are_near_the_numbers_over_seven_decades(signed: bool) -> None:
    from rankpipe.train.optimizers.lowrank.quantise import pack, table, unpack

    assert len(table(signed, torch.device("cpu")).unique()) == 256
    draw = torch.Generator().manual_seed(0)
    x = 10 ** (-6 * torch.rand(37, 29, generator=draw))
    x = x * (torch.randint(0, 2, x.shape, generator=draw) * 2 - 1) if signed else x
    codes, scales = pack(x, signed)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.uint8, x.shape, (5,))
    values = table(signed, torch.device("cpu"))
    meant = values * scales.repeat_interleave(256)[: x.numel(), None]
    nearest = (meant - x.flatten()[:, None]).abs().amin(1).view(x.shape)
    assert ((unpack(codes, scales, signed) - x).abs() <= nearest + x.abs() / 128).all()
    assert torch.allclose(unpack(*pack(values, signed), signed), values, atol=1e-6)


def test_a_second_moment_that_is_not_0_never_becomes_0() -> None:
    from rankpipe.train.optimizers.lowrank.quantise import pack, unpack

    x = torch.tensor([1.0, 1e-12, 0.0])
    assert (unpack(*pack(x, signed=False), signed=False) > 0).tolist() == [True, True, False]


@pytest.mark.skipif(not HAS_BNB, reason="needs bitsandbytes")
def test_a_cpu_has_nothing_to_page_to() -> None:
    with pytest.raises(RecipeError, match="say adamw_8bit"):
        find("paged_adamw_8bit")().over(net())


@pytest.mark.skipif(not HAS_BNB, reason="needs bitsandbytes")
def test_codes_are_those_of_bitsandbytes() -> None:
    from bitsandbytes.functional import create_dynamic_map, quantize_blockwise

    from rankpipe.train.optimizers.lowrank.quantise import pack, table

    for signed in (False, True):
        assert torch.allclose(table(signed, torch.device("cpu")), create_dynamic_map(signed), atol=1e-7)
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    theirs, _ = quantize_blockwise(x, blocksize=256)
    off = (pack(x, signed=True)[0].int() - theirs.int()).abs()
    assert int(off.max()) <= 1  # a number between two codes may go to the other one
    assert float(off.float().mean()) < 0.2


# APOLLO


def test_apollo_moves_channels_along_their_gradients_as_far_as_adam() -> None:
    """With all rows kept it is Adam's length and the gradient's direction."""
    from rankpipe.train.optimizers.lowrank import LowRank

    draw = torch.Generator().manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        w, v = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
        spec = Apollo(growth=1e9)
        ours, adam = LowRank([w], spec, proj="columns", rank=12, lr=1e-2), LowRank([v], lr=1e-2)
        for _ in range(4):
            grad = torch.randn(shape, generator=draw)
            before, other = w.detach().clone(), v.detach().clone()
            w.grad, v.grad = grad.clone(), grad.clone()
            ours.step()
            adam.step()
            axis = 0 if shape[0] < shape[1] else 1
            moved, far = (w - before).detach(), (v - other).detach()
            assert torch.allclose(moved.norm(dim=axis), far.norm(dim=axis), rtol=1e-4)
            cosine = torch.nn.functional.cosine_similarity(moved, -grad, dim=axis)
            assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-5)


def test_apollo_grows_no_faster_than_its_limit() -> None:
    from rankpipe.train.optimizers.lowrank import LowRank

    w = torch.nn.Parameter(torch.zeros(12, 20))
    optimizer = LowRank([w], Apollo(), proj="random", rank=4, lr=1.0)
    sizes = []
    for k in range(6):
        before = w.detach().clone()
        w.grad = torch.randn(12, 20, generator=torch.Generator().manual_seed(k)) * (100 if k == 3 else 1)
        optimizer.step()
        sizes.append(float((w - before).detach().norm()))
    assert all(b <= 1.01 * a * 1.0001 for a, b in pairwise(sizes))
    assert optimizer.state_bytes() == optimizer.formula_bytes()


@pytest.mark.parametrize("proj", ["random", "rsvd"])
@pytest.mark.parametrize("at", [0, 3])
def test_bug_apollo_stops_for_good_at_a_gradient_of_zeros(at: int, proj: str) -> None:
    """What it may grow to is by the last step that was one."""
    from rankpipe.train.optimizers.lowrank import LowRank

    w = torch.nn.Parameter(torch.zeros(12, 20))
    optimizer = LowRank([w], Apollo(), proj=proj, rank=4, lr=1.0)
    sizes = []
    for k in range(6):
        before = w.detach().clone()
        w.grad = torch.randn(12, 20, generator=torch.Generator().manual_seed(k)) * (k != at)
        optimizer.step()
        sizes.append(float((w - before).detach().norm()))
    assert sizes.pop(at) == 0
    assert all(0 < b <= 1.01 * a * 1.0001 for a, b in pairwise(sizes))


def test_settings_are_frozen_and_can_be_replaced() -> None:
    assert replace(GaLore(), rank=8) == GaLore(rank=8)
