"""Tunes recipes under FSDP2 or DeepSpeed on CPUs, in processes that accelerate launched: ``sharded.py FOLDER ...``.

accelerate turns FSDP on only where there are GPUs (``AcceleratorState.__init__``). Here it is turned on as it does it
there; all that comes after is accelerate's and torch's own code, over gloo. Each recipe is then tuned again as if it
had been killed, while it wrote its last checkpoint and before it published, and comes to the same weights, to the bit.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import state
from tuned import tensors

from rankpipe.train.tuning import Tuning


def on_cpus() -> None:
    """Let accelerate do on CPUs what it does on GPUs."""
    begin = state.AcceleratorState.__init__

    def begun(self: Any, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
        begin(self, *args, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None and self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    state.AcceleratorState.__init__ = begun


class Parts(transformers.TrainerCallback):
    """Sees that this process has half of the numbers or less, but for those of which there are too few."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **given: Any) -> None:
        """After each step."""
        parts = [(p.to_local().numel(), p.numel()) for p in model.parameters()]
        assert sum(part for part, _ in parts) < 0.51 * sum(whole for _, whole in parts)


def tuned(folder: Path, fsdp: bool) -> dict[str, Any]:
    """What a recipe makes."""
    if fsdp:
        state.AcceleratorState._reset_state()  # a recipe a process, but for tests
    Tuning(folder).run(callbacks=[Parts()] if fsdp else [])
    return tensors(folder)


def main(folders: Sequence[Path], fsdp: bool) -> None:
    """Tune each of them three times."""
    if fsdp:
        on_cpus()
    for folder in folders:
        made = tuned(folder, fsdp)
        assert [*folder.glob(f"kept/*/checkpoints/checkpoint-6/{'pytorch_model_fsdp_0' if fsdp else 'global_step6'}")]
        for gone in ("kept/*/checkpoints/checkpoint-6/whole", "made"):
            torch.distributed.barrier()
            if torch.distributed.get_rank() == 0:
                [path] = folder.glob(gone)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            torch.distributed.barrier()
            assert all(torch.equal(v, made[k]) for k, v in tuned(folder, fsdp).items()), (folder, gone)


if __name__ == "__main__":
    main([*map(Path, sys.argv[1:])], os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true")
