"""What all adapters say alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from rankpipe.catalog import need, require
from rankpipe.errors import RecipeError
from rankpipe.train.adapters.callbacks import Callback
from rankpipe.train.adapters.factors import save_as_lora
from rankpipe.train.adapters.targets import ALL, Spread, spread
from rankpipe.train.optimizers.adamw import AdamW
from rankpipe.train.optimizers.groups import is_head

Batches = Iterable[Mapping[str, Any]]
Loss = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Report:
    """What is trained."""

    by_kind: Mapping[str, int]  # lora_A, lora_B, ..., score head: numbers
    total: int  # of the whole model, adapter included

    @property
    def trainable(self) -> int:
        """Numbers that move."""
        return sum(self.by_kind.values())

    @property
    def share(self) -> float:
        """Of all."""
        return self.trainable / self.total

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.by_kind.items())
        return f"trains {self.trainable:,} of {self.total:,} numbers ({self.share:.2%}): {kinds}"


@dataclass(frozen=True)
class Adapter:
    """An adapter, not yet on any model.

    :param rank: of the update of each layer.
    :param alpha: the update is times ``alpha / rank``.
    :param targets: ``all-linear``, or linear layers by the exact name of a module (q_proj) or its whole path, in which
        ``*`` is any one part (model.layers.*.mlp.up_proj). Never the score head, which is trained and saved in full.
    :param dropout: of what goes into the adapter.
    :param seed: of what is random at the beginning; None is that of ``training`` in a recipe, and 0 elsewhere.
    :raises RecipeError: If a number is out of its range.
    :raises MissingExtra: If peft is not installed.
    """

    rank: int = 16
    alpha: float = 32
    targets: str | Sequence[str] = ALL
    dropout: float = 0.0
    seed: int | None = None

    only_lora: ClassVar[bool] = False  # cannot be saved but as a LoRA
    on_meta: ClassVar[bool] = False  # has no numbers before _begin makes them
    by_loss: ClassVar[bool] = False  # calibration is of what the loss takes, not only the model
    averages: ClassVar[bool] = True  # the mean of its weights after several steps means something
    quantised: ClassVar[bool] = True  # can be over a base of few bits
    in_parts: ClassVar[bool] = True  # each process may have a part of its weights, or of their gradients

    def __post_init__(self) -> None:
        require("peft", name=self.method_name, extra="train")
        if faults := [*self._faults()]:
            raise RecipeError(faults)

    @property
    def method_name(self) -> str:
        """For errors."""
        return type(self).__name__.lower()

    def apply(
        self, model: Any, *, calibration: Batches | None = None, loss: Loss | None = None, steps: int | None = None
    ) -> Any:
        """The model with this adapter, a ``PeftModel``; the model itself is changed.

        :param calibration: batches of the model's arguments, for a method that looks at data before it begins.
        :param loss: of the model and such a batch, for a method that looks at gradients; None is the model's own.
        :param steps: of the whole training, for a method that has a schedule.
        :raises RecipeError: If it cannot be done with this model; says why.
        """
        if faults := [*self._lacks(calibration, steps)]:
            raise RecipeError(faults)
        if getattr(model, "is_quantized", False):
            self.refuse_quantised(8 if getattr(model, "is_loaded_in_8bit", False) else 4)
        peft = need("peft", name=self.method_name, extra="train")
        where = spread(model, self.targets, self.method_name)
        _prepare(peft, model)
        ready = self._before(model, where, calibration, loss)
        with _seeded(self.seed or 0):
            made = peft.get_peft_model(model, self._config(peft, where, steps), low_cpu_mem_usage=self.on_meta)
            self._begin(made, ready, calibration)
        return made

    def refuse_quantised(self, bits: int) -> None:  # noqa: ARG002
        """Refuse a base that is quantised, if this cannot be over it.

        :param bits: of its weights.
        :raises RecipeError: Says what can be.
        """
        if not self.quantised:
            cure = "say dtype: bfloat16, or another adapter, such as lora"
            raise RecipeError([f"{self.method_name}: needs weights in full, and the base is quantised; {cure}"])

    def callbacks(self) -> list[Callback]:
        """What is to be done after each step, before gradients are cleared."""
        return []

    def extra_loss(self, model: Any) -> Any:  # noqa: ARG002
        """What is added to the loss, whoever made that; None if nothing is."""
        return None

    def rate(self, name: str) -> float:  # noqa: ARG002
        """What the learning rate of a parameter is times, by its name."""
        return 1.0

    def warmth(self, step: int) -> float:  # noqa: ARG002
        """What all learning rates are times at a step, on top of the trainer's schedule; steps count from 1."""
        return 1.0

    def groups(
        self, model: Any, lr: float, *, weight_decay: float = 0.0, head_lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Groups of parameters for any ``torch.optim.Optimizer``, each with its own learning rate.

        The score head has its own groups, with ``head_lr``; if that is None, ``lr`` times what this method says.
        """
        optimizer = AdamW(lr=lr, weight_decay=weight_decay, head_lr=head_lr, fused=False).over(model)
        self.pace(optimizer)
        return [{k: group[k] for k in ("params", "names", "lr", "weight_decay")} for group in optimizer.param_groups]

    def pace(self, optimizer: Any) -> None:
        """Give an optimizer of ours, before its first step, this method's learning rates: groups are split, but not
        those of the score head if it has a ``head_lr``.
        """
        for group in [group for group in optimizer.param_groups if group["paced"]]:
            named = [*zip(group["names"], group["params"], strict=True)]
            rates = dict.fromkeys(self.rate(name) for name, _ in named)
            parts = {rate: [(n, p) for n, p in named if self.rate(n) == rate] for rate in rates}
            lr, rest = group["lr"], {k: v for k, v in group.items() if k not in ("params", "names", "lr")}
            for index, (rate, members) in enumerate(parts.items()):
                own = {"params": [p for _, p in members], "names": [n for n, _ in members], "lr": lr * rate}
                if index:
                    optimizer.add_param_group(rest | own)
                else:
                    group.update(own)

    def may_end(self, model: Any, step: int) -> bool:  # noqa: ARG002
        """Whether what there is after a step is of the size that was asked for, and may come out of the training."""
        return True

    def report(self, model: Any) -> Report:
        """What is trained: how many numbers of which kind, and of how many."""
        prefix = model.base_model.prefix
        kinds: dict[str, int] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                kind = _kind(name, prefix)
                kinds[kind] = kinds.get(kind, 0) + p.numel()
        return Report(kinds, model.get_nb_trainable_parameters()[1])

    def save(self, model: Any, folder: str | Path, *, as_lora: bool = False) -> None:
        """Write the adapter and the score head as PEFT does, for ``PeftModel.from_pretrained`` and others.

        :param as_lora: as a plain LoRA of one rank, which vLLM reads, too. Some methods are saved so in any case.
        :raises RecipeError: If that cannot be: DoRA's and RandLoRA's updates are not of low rank.
        """
        if as_lora or self.only_lora:
            save_as_lora(model, folder)
        else:
            model.save_pretrained(str(folder), save_embedding_layers=False)

    def _config(self, peft: Any, where: Spread, steps: int | None) -> Any:
        """PEFT's own of this method."""
        raise NotImplementedError

    def _before(self, model: Any, where: Spread, calibration: Batches | None, loss: Loss | None) -> Any:  # noqa: ARG002
        """What must be seen of the model before it has an adapter."""
        return None

    def _begin(self, model: Any, ready: Any, calibration: Batches | None) -> None:
        """What PEFT does not do at the beginning."""

    def _lacks(self, calibration: Batches | None, steps: int | None) -> Iterator[str]:  # noqa: ARG002
        """What ``apply`` was not given."""
        return iter(())

    def _faults(self) -> Iterator[str]:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in POSITIVE and value is not None and not value >= 1:
                yield f"{field.name}={value}: must be 1 or more"
            if field.name in ABOVE_ZERO and not value > 0:
                yield f"{field.name}={value}: must be more than 0"
            if field.name in NOT_NEGATIVE and value < 0:
                yield f"{field.name}={value}: must be 0 or more"
        if not 0 <= self.dropout < 1:
            yield f"dropout={self.dropout}: must be from 0 to below 1"


POSITIVE = ("rank", "begin_rank", "every", "stages", "ratio", "spread")
ABOVE_ZERO = ("alpha", "first")
NOT_NEGATIVE = ("warmup", "deviation", "orthogonality")


def _kind(name: str, prefix: str) -> str:
    if is_head(name):
        return "score head"
    if "parametrizations" in name.split("."):
        return "inner"
    return next((part for part in name.split(".") if part.startswith(prefix)), "other")


def _prepare(peft: Any, model: Any) -> None:
    """A quantised base: norms in single precision, inputs that pass gradients on.

    On a CPU, bitsandbytes (0.50) packs four-bit weights when they are first evaluated, and goes on with a kernel that
    has no gradient; it is kept from that.
    """
    if getattr(model, "is_quantized", False):
        peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    torch = need("torch", name="an adapter", extra="train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
