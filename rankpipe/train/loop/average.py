"""The moving average of weights that are being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

FILE = "average.safetensors"


class Average:
    """The moving average of all weights that are trained, in single precision."""

    def __init__(self, model: Any, kept: float) -> None:
        self.kept = kept
        self._own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.held = {name: p.detach().float().clone() for name, p in self._own.items()}

    def update(self) -> None:
        """After a step."""
        for name, p in self._own.items():
            self.held[name].lerp_(p.detach().float(), 1 - self.kept)

    def put(self) -> None:
        """Into the model, for good."""
        for name, p in self._own.items():
            p.detach().copy_(self.held[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Into the model, for as long as the block lasts."""
        own = {name: p.detach().clone() for name, p in self._own.items()}
        self.put()
        try:
            yield
        finally:
            for name, p in self._own.items():
                p.detach().copy_(own[name])

    def save(self, checkpoint: Path) -> None:
        """Beside a checkpoint's weights."""
        save_file(self.held, str(checkpoint / FILE))

    def load(self, checkpoint: Path) -> None:
        """That of a checkpoint."""
        for name, value in load_file(str(checkpoint / FILE)).items():
            self.held[name].copy_(value)
