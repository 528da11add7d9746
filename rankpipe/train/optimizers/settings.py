"""What all optimizers say alike, and how a model's parameters are sorted into groups for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from rankpipe.catalog import near, require
from rankpipe.errors import RecipeError
from rankpipe.train.optimizers.groups import Placed, sort


@dataclass(frozen=True)
class Settings:
    """An optimizer, not yet over any model.

    :param lr: the learning rate.
    :param weight_decay: how much of itself a weight loses at a step, times ``lr``; norms and biases never do.
    :param head_lr: the learning rate of the score head; None is ``lr``, or what an adapter makes of that.
    :raises RecipeError: If a number is out of its range, or a name is none of those there are.
    :raises MissingExtra: If torch is not installed.
    """

    lr: float = 5e-5
    weight_decay: float = 0.0
    head_lr: float | None = None

    elementwise: ClassVar[bool] = False  # a number's step does not depend on the others of its matrix

    def __post_init__(self) -> None:
        require("torch", name=type(self).__name__, extra="train")
        if faults := [*self._faults()]:
            raise RecipeError(faults)

    def over(self, model: Any, *, accumulation: int = 1, max_grad_norm: float = 0.0) -> Any:  # noqa: ARG002
        """A ``torch.optim.Optimizer`` of the model's parameters.

        :param accumulation: backward passes that make one step.
        :param max_grad_norm: the norm that the trainer clips all gradients to, together; 0 if it does not.
        :raises RecipeError: If it cannot be done with this model, or as the trainer wants it; says why.
        """
        self.clipped_to(max_grad_norm)
        return self._made(model)

    def clipped_to(self, max_grad_norm: float) -> None:
        """Refuse a trainer that clips gradients so, if that cannot be.

        :raises RecipeError: Says what can.
        """

    def report(self, model: Any) -> list[Placed]:
        """Each trainable parameter with its group, and why it is in that one."""
        return sort(model)

    def formula_bytes(self, model: Any) -> int:
        """What the state over this model will take once every parameter has had a gradient."""
        return int(self._made(model).formula_bytes())

    def _made(self, model: Any) -> Any:
        raise NotImplementedError

    def _groups(self, model: Any) -> list[dict[str, Any]]:
        """The parameters by group: decay or none, head or body, projected or not."""
        by_group: dict[tuple[bool, bool, bool], list[Placed]] = {}
        for placed in self.report(model):
            by_group.setdefault((placed.projected, placed.decays, placed.head), []).append(placed)
        return [
            {
                "params": [p.parameter for p in members],
                "names": [p.name for p in members],
                "lr": self.head_lr if head and self.head_lr is not None else self.lr,
                "weight_decay": self.weight_decay if decays else 0.0,
                "paced": not head or self.head_lr is None,  # an adapter may say how fast
                **self._of_group(projected),
            }
            for (projected, decays, head), members in by_group.items()
        ]

    def _of_group(self, projected: bool) -> dict[str, Any]:  # noqa: ARG002
        """What else a group says."""
        return {}

    def _faults(self) -> Sequence[str]:
        hints = get_type_hints(type(self))
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        numbers = {k: v for k, v in values.items() if k in (*NOT_NEGATIVE, *POSITIVE) and v is not None}
        if words := [f"{k}={v}: expected a number" for k, v in numbers.items() if not isinstance(v, int | float)]:
            return words
        found = [
            f"{k}={v}: must be 0 or more" for k, v in values.items() if k in NOT_NEGATIVE and v is not None and v < 0
        ]
        found += [f"{k}={v}: must be 1 or more" for k, v in values.items() if k in POSITIVE and v < 1]
        if "betas" in values and not (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)):  # type: ignore[attr-defined]
            found += [f"betas={values['betas']}: two numbers from 0 to below 1"]
        for name, hint in hints.items():
            if get_origin(hint) is Literal and values.get(name) not in (known := get_args(hint)):
                cure = near(str(values[name]), list(known)) or f"; it is one of {', '.join(known)}"
                found += [f"{name}: no {values[name]!r}{cure}"]
        return found


NOT_NEGATIVE = ("lr", "weight_decay", "head_lr", "eps", "scale")
POSITIVE = ("rank", "gap")
