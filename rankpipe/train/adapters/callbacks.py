"""What methods do between steps, for any loop: ours, or transformers' Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankpipe.catalog import need

FILE = "adapter_steps.safetensors"  # beside the checkpoint's weights


class Callback:
    """What a method does after each step."""

    def on_step(self, model: Any, optimizer: Any, step: int) -> None:
        """Called after the optimizer's step ``step`` (the first is 1), before gradients are cleared."""
        raise NotImplementedError

    def state(self, model: Any) -> dict[str, Any]:  # noqa: ARG002
        """Tensors by name that, with the adapter's weights, make a resumed run the same as one that went through."""
        return {}

    def rewind(self, model: Any, load: Callable[[], Any]) -> None:
        """Make the base of a model that was trained what it was at the beginning, before an earlier state is restored.

        :param load: loads the base model anew.
        """

    def restore(self, model: Any, state: dict[str, Any]) -> None:
        """Into a model that was adapted as at the beginning, and then had the checkpoint's weights loaded."""


def keep(callbacks: Sequence[Callback], model: Any, folder: str | Path) -> None:
    """Write the state of the callbacks into a checkpoint's folder."""
    named = {f"{i}.{name}": t.contiguous() for i, c in enumerate(callbacks) for name, t in c.state(model).items()}
    need("safetensors.torch", name="adapters", extra="train").save_file(named, str(Path(folder) / FILE))


def resume(callbacks: Sequence[Callback], model: Any, folder: str | Path) -> None:
    """Read it, after the checkpoint's weights are in the model.

    :raises FileNotFoundError: If the folder has none.
    """
    named = need("safetensors.torch", name="adapters", extra="train").load_file(str(Path(folder) / FILE))
    for i, callback in enumerate(callbacks):
        callback.restore(model, {k.partition(".")[2]: v for k, v in named.items() if k.startswith(f"{i}.")})


def for_trainer(callbacks: Sequence[Callback]) -> Any:
    """A ``TrainerCallback`` of transformers that calls them at the right moment, and keeps them in checkpoints.

    Its ``on_optimizer_step`` comes after the step and before gradients are cleared.
    """
    transformers = need("transformers", name="adapters", extra="train")

    class Between(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
            for callback in callbacks:
                callback.on_step(given["model"], given["optimizer"], state.global_step + 1)

        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
            if state.is_world_process_zero:
                keep(callbacks, given["model"], Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Between()
