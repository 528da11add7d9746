"""What models share that transformers runs in this process: loading, batches of like lengths, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.progress import counting, done
from rankpipe.weights import quiet

T = TypeVar("T")
PASS = 64  # tokens: what one more forward pass costs on a CPU (SmolLM2, bfloat16: between 32 and 64)
FEWEST = 10**9  # a pass costs more than any padding


class Adapter(NamedTuple):
    """A folder of PEFT's, and what is in it in a few letters: it may be written anew."""

    folder: Path
    identity: str


def loaded(kind: Any, folder: Path, *before: Any, **options: Any) -> Any:
    """``kind.from_pretrained(*before, folder, **options)``, in silence.

    :raises ModelError: If the folder does not hold one; says what is wrong.
    """
    with loading(folder, kind):
        return kind.from_pretrained(*before, folder, **options)


@contextmanager
def loading(folder: Path, kind: Any) -> Iterator[None]:
    """Inside, a class of transformers or PEFT loads a folder, in silence.

    :raises ModelError: If the folder does not hold one, or an adapter of another model; says what is wrong.
    """
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: {kind.__name__} cannot load it: {error}") from error


def whole(
    kind: Any, folder: Path, *, name: str = "", cure: str = "is it another kind of model?", **options: Any
) -> Any:
    """A model as :func:`loaded`, all of whose weights are in its files.

    :param name: what the user calls it, if not the folder.
    :raises ModelError: If some are not: transformers would draw them at random.
    """
    model, told = loaded(kind, folder, local_files_only=True, output_loading_info=True, **options)
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"{name or folder}: its files lack {len(missing)} weights of a {type(model).__name__} ({missing[0]}, ...), "
            f"which would be random; {cure}"
        )
    return model


def batched(lengths: Sequence[int], max_tokens: int, batch_tokens: int, a_pass: int = FEWEST) -> list[list[int]]:
    """Positions of ``lengths``, the longest first (so that memory runs out at once or never), in batches that hold
    no more than ``batch_tokens`` tokens with padding and replies, and that cost least.

    :param a_pass: what a batch costs beside its tokens, padding included, as a number of tokens.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best = [(0, 0)]  # of the first so many: what they cost, and where their last batch begins
    for end in range(1, len(order) + 1):
        found: list[tuple[int, int]] = []
        for start in range(end - 1, -1, -1):
            rows, width = end - start, lengths[order[start]]
            if rows > 1 and rows * (width + max_tokens) > batch_tokens:
                break
            found.append((best[start][0] + a_pass + rows * width, start))
        best.append(min(found))
    batches: list[list[int]] = []
    end = len(order)
    while end:
        end, last = best[end][1], end
        batches.append(order[end:last])
    return batches[::-1]


def in_batches(
    texts: Sequence[list[int]],
    work: Callable[[Sequence[int]], list[T]],
    batch_tokens: int,
    name: str,
    more: int = 0,
    groups: Sequence[Sequence[int]] = (),
    a_pass: int = FEWEST,
) -> list[T]:
    """What ``work`` makes of each text's tokens, in their order; it is given the positions of one batch at a time.

    :param name: the model's.
    :param more: tokens that are added to each text.
    :param groups: which texts may be in one batch, if not all.
    :param a_pass: see :func:`batched`.
    :raises ModelError: If a batch does not fit into the memory.
    """
    torch = need("torch", name="this model", extra="lm")
    made: dict[int, T] = {}
    batches = [
        [group[i] for i in batch]
        for group in groups or [range(len(texts))]
        for batch in batched([len(texts[i]) for i in group], more, batch_tokens, a_pass)
    ]
    with counting(f"{name}: texts", len(texts)):
        for batch in batches:
            try:
                with quiet(), torch.inference_mode():
                    made.update(zip(batch, work(batch), strict=True))
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{name}: {len(batch)} texts of up to {len(texts[batch[0]])} tokens do not fit into the memory; "
                    f"lower batch_tokens (now {batch_tokens})"
                ) from error
            done(len(batch))
    return [made[i] for i in range(len(texts))]
