"""The optimizers under those who will call them: transformers' Trainer, two processes, a real model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

from rankpipe.train.optimizers.arguments import asked  # noqa: E402
from rankpipe.train.optimizers.galore import GaLore  # noqa: E402

ROOT = Path(__file__).parents[2]


def trainer(folder: Path, **more: Any) -> Any:
    """Six steps of two batches each, a checkpoint after three."""
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    settings: dict[str, Any] = {
        "learning_rate": 1e-2, "weight_decay": 0.1, "adam_beta2": 0.99,
        "optim_args": "rank=4,update_proj_gap=2,scale=1.0",
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 6, "save_steps": 3,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }  # fmt: skip
    args = transformers.TrainingArguments(output_dir=str(folder), **(settings | more))
    optimizer = asked(args).over(model, accumulation=args.gradient_accumulation_steps, max_grad_norm=args.max_grad_norm)
    ids = torch.randint(0, 32, (40, 8), generator=torch.Generator().manual_seed(1)).tolist()
    rows = [{"input_ids": row, "labels": row} for row in ids]
    return transformers.Trainer(model, args, train_dataset=rows, optimizers=(optimizer, None))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("optim", ["galore_adamw", "galore_adamw_layerwise", "apollo_adamw"])
def test_bug_trainer_cannot_resume(optim: str, tmp_path: Path) -> None:
    """Killed after a checkpoint and resumed, the weights are those of a run that went through, to the bit."""
    more: dict[str, Any] = {"optim": optim, "max_grad_norm": 0.0 if optim.endswith("layerwise") else 1.0}
    whole = trainer(tmp_path / "whole", **more)
    whole.train()
    assert whole.state.global_step == 6
    again = trainer(tmp_path / "again", **more)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_trainer_moves_layer_by_layer_as_it_does_at_once(tmp_path: Path) -> None:
    made = []
    for optim in ("galore_adamw", "galore_adamw_layerwise"):
        it = trainer(tmp_path / optim, optim=optim, max_grad_norm=0.0)
        it.train()
        made.append([p.detach() for p in it.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


TWO = """
import os, sys, torch
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 12))
batches = torch.randn(9, 8, 12)
from rankpipe.train.optimizers.galore import GaLore
both = torch.nn.parallel.DistributedDataParallel(model)
optimizer = GaLore(lr=1e-2, rank=4, gap=3, proj=sys.argv[3], seed=rank).over(model)
torch.manual_seed(100 + rank)
for x in batches:
    optimizer.zero_grad()
    both(x[rank * 4 : rank * 4 + 4]).square().mean().backward()
    optimizer.step()
torch.save(model.state_dict(), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.parametrize("proj", ["rsvd", "svd", "columns"])
def test_two_processes_have_one_basis(proj: str, tmp_path: Path) -> None:
    """The first one's, even where their seeds differ; and step as one process with all the batches does."""
    command = [sys.executable, "-c", TWO]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    two = [subprocess.Popen([*command, str(rank), str(tmp_path), proj], env=env) for rank in (0, 1)]
    assert [process.wait() for process in two] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[k], other[k]) for k in one)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 12))
    batches = torch.randn(9, 8, 12)
    optimizer = GaLore(lr=1e-2, rank=4, gap=3, proj=proj).over(model)  # type: ignore[arg-type]
    for x in batches:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for k, alone in model.state_dict().items():
        assert torch.allclose(alone, one[k], atol=1e-4)


def test_on_smollm2_the_memory_is_the_papers_and_warm_bases_lose_little(embedded: Callable[[str], Path]) -> None:
    from rankpipe.train.optimizers.lowrank.projections import PROJECTIONS, drawing

    model = transformers.AutoModelForCausalLM.from_pretrained(embedded("smollm2"), dtype=torch.float32)
    targets = ["model.layers.15.mlp.down_proj", "model.layers.0.self_attn.q_proj"]
    d, kv, ff, layers, words, r = 576, 192, 1536, 30, 49_152, 128
    low = sum(many * (r * m + 2 * r * n) for many, m, n in [(2, d, d), (2, kv, d), (3, d, ff)])
    rest = 2 * (words * d + (2 * layers + 1) * d)
    assert GaLore().formula_bytes(model) == 4 * (layers * low + rest + len(list(model.parameters())))
    optimizer = GaLore(lr=1e-5, targets=targets).over(model)
    grads = []
    for seed in (0, 1):
        ids = torch.randint(0, 49_000, (1, 512), generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        grads.append([model.get_submodule(t).weight.grad.clone() for t in targets])
        optimizer.step()
    assert optimizer.state_bytes() == optimizer.formula_bytes()
    svd, rsvd = PROJECTIONS["svd"], PROJECTIONS["rsvd"]
    assert svd is not None
    assert rsvd is not None
    for one, two in zip(*grads, strict=True):
        cold = rsvd.fit(one, None, 128, drawing(0, 0, 0))
        warm, best = rsvd.fit(two, cold, 128, drawing(0, 0, 1)), svd.fit(two, None, 128, drawing(0, 0, 1))
        assert (warm.T @ two).norm() ** 2 > 0.95 * (best.T @ two).norm() ** 2
