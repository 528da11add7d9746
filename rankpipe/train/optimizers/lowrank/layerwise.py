"""Each parameter moves as soon as its gradient is there, which is then freed: never are all gradients held at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from rankpipe.errors import ModelError, RecipeError
from rankpipe.train.optimizers.lowrank.optimizer import LowRank


class LayerWise:
    """Makes an optimizer's parameters move inside ``backward()``. ``step()`` then only ends the step.

    The same weights come out as of ordinary steps, to the bit, by the learning rate that holds while ``backward()``
    runs; state, checkpoints and resuming are the optimizer's own. ``grad_norm`` is the norm of the last step's
    gradients, before clipping; a gradient that is not finite leaves its own parameter as it was, and is counted.

    :param accumulation: backward passes that make one step. Until the last of them gradients have to be kept, so that
        with more than one the memory is saved only in part. ``step()`` takes what is left of an incomplete step.
    :param clip: the largest norm of each parameter's gradient, by itself: not that of all gradients together, which
        is known only when the first weights have long moved.
    :raises RecipeError: With several processes, whose gradients are averaged too late for this.
    """

    def __init__(self, optimizer: LowRank, accumulation: int = 1, clip: float | None = None) -> None:
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several and torch.distributed.get_world_size() > 1:
            raise RecipeError(
                ["layerwise: gradients of several processes are averaged after they were used; say layerwise: false"]
            )
        self.optimizer, self.accumulation, self.clip = optimizer, accumulation, clip
        self.grad_norm = 0.0
        self._arrivals: Counter[Tensor] = Counter()  # since the last step
        self.squares = 0.0  # of the gradients used since then, summed
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self._hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in params]
        self._hooks += [optimizer.register_step_pre_hook(self._rest), optimizer.register_step_post_hook(self._ended)]

    def remove(self) -> None:
        """Ordinary steps again."""
        for hook in self._hooks:
            hook.remove()

    def _arrived(self, p: Tensor) -> None:
        self._arrivals[p] += 1
        if self._arrivals[p] > self.accumulation:
            raise ModelError(
                f"layerwise: gradient {self._arrivals[p]} of a parameter {tuple(p.shape)} before step(), of "
                f"accumulation={self.accumulation}: say how many backward passes make a step, and checkpoint without "
                "use_reentrant"
            )
        if self._arrivals[p] == self.accumulation:
            self._use(p)

    def _use(self, p: Tensor) -> None:
        norm = self.optimizer.update([p], self.clip)
        self.squares += norm**2
        p.grad = None

    def _rest(self, *_: Any) -> None:
        """Parameters whose gradients are incomplete: the last batch of an epoch."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._use(p)

    def _ended(self, *_: Any) -> None:
        self.grad_norm, self.squares = self.squares**0.5, 0.0
        self._arrivals.clear()
