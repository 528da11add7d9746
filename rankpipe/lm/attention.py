"""Which tokens a model looks at, read from its attention as it computes, in memory that grows with the length only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import ModelError

NAME = "rankpipe-rows"  # among transformers' kinds of attention
ROWS = 256  # that are computed at once

Looks = list[float]  # how much each token is looked at


def attention_to(model: Any, start: Sequence[int], ends: Sequence[Sequence[int]]) -> list[Looks]:
    """How much each token of ``start`` is looked at from each of ``ends``, as if it alone followed.

    Weights are summed over layers and heads, and averaged over the end's tokens. One forward pass for each end: the
    first reads ``start`` as well, the others go on from its keys and values. Attention is the model's own (eager)
    formula, a few rows at a time, so that no map of all tokens by all is ever held.

    :raises ModelError: If the model's attention cannot be replaced.
    """
    torch = need("torch", name="attention", extra="lm")
    cache = need("transformers", name="attention", extra="lm").DynamicCache()
    found: list[Looks] = []
    with torch.inference_mode():
        for end in ends:
            fresh = end if found else [*start, *end]
            ids = torch.tensor([fresh], device=model.device)
            with _watched(model, len(start), len(end)) as total:
                model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.crop(-len(end))
            found.append((total / len(end)).tolist())
    return found


@contextmanager
def _watched(model: Any, before: int, last: int) -> Iterator[Any]:
    """Inside, the weights from the ``last`` tokens to the ``before`` first ones are added up, (before,) float32."""
    transformers = need("transformers", name="attention", extra="lm")
    torch = need("torch", name="attention", extra="lm")
    total = torch.zeros(before, device=model.device)

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, None]:
        eager, length, made = _eager(module), query.shape[2], []
        for first in range(0, length, ROWS):
            rows = slice(first, first + ROWS)
            mask = attention_mask[..., rows, :] if attention_mask is not None else None
            out, weights = eager(module, query[:, :, rows], key, value, mask, **options)  # (1, heads, rows, keys)
            made.append(out)
            total.add_(weights[0, :, max(length - last - first, 0) :, :before].sum((0, 1), dtype=torch.float32))
        return torch.cat(made, dim=1), None

    transformers.AttentionInterface.register(NAME, attend)
    masks = need("transformers.masking_utils", name="attention", extra="lm")
    transformers.AttentionMaskInterface.register(NAME, masks.eager_mask)
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        if model.config._attn_implementation != NAME:
            raise ModelError(f"{type(model).__name__}: its attention cannot be replaced; take another model")
        yield total
    finally:
        model.set_attn_implementation(usual)


def _eager(module: Any) -> Any:
    """The formula of this module's model, as its source file in transformers has it."""
    home = sys.modules[type(module).__module__]
    if not hasattr(home, "eager_attention_forward"):
        raise ModelError(f"{home.__name__}: has no eager attention of the usual form; take another model")
    return home.eager_attention_forward
