"""What models share that transformers runs in this process: loading, batches of like lengths, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.progress import track
from rankpipe.weights import quiet

T = TypeVar("T")


def loaded(kind: Any, folder: Path, *before: Any, **options: Any) -> Any:
    """``kind.from_pretrained(*before, folder, **options)``, in silence.

    :raises ModelError: If the folder does not hold one; says what is wrong.
    """
    try:
        with quiet():
            return kind.from_pretrained(*before, folder, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {kind.__name__} cannot load it: {error}") from error


def batched(lengths: Sequence[int], max_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Positions of ``lengths``, the longest first (so that memory runs out at once or never), in batches that hold
    no more than ``batch_tokens`` tokens with padding and replies.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        widest = lengths[batches[-1][0]] if batches else 0
        if batches and (len(batches[-1]) + 1) * (widest + max_tokens) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def in_batches(
    texts: Sequence[list[int]],
    work: Callable[[Sequence[int]], list[T]],
    batch_tokens: int,
    name: str,
    more: int = 0,
    groups: Sequence[Sequence[int]] = (),
) -> list[T]:
    """What ``work`` makes of each text's tokens, in their order; it is given the positions of one batch at a time.

    :param name: the model's.
    :param more: tokens that are added to each text.
    :param groups: which texts may be in one batch, if not all.
    :raises ModelError: If a batch does not fit into the memory.
    """
    torch = need("torch", name="this model", extra="lm")
    made: dict[int, T] = {}
    batches = [
        [group[i] for i in batch]
        for group in groups or [range(len(texts))]
        for batch in batched([len(texts[i]) for i in group], more, batch_tokens)
    ]
    for batch in track(batches, f"{name}: batches"):
        try:
            with quiet(), torch.inference_mode():
                made.update(zip(batch, work(batch), strict=True))
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{name}: {len(batch)} texts of up to {len(texts[batch[0]])} tokens do not fit into the memory; "
                f"lower batch_tokens (now {batch_tokens})"
            ) from error
    return [made[i] for i in range(len(texts))]
