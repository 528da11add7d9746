"""Forward passes over several prompts, which may go on from what they begin with alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankpipe.catalog import need
from rankpipe.lm.decode import KeysValues
from rankpipe.lm.prefix import Past


def forward(model: Any, prompts: Sequence[list[int]], keep: int, past: Past, cache: Any) -> Any:
    """The logits at the last ``keep`` places, (B, keep, vocabulary).

    :param past: what the prompts begin with; it is in the cache.
    :param cache: of transformers; None if there is nothing to go on from, and none is wanted.
    """
    ids, mask = padded(model, prompts, past)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    new = slice(len(past.tokens), None)
    return model(
        input_ids=ids[:, new],
        attention_mask=mask,
        position_ids=places[:, new],
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    ).logits


def read(model: Any, prompts: Sequence[list[int]], past: Past) -> tuple[list[KeysValues], Any]:
    """Keys and values of each prompt, without padding, and the logits behind it, (B, vocabulary)."""
    cache, before = past.cache(len(prompts)), len(past.tokens)
    if cache is None:
        cache = need("transformers", name="hf", extra="lm").DynamicCache()
    last = forward(model, prompts, 1, past, cache)[:, -1]
    rows: list[KeysValues] = []
    for i, prompt in enumerate(prompts):
        padding = max(map(len, prompts)) - len(prompt)
        kept = [*range(before), *range(before + padding, len(prompt) + padding)]
        rows.append([(layer.keys[i : i + 1, :, kept], layer.values[i : i + 1, :, kept]) for layer in cache.layers])
    return rows, last


def generated(model: Any, prompts: Sequence[list[int]], past: Past, **options: Any) -> list[list[int]]:
    """What transformers' own ``generate`` writes: for models with layers that do not attend to everything before."""
    ids, mask = padded(model, prompts, past)
    out = model.generate(input_ids=ids, attention_mask=mask, **options)
    written: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return written


def padded(model: Any, prompts: Sequence[list[int]], past: Past) -> tuple[Any, Any]:
    """Token ids and the mask of what is not padding, both (B, T); padded on the left, but behind what is past."""
    torch = need("torch", name="hf", extra="lm")
    before = len(past.tokens)
    width, pad = max(map(len, prompts)), model.generation_config.pad_token_id
    gaps = [width - len(p) for p in prompts]
    ids = [p[:before] + [pad] * gap + p[before:] for p, gap in zip(prompts, gaps, strict=True)]
    mask = [[1] * before + [0] * gap + [1] * (width - before - gap) for gap in gaps]
    return torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device)
