"""AdaLoRA (Zhang et al. 2023, https://arxiv.org/abs/2303.10512): ranks are taken from where they do least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.train.adapters.adapter import Adapter, Batches
from rankpipe.train.adapters.callbacks import Callback
from rankpipe.train.adapters.factors import NAME, layers
from rankpipe.train.adapters.targets import Spread


@dataclass(frozen=True)
class AdaLoRA(Adapter):
    """An update ``P diag(E) Q`` whose ranks fall from ``begin_rank`` to ``rank`` a layer on average (PEFT's own).

    Its callback must be called after every step: PEFT leaves that to the loop, and transformers' Trainer forgets it.
    That P and Q stay orthonormal is asked for by ``extra_loss``, whoever made the loss; PEFT adds it only to a loss
    that the model made. A checkpoint keeps all ranks; what is saved at the end has those that are left.

    :param begin_rank: of each layer at the beginning.
    :param warm: the share of steps before ranks are taken.
    :param settle: the share of steps at the end in which none is.
    :param every: steps from one allocation to the next.
    :param orthogonality: the weight of ``extra_loss``.
    """

    rank: int = 8
    begin_rank: int = 12
    warm: float = 0.1
    settle: float = 0.3
    every: int = 10
    orthogonality: float = 0.5

    averages: ClassVar[bool] = False  # ranks that are gone would be there again
    in_parts: ClassVar[bool] = False  # scores are of whole gradients

    def callbacks(self) -> list[Callback]:
        """Ranks are taken after each step."""
        return [Allocation()]

    def extra_loss(self, model: Any) -> Any:
        """The mean distance of P'P and QQ' from 1, times ``orthogonality``."""
        torch = need("torch", name="adalora", extra="train")
        grams = []
        for _, layer in layers(model):
            a, b = layer.lora_A[NAME], layer.lora_B[NAME]
            grams += [a @ a.T, b.T @ b]
        apart = [torch.linalg.norm(gram - torch.eye(len(gram)).to(gram)) for gram in grams]
        return self.orthogonality * torch.stack([d.to(apart[0].device) for d in apart]).mean()

    def may_end(self, model: Any, step: int) -> bool:
        """Once the ranks are fixed."""
        return step >= _fixed(model.peft_config[NAME])

    def save(self, model: Any, folder: str | Path, *, as_lora: bool = False) -> None:
        """Write the adapter with the ranks that are left.

        :raises ModelError: If they are more than was asked for.
        """
        config, left, budget = model.peft_config[NAME], kept(model), model.base_model.rankallocator.target_bgt
        if (ranks := sum(map(sum, left.values()))) > budget:
            raise ModelError(
                f"adalora: {ranks} ranks are left, and rank={self.rank} asks for {budget}: train to the end"
            )
        try:
            config.rank_pattern = {name: _one(ranks) for name, ranks in left.items()}
            super().save(model, folder, as_lora=as_lora)
        finally:
            config.rank_pattern = None

    def _config(self, peft: Any, where: Spread, steps: int | None) -> Any:
        total = steps or 0
        return peft.AdaLoraConfig(
            init_r=self.begin_rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            tinit=int(self.warm * total),
            tfinal=int(self.settle * total),
            deltaT=self.every,
            total_step=total,
            orth_reg_weight=0.0,  # ours, by extra_loss: never twice
            target_modules=[*where.names],
            modules_to_save=[*where.heads] or None,
            lora_dropout=self.dropout,
            task_type=where.task,
        )

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        if not steps:
            yield "adalora: needs steps, how many the whole training has"
        elif int(self.warm * steps) + int(self.settle * steps) >= steps - 1:
            yield f"adalora: {steps} steps leave none in which ranks are taken; lower warm and settle"

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.begin_rank <= self.rank:
            yield f"begin_rank={self.begin_rank}: must be more than rank={self.rank}, or none is taken"
        if not (self.warm >= 0 and self.settle >= 0 and self.warm + self.settle < 1):
            yield f"warm={self.warm}, settle={self.settle}: shares of the steps, together below 1"


def kept(model: Any) -> dict[str, list[bool]]:
    """Which ranks are left, by the name of the singular values: those not 0. What is 0 has no part in the update."""
    return {
        name: (p.detach() != 0).view(-1).tolist()
        for name, p in model.base_model.model.named_parameters()
        if "lora_E" in name.split(".")
    }


def _fixed(config: Any) -> int:
    """The last step on which ranks are taken."""
    return int(config.total_step - config.tfinal)


def _one(ranks: list[bool]) -> list[bool]:
    """The same, but at least one: PEFT does not load a layer that has none. It is 0, so nothing changes."""
    return ranks if any(ranks) else [True, *ranks[1:]]


class Allocation(Callback):
    """Takes ranks away; the pattern of those left is kept out of PEFT's config until the end, so that runs resume."""

    def __init__(self) -> None:
        self.pattern: dict[str, list[bool]] = {}

    def on_step(self, model: Any, optimizer: Any, step: int) -> None:  # noqa: ARG002
        """Scores, and on some steps the mask; nothing on a step that was not made, as a gradient was not finite.

        :raises ModelError: If a gradient is gone, or the step that fixed the ranks, or any before it, was not seen.
        """
        inner, allocator, config = model.base_model.model, model.base_model.rankallocator, model.peft_config[NAME]
        last = _fixed(config)
        if step > last:
            if not self.pattern:
                raise ModelError(
                    f"adalora: step {last}, which fixes the ranks, was not seen: resume the callbacks, too"
                )
            allocator.mask_using_rank_pattern(inner, self.pattern)
            return
        if step < last:
            blind = [n for n, p in inner.named_parameters() if "lora_" in n and p.grad is None]
            if blind:
                raise ModelError(f"adalora: {blind[0]} has no gradient: call on_step before they are cleared")
            if not all(bool(p.grad.isfinite().all()) for p in inner.parameters() if p.grad is not None):
                return  # running means would never be numbers again
        elif not allocator.exp_avg_ipt:
            raise ModelError(f"adalora: no step before {step}, which fixes the ranks, had gradients that are finite")
        _, pattern = allocator.update_and_allocate(inner, step, force_mask=step == last)
        self.pattern = pattern or self.pattern
        if step == last:
            allocator.reset_ipt()

    def state(self, model: Any) -> dict[str, Any]:
        """The running means of the scores."""
        allocator = model.base_model.rankallocator
        means = {"mean": allocator.exp_avg_ipt, "doubt": allocator.exp_avg_unc}
        return {f"{kind}.{name}": t for kind, by_name in means.items() for name, t in by_name.items()}

    def restore(self, model: Any, state: dict[str, Any]) -> None:
        """The same, and the ranks that are left in the weights."""
        self.pattern = kept(model)
        allocator = model.base_model.rankallocator
        of = dict(model.base_model.model.named_parameters())
        for key, value in state.items():
            kind, _, name = key.partition(".")
            target = allocator.exp_avg_ipt if kind == "mean" else allocator.exp_avg_unc
            target[name] = value.to(of[name].device)
            allocator.ipt[name] = value.new_zeros(value.shape).to(of[name].device)
