"""The plainest adapter: PEFT's own LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankpipe.catalog import need, require
from rankpipe.errors import RecipeError


@dataclass(frozen=True)
class LoRA:
    """LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) by PEFT.

    :param rank: of the update of each layer.
    :param alpha: the update is times ``alpha / rank``.
    :param targets: ``all-linear``, or linear layers by name.
    :param dropout: of what goes into the adapter.
    :param seed: of what is random at the beginning.
    :raises RecipeError: If ``rank`` is below 1.
    :raises MissingExtra: If peft is not installed.
    """

    rank: int = 16
    alpha: float = 32
    targets: str | Sequence[str] = "all-linear"
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require("peft", name="lora", extra="train")
        if self.rank < 1:
            raise RecipeError([f"rank={self.rank}: must be 1 or more"])

    def apply(self, model: Any, *, steps: int | None = None) -> Any:  # noqa: ARG002
        """The model with this adapter, a ``PeftModel``."""
        torch, peft = (need(name, name="lora", extra="train") for name in ("torch", "peft"))
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        kind = "SEQ_CLS" if hasattr(model, "score") or hasattr(model, "classifier") else None
        config = peft.LoraConfig(
            task_type=kind, r=self.rank, lora_alpha=self.alpha, target_modules=targets, lora_dropout=self.dropout
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return peft.get_peft_model(model, config)

    def extra_loss(self, model: Any) -> Any:  # noqa: ARG002
        """Nothing is added to the loss."""
        return None

    def pace(self, optimizer: Any) -> None:
        """All parameters have one learning rate."""

    def save(self, model: Any, folder: Path) -> None:
        """In PEFT's layout."""
        model.save_pretrained(str(folder), save_embedding_layers=False)
