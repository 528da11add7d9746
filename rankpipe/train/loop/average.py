"""The moving average of weights that are being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from rankpipe.train.loop.sharded import alike

FILE = "average.safetensors"


class Average:
    """The moving average of all weights that are trained, in single precision; of its own part of them, where a process
    has no more.

    :param model: what is averaged, from :meth:`begin` on; its weights may be shared out before.
    """

    def __init__(self, model: Any, kept: float) -> None:
        self.model, self.kept = model, kept

    @property
    def _own(self) -> dict[str, Any]:
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    @cached_property
    def held(self) -> dict[str, Any]:
        """By name; the weights themselves at the beginning."""
        return {name: p.float().clone() for name, p in self._own.items()}

    def begin(self) -> None:
        """Before the first step."""
        self.held  # noqa: B018

    def update(self) -> None:
        """After a step."""
        for name, p in self._own.items():
            self.held[name].lerp_(p.float(), 1 - self.kept)

    def put(self) -> None:
        """Into the model, for good."""
        for name, p in self._own.items():
            p.copy_(self.held[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Into the model, for as long as the block lasts."""
        own = {name: p.clone() for name, p in self._own.items()}
        self.put()
        try:
            yield
        finally:
            for name, p in self._own.items():
                p.copy_(own[name])

    def save(self, checkpoint: Path, *, here: bool) -> None:
        """Beside a checkpoint's weights.

        :param here: whether this process writes; all take part, if each has a part.
        """
        whole = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in self.held.items()}
        if here:
            save_file(whole, str(checkpoint / FILE))

    def load(self, checkpoint: Path) -> None:
        """That of a checkpoint."""
        for name, value in load_file(str(checkpoint / FILE)).items():
            own = self.held[name]
            own.copy_(alike(value, own))
