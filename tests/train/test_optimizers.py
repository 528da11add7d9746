"""The core of the low-rank optimizers, held against plain ones where both must do the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rankpipe.errors import ModelError, RecipeError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

from rankpipe.train.optimizers.lowrank import LowRank  # noqa: E402
from rankpipe.train.optimizers.lowrank.projections import PROJECTIONS, drawing  # noqa: E402
from rankpipe.train.optimizers.lowrank.quantise import pack, unpack  # noqa: E402
from rankpipe.train.optimizers.lowrank.rules import ADAM, PIECE  # noqa: E402

BASES = [name for name, projection in PROJECTIONS.items() if projection is not None]
RULES = ("adam", "adam8bit", "adafactor", "sgd")


def matrices(*shapes: Sequence[int], seed: int = 0, dtype: Any = None) -> list[Any]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(*s, generator=draw).to(dtype or torch.float32)) for s in shapes]


def gradients(shapes: Sequence[Sequence[int]], steps: int, seed: int = 1) -> list[list[Any]]:
    """Matrices whose singular values fall off, as those of gradients do, around directions that drift."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(steps):
        made.append([])
        for shape in shapes:
            noise = torch.randn(*shape, generator=draw)
            if len(shape) == 2:
                u, s, v = torch.linalg.svd(noise, full_matrices=False)
                noise = u * (s * 0.7 ** torch.arange(len(s))) @ v
            made[-1].append(noise)
    return made


def run(optimizer: Any, params: Sequence[Any], grads: Sequence[Sequence[Any]]) -> list[Any]:
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g.to(p.dtype).clone()
        optimizer.step()
    return [p.detach().clone() for p in params]


def apart(a: Sequence[Any], b: Sequence[Any]) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


SHAPES = [(12, 20), (20, 12), (7,), (8, 8)]


# what it is equal to


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_identity_is_torchs_adamw_to_the_bit(fused: bool, decay: float) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-7, "weight_decay": decay, "fused": fused}
    ours, theirs = matrices(*SHAPES), matrices(*SHAPES)
    grads = gradients(SHAPES, 12)
    made = run(LowRank(ours, **options), ours, grads)
    assert apart(made, run(torch.optim.AdamW(theirs, **options), theirs, grads)) == 0.0


def test_galore_with_an_identity_projection_is_adamw_to_the_bit() -> None:
    ours, theirs = matrices((12, 20)), matrices((12, 20))
    grads = gradients([(12, 20)], 12)
    lowrank = LowRank(ours, lr=1e-2, proj="identity", rank=2, gap=3, on_switch="reset")
    made = run(lowrank, ours, grads)
    assert apart(made, run(torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.0, fused=True), theirs, grads)) == 0.0


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_all_columns_are_adamw(shape: tuple[int, int]) -> None:
    """FRUGAL's kind of projection, at a density of 1."""
    ours, theirs = matrices(shape), matrices(shape)
    grads = gradients([shape], 30)
    made = run(LowRank(ours, lr=1e-2, proj="columns", rank=12, gap=3), ours, grads)
    assert apart(made, run(torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.0), theirs, grads)) < 2e-7


@pytest.mark.parametrize("proj", ["columns", "identity"])
def test_scale_is_of_steps_and_not_of_decay(proj: str) -> None:
    """lowrank.md's ``lr * scale``: a quarter of the rate, at four times the decay."""
    ours, theirs = matrices((12, 20)), matrices((12, 20))
    grads = gradients([(12, 20)], 30)
    made = run(LowRank(ours, lr=1e-2, proj=proj, rank=12, gap=3, scale=0.25, weight_decay=0.1), ours, grads)
    assert apart(made, run(torch.optim.AdamW(theirs, lr=0.25e-2, weight_decay=0.4), theirs, grads)) < 2e-7


@pytest.mark.parametrize("proj", ["svd", "eigh", "rsvd"])
def test_full_rank_is_adam_in_the_turned_basis_and_not_adamw(proj: str) -> None:
    exact = torch.float64
    w, wide = matrices((12, 20), dtype=exact), matrices((12, 20), dtype=exact)
    grads = [[g.to(exact) for g in step] for step in gradients([(12, 20)], 30)]
    optimizer = LowRank(w, lr=1e-2, proj=proj, rank=12, gap=1000)
    made = run(optimizer, w, grads)
    basis = optimizer.state[w[0]]["P"]
    assert float((basis.T @ basis - torch.eye(12)).abs().max()) < 1e-12
    turned = torch.nn.Parameter(basis.T @ matrices((12, 20), dtype=exact)[0].detach())
    [there] = run(torch.optim.AdamW([turned], lr=1e-2, weight_decay=0.0), [turned], [[basis.T @ g[0]] for g in grads])
    assert apart(made, [basis @ there]) < 1e-9
    assert apart(made, run(torch.optim.AdamW(wide, lr=1e-2, weight_decay=0.0), wide, grads)) > 0.05


@pytest.mark.parametrize("proj", ["svd", "eigh", "rsvd", "columns"])
def test_sgd_at_full_rank_is_sgd(proj: str) -> None:
    shapes = [(12, 20), (20, 12)]
    ours, theirs = matrices(*shapes), matrices(*shapes)
    grads = gradients(shapes, 20)
    made = run(LowRank(ours, lr=4e-2, scale=0.25, proj=proj, rank=12, gap=4, inner="sgd"), ours, grads)
    assert apart(made, run(torch.optim.SGD(theirs, lr=1e-2), theirs, grads)) < 1e-6


@pytest.mark.parametrize("proj", ["svd", "rsvd", "random", "columns"])
def test_the_rank_of_what_changed_is_that_of_the_subspaces(proj: str) -> None:
    shapes = [(12, 20), (20, 12)]
    w = matrices(*shapes)
    grads = gradients(shapes, 9)
    for subspaces in (1, 2, 3):
        start = matrices(*shapes)
        w = matrices(*shapes)
        optimizer = LowRank(w, lr=1e-2, proj=proj, rank=3, gap=3)
        made = run(optimizer, w, grads[: 3 * subspaces])
        for a, b in zip(made, start, strict=True):
            rank = int(torch.linalg.matrix_rank((a - b.detach()).double(), rtol=1e-5))
            assert rank <= 3 * subspaces
            assert rank == 3 * subspaces or proj == "columns"  # which may be the same again


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adafactor_is_transformers_as_its_trainer_asks_for_it(decay: float) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    ours, theirs = matrices(*SHAPES), matrices(*SHAPES)
    grads = gradients(SHAPES, 20)
    made = run(LowRank(ours, lr=1e-2, inner="adafactor", weight_decay=decay), ours, grads)
    options = {"lr": 1e-2, "weight_decay": decay, "scale_parameter": False, "relative_step": False}
    assert apart(made, run(optimization.Adafactor(theirs, **options), theirs, grads)) < 5e-6


def test_adafactor_with_scale_parameter_is_torchs() -> None:
    shapes = [(12, 20), (20, 12), (8, 8)]  # of vectors, torch's keeps another mean
    ours, theirs = matrices(*shapes), matrices(*shapes)
    grads = gradients(shapes, 20)
    made = run(LowRank(ours, lr=1e-2, inner="adafactor", scale_parameter=True), ours, grads)
    assert apart(made, run(torch.optim.Adafactor(theirs, lr=1e-2), theirs, grads)) < 5e-6


# the bases


def falling(m: int, n: int, seed: int = 3) -> Any:
    """A gradient's spectrum: the sum of a few strong directions and a long tail."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(m, m, generator=draw))[0]
    v = torch.linalg.qr(torch.randn(n, m, generator=draw))[0]
    return u * (1 / torch.arange(1, m + 1)) @ v.T


def energy(grad: Any, basis: Any) -> float:
    return float((basis.T @ grad).square().sum() / grad.square().sum())


def test_rsvd_has_nearly_all_of_what_svd_captures_cold_and_warm() -> None:
    one, two = falling(64, 96), falling(64, 96) + 0.005 * torch.randn(64, 96, generator=drawing(0, 0, 0))
    svd, rsvd = PROJECTIONS["svd"], PROJECTIONS["rsvd"]
    cold = rsvd.fit(one, None, 16, drawing(0, 0, 0))
    assert energy(one, cold) > 0.99 * energy(one, svd.fit(one, None, 16, drawing(0, 0, 0)))
    warm = rsvd.fit(two, cold, 16, drawing(0, 0, 1))
    assert energy(two, warm) > 0.95 * energy(two, svd.fit(two, None, 16, drawing(0, 0, 0)))
    other = falling(64, 96, seed=4)  # nothing in common: still most of it after a single pass
    assert energy(other, rsvd.fit(other, cold, 16, drawing(0, 0, 1))) > 0.95 * energy(
        other, svd.fit(other, None, 16, drawing(0, 0, 0))
    )


def test_a_warm_basis_costs_one_pass_over_the_gradient() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    grad, rsvd = falling(64, 96), PROJECTIONS["rsvd"]
    old = rsvd.fit(grad, None, 16, drawing(0, 0, 0))
    with FlopCounterMode(display=False) as counted:
        rsvd.fit(grad, old, 16, drawing(0, 0, 1))
    assert counted.get_total_flops() == 2 * (2 * 64 * 96 * 16)  # there and back


@pytest.mark.parametrize("proj", ["svd", "eigh", "rsvd"])
def test_directions_keep_their_signs(proj: str) -> None:
    """Singular vectors have none, and moments that are kept would be those of the opposite."""
    grad, fit = falling(32, 48), PROJECTIONS[proj].fit
    old = fit(grad, None, 8, drawing(0, 0, 0))
    for k in range(5):
        new = fit(grad * (-1) ** k + 1e-4 * falling(32, 48, seed=9 + k), old, 8, drawing(0, 0, k))
        assert ((new * old).sum(0) > 0.9).all()
        old = new


@pytest.mark.parametrize("size", [1e-30, 1e18])
@pytest.mark.parametrize("proj", ["svd", "eigh", "rsvd", "columns"])
def test_gradients_of_any_size_have_a_basis(proj: str, size: float) -> None:
    grad, fit = falling(32, 48), PROJECTIONS[proj].fit
    plain, scaled = fit(grad, None, 4, drawing(0, 0, 0)), fit(grad * size, None, 4, drawing(0, 0, 0))
    assert torch.allclose(plain.float(), scaled.float(), atol=1e-3)


@pytest.mark.parametrize("proj", BASES)
def test_every_process_finds_the_same_basis(proj: str) -> None:
    """Whatever random numbers it has drawn for other ends; and it takes none from others."""
    grads, made = gradients([(12, 20)], 6), []
    for noise in (1, 2):
        torch.manual_seed(noise)
        w = matrices((12, 20))
        made.append(run(LowRank(w, lr=1e-2, proj=proj, rank=4, gap=2, seed=5), w, grads))
        after = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(after, torch.rand(1))
    assert apart(*made) == 0.0


def test_another_seed_is_another_random_basis() -> None:
    grads, made = gradients([(12, 20)], 2), []
    for seed in (1, 2):
        w = matrices((12, 20))
        made.append(run(LowRank(w, lr=1e-2, proj="random", rank=4, seed=seed), w, grads))
    assert apart(*made) > 1e-3


def test_random_directions_are_fair_on_average() -> None:
    fit = PROJECTIONS["random"].fit
    grad = torch.zeros(12, 20)
    bases = [fit(grad, None, 4, drawing(0, 0, k)) for k in range(2000)]
    mean = torch.stack([b @ b.T for b in bases]).mean(0)
    assert float((mean - torch.eye(12)).abs().max()) < 0.1


@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_moments_of_eight_bits_are_stepped_in_pieces_as_if_they_were_whole(turned: bool) -> None:
    """More than a piece, whose last block is not full; and weights that do not lie one row after the other."""
    shape = (2, PIECE // 2 + 150)
    there, *grads = (p.detach().T.contiguous() if turned else p.detach() for p in matrices(shape, shape, shape))
    here = torch.nn.Parameter(there.T.contiguous().T if turned else there.clone())
    optimizer = LowRank([here], lr=1e-2, inner="adam8bit")
    [made] = run(optimizer, [here], [[g] for g in grads])
    state = ADAM.fresh(there)
    for age, grad in enumerate(grads, 1):
        ADAM.step(there, grad, state, age, 1e-2, optimizer.param_groups[0])
        packed = {name: pack(value, signed=name == "exp_avg") for name, value in state.items()}
        state = {name: unpack(*packed[name], signed=name == "exp_avg") for name in packed}
    assert here.is_contiguous() is not turned
    assert torch.equal(made, there)
    for name, (codes, scales) in packed.items():
        assert torch.equal(optimizer.state[here][name], codes)
        assert torch.equal(optimizer.state[here][f"{name}_scale"], scales)


# moments when directions change


@pytest.mark.parametrize("inner", ["adam", "adam8bit"])
def test_reprojected_moments_are_those_of_the_old_ones_in_the_new_basis(inner: str) -> None:
    shape = (80, 96)
    w = matrices(shape)
    optimizer = LowRank(
        w, lr=1e-2, proj="svd", rank=64, gap=2, on_switch="reproject", inner=inner, betas=(0.999, 0.999)
    )
    grads = gradients([shape], 3)
    run(optimizer, w, grads[:2])
    state = optimizer.state[w[0]]
    old, before = state["P"].clone(), moment(state).clone()
    run(optimizer, w, grads[2:])
    wanted = 0.999 * state["P"].T @ old @ before + 0.001 * state["P"].T @ grads[2][0]
    assert float((moment(state) - wanted).abs().max()) < (1e-6 if inner == "adam" else 0.02 * float(wanted.abs().max()))


def moment(state: dict[str, Any]) -> Any:
    scale = state.get("exp_avg_scale")
    return state["exp_avg"] if scale is None else unpack(state["exp_avg"], scale, signed=True)


@pytest.mark.parametrize("inner", RULES)
def test_reset_moments_begin_as_new_ones_do(inner: str) -> None:
    w, shape = matrices((12, 20)), (12, 20)
    grads = gradients([shape], 5)
    optimizer = LowRank(w, lr=1e-2, proj="svd", rank=4, gap=3, on_switch="reset", inner=inner)
    middle = run(optimizer, w, grads[:3])
    made = run(optimizer, w, grads[3:])
    fresh = [torch.nn.Parameter(middle[0].clone())]
    old = optimizer.state[w[0]]["P"]
    again = run(LowRank(fresh, lr=1e-2, proj="svd", rank=4, gap=3, inner=inner), fresh, grads[3:])
    assert apart(made, again) < 1e-6
    assert old.shape == (12, 4)


def test_kept_moments_are_kept() -> None:
    w, shape = matrices((12, 20)), (12, 20)
    grads = gradients([shape], 3)
    optimizer = LowRank(w, lr=1e-2, proj="svd", rank=4, gap=2)
    run(optimizer, w, grads[:2])
    before = optimizer.state[w[0]]["exp_avg"].clone()
    run(optimizer, w, grads[2:])
    state = optimizer.state[w[0]]
    assert torch.allclose(state["exp_avg"], 0.9 * before + 0.1 * state["P"].T @ grads[2][0], atol=1e-6)


# state


@pytest.mark.parametrize("inner", RULES)
@pytest.mark.parametrize("proj", [*BASES, "identity"])
def test_bug_bases_hold_whole_decompositions(proj: str, inner: str) -> None:
    """Memory by storage is what the formula says, to the byte; views of a decomposition would hold a third more."""
    shapes = [(96, 160), (160, 96), (64, 64), (4, 9)]
    w = matrices(*shapes)
    optimizer = LowRank(w, lr=1e-3, proj=proj, rank=64, gap=2, inner=inner, on_switch="reproject")
    run(optimizer, w, gradients(shapes, 4))
    assert optimizer.state_bytes() == optimizer.formula_bytes()
    tensors = [t for state in optimizer.state.values() for t in state.values()]
    assert optimizer.state_bytes() == sum(t.numel() * t.itemsize for t in tensors)


def test_the_formula_is_the_papers() -> None:
    (m, n), r = (96, 160), 32
    w = matrices((m, n), (n, m), (5,))
    galore = LowRank(w[:2], proj="rsvd", rank=r)
    assert galore.formula_bytes() == 2 * (4 * (m * r + 2 * r * n) + 4)
    assert LowRank(w).formula_bytes() == 3 * 4 + 2 * 4 * (2 * m * n + 5)
    assert LowRank(w, inner="adafactor").formula_bytes() == 3 * 4 + 4 * (2 * (m + n) + 5)
    assert LowRank(w[:2], proj="random", rank=r).formula_bytes() == 2 * (4 * 2 * r * n + 4)


@pytest.mark.parametrize("write", ["stochastic", "master"])
@pytest.mark.parametrize("inner", RULES)
@pytest.mark.parametrize("proj", [*BASES, "identity"])
def test_bug_resume_breaks(proj: str, inner: str, write: str) -> None:
    """A checkpoint that weights_only reads, and a resumed run that is the uninterrupted one, to the bit."""
    shapes = [(96, 64), (12, 20)]
    kind = torch.bfloat16 if write == "stochastic" else torch.float32
    grads = gradients(shapes, 7)

    def fresh() -> tuple[list[Any], LowRank]:
        w = matrices(*shapes, dtype=kind)
        return w, LowRank(w, lr=1e-2, proj=proj, rank=48, gap=3, inner=inner, write=write, on_switch="reproject")

    straight, optimizer = fresh()
    whole = run(optimizer, straight, grads)
    for stop in (1, 3, 5):
        w, optimizer = fresh()
        weights = run(optimizer, w, grads[:stop])
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        w, resumed = fresh()
        for p, kept in zip(w, weights, strict=True):
            p.data.copy_(kept)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert apart(run(resumed, w, grads[stop:]), whole) == 0.0
        assert resumed.state_bytes() == resumed.formula_bytes()


def test_a_state_of_other_options_is_refused() -> None:
    w = matrices((12, 20))
    optimizer = LowRank(w, proj="svd", rank=4)
    run(optimizer, w, gradients([(12, 20)], 1))
    other = LowRank(matrices((12, 20)), proj="svd", rank=8)
    with pytest.raises(ModelError, match=r"rank 4 \(here 8\): go on with these"):
        other.load_state_dict(optimizer.state_dict())
    with pytest.raises(ModelError, match="proj None"):
        other.load_state_dict(torch.optim.AdamW(matrices((12, 20))).state_dict())


def test_a_state_has_tensors_and_nothing_else() -> None:
    w = matrices((12, 20))
    optimizer = LowRank(w, proj="rsvd", rank=4)
    run(optimizer, w, gradients([(12, 20)], 2))
    assert {k: torch.is_tensor(v) for k, v in optimizer.state[w[0]].items()} == dict.fromkeys(
        ("P", "step", "exp_avg", "exp_avg_sq"), True
    )


# gradients that are no good


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("proj", [*BASES, "identity"])
def test_bug_a_nan_gradient_is_skipped_and_counted(proj: str, bad: float) -> None:
    """Also when a new basis is due: the old one stays, and the next good gradient brings the new one."""
    shapes = [(12, 20), (20, 12)]
    grads = gradients(shapes, 8)
    broken = [g.clone() for g in grads[0]]
    broken[1][3, 3] = bad
    w, straight = matrices(*shapes), matrices(*shapes)
    optimizer = LowRank(w, lr=1e-2, proj=proj, rank=4, gap=3, weight_decay=0.1)
    for at in (0, 3, 4, 8):
        before = [p.detach().clone() for p in w]
        run(optimizer, w, [broken])
        assert apart(w, before) == 0.0
        run(optimizer, w, {0: grads[:3], 3: grads[3:4], 4: grads[4:], 8: []}[at])
    assert optimizer.skipped == 4
    whole = run(LowRank(straight, lr=1e-2, proj=proj, rank=4, gap=3, weight_decay=0.1), straight, grads)
    assert apart(w, whole) == 0.0


def test_large_gradients_are_no_fault() -> None:
    w = matrices((12, 20))
    optimizer = LowRank(w, lr=1e-25, proj="svd", rank=4, inner="sgd")  # Adam's squares would overflow, torch's, too
    run(optimizer, w, [[falling(12, 20) * 1e25]])
    assert optimizer.skipped == 0
    assert not torch.equal(w[0], matrices((12, 20))[0])


def test_the_count_survives_a_checkpoint() -> None:
    w = matrices((12, 20))
    optimizer = LowRank(w)
    run(optimizer, w, [[torch.full((12, 20), float("nan"))]])
    other = LowRank(matrices((12, 20)))
    other.load_state_dict(optimizer.state_dict())
    assert other.skipped == 1


@pytest.mark.parametrize("on_switch", ["keep", "reproject", "reset"])
@pytest.mark.parametrize("proj", ["svd", "eigh", "rsvd", "columns"])
def test_bug_a_loss_of_zero_gives_no_basis(proj: str, on_switch: str) -> None:
    w, nothing = matrices((12, 20)), [torch.zeros(12, 20)]
    optimizer = LowRank(w, lr=1e-2, proj=proj, rank=4, gap=2, on_switch=on_switch)
    start = [p.detach().clone() for p in w]
    assert apart(run(optimizer, w, [nothing]), start) == 0.0
    [good] = gradients([(12, 20)], 1)
    run(optimizer, w, [good, good])
    basis = optimizer.state[w[0]]["P"].clone()
    made = run(optimizer, w, [nothing])
    assert torch.equal(optimizer.state[w[0]]["P"], basis)
    assert apart(made, start) > 0
    assert made[0].isfinite().all()


# weights of few bits


def test_bug_pure_bf16_loses_nearly_all_steps() -> None:
    """At a small learning rate only what is written by chance, or from a master copy, moves as it should."""
    steps = 20
    grads = [[g.bfloat16().float() for g in gradients([(64, 64)], 1)[0]]] * steps
    moved = {}
    for write, kind in [("round", None), ("stochastic", None), ("master", None), ("exact", torch.float32)]:
        [start], w = matrices((64, 64), dtype=torch.bfloat16), matrices((64, 64), dtype=torch.bfloat16)
        if kind:
            w = [torch.nn.Parameter(w[0].detach().float())]
        optimizer = LowRank(w, lr=1e-5, proj="svd", rank=16, write="round" if kind else write)
        run(optimizer, w, grads)
        moved[write] = (optimizer.state[w[0]].get("master", w[0]) - start).detach().float()
    assert (moved["round"] != 0).float().mean() < 0.03
    assert torch.allclose(moved["master"], moved["exact"], atol=1e-6)
    along = moved["exact"].flatten() / moved["exact"].square().sum()
    assert float(moved["stochastic"].flatten() @ along) == pytest.approx(1, abs=0.25)
    assert float(moved["round"].flatten() @ along) < 0.25


def test_stochastic_rounding_is_right_on_average_and_exact_where_it_can_be() -> None:
    weights = torch.tensor([1.0, 1.0 + 2**-9, -3.0 - 2**-8, 0.0]).repeat(4000, 1)
    w = [torch.nn.Parameter(torch.zeros(4000, 4, dtype=torch.bfloat16))]
    optimizer = LowRank(w, lr=1.0, inner="sgd")
    w[0].grad = None
    from rankpipe.train.optimizers.lowrank.optimizer import _write

    with torch.no_grad():
        _write(w[0], weights.clone(), optimizer.param_groups[0], 0, 0)
    assert set(w[0][:, 0].tolist()) == {1.0}
    assert set(w[0][:, 3].tolist()) == {0.0}
    assert set(w[0][:, 1].tolist()) == {1.0, 1.0 + 2**-7}
    assert torch.allclose(w[0].float().mean(0), weights[0], atol=2e-3)


def test_bug_bf16_second_moments_stall() -> None:
    """They are in single precision, also after a checkpoint, where torch would cast them to the weights' kind."""
    w = matrices((4, 4), dtype=torch.bfloat16)
    ones = [[torch.ones(4, 4)]]
    optimizer = LowRank(w, lr=0.0, write="round")
    run(optimizer, w, ones * 500)
    other = LowRank(w, lr=0.0, write="round")
    other.load_state_dict(optimizer.state_dict())
    run(other, w, ones * 1000)
    second = other.state[w[0]]["exp_avg_sq"]
    assert second.dtype == torch.float32
    assert float(second[0, 0]) == pytest.approx(1 - 0.999**1500, abs=1e-3)


# what cannot be projected


@pytest.mark.parametrize("shape", [(240,), (0,), (3, 4, 5)])
def test_bug_flattened_parameters_are_refused_with_a_reason(shape: tuple[int, ...]) -> None:
    group = {"params": [torch.nn.Parameter(torch.zeros(shape))], "names": ["layers.0.q_proj.weight"], "proj": "svd"}
    flat = "is flat, as FSDP and DeepSpeed make parameters" if len(shape) == 1 else "is no matrix"
    with pytest.raises(RecipeError, match=f"layers.0.q_proj.weight .*{flat}"):
        LowRank([group])


def test_parameters_spread_over_processes_are_refused() -> None:
    p = torch.nn.Parameter(torch.zeros(4, 4))
    p.placements = ("Shard(0)",)
    with pytest.raises(RecipeError, match="is a DTensor, spread over processes"):
        LowRank([p], proj="rsvd")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"proj": "svdd"}, "proj: 'svdd' is not one of identity, svd"),
        ({"inner": "lion"}, "inner: 'lion'"),
        ({"on_switch": "drop"}, "keep, reproject, reset"),
        ({"write": "up"}, "write: 'up'"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        LowRank(matrices((4, 4)), **options)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="no such options: momentum"):
        LowRank(matrices((4, 4)), momentum=0.9)  # type: ignore[call-arg]


def test_float16_has_no_stochastic_rounding() -> None:
    with pytest.raises(RecipeError, match="float16"):
        LowRank(matrices((4, 4), dtype=torch.float16))


def test_sparse_gradients_are_refused() -> None:
    table = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = LowRank(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ModelError, match="sparse=False"):
        optimizer.step()


@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
@pytest.mark.parametrize("proj", BASES)
def test_bug_a_rank_above_the_shorter_side_is_that_side(proj: str, shape: tuple[int, int]) -> None:
    w = matrices(shape)
    optimizer = LowRank(w, lr=1e-3, proj=proj, rank=128, gap=2, on_switch="reproject")
    run(optimizer, w, gradients([shape], 3))
    assert optimizer.state[w[0]]["exp_avg"].shape == (64, 256)


def test_a_closure_and_schedulers_work() -> None:
    w = matrices((12, 20))
    optimizer = LowRank(w, lr=1.0, inner="sgd")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.1**k)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = w[0].sum()
        loss.backward()
        return loss

    start = w[0].detach().clone()
    assert optimizer.step(closure).item() == pytest.approx(float(start.sum()))
    schedule.step()
    optimizer.step(closure)
    assert torch.allclose(w[0], start - 1.1)


def descend(optimizer: Any, loss: Callable[[], Any], steps: int) -> Any:
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return loss().item()


@pytest.mark.parametrize("inner", RULES)
@pytest.mark.parametrize("proj", [*BASES, "identity"])
def test_every_combination_learns(proj: str, inner: str) -> None:
    [w], target = matrices((24, 32)), falling(24, 32)
    lr = 0.05 if inner != "sgd" else 0.3 if proj == "random" else 1.0  # random directions are no projection
    optimizer = LowRank([w], lr=lr, proj=proj, rank=8, gap=10, inner=inner, on_switch="reset")
    begin = (w - target).square().sum().item()
    assert descend(optimizer, lambda: (w - target).square().sum() / 4, 200) < 0.05 * begin / 4
