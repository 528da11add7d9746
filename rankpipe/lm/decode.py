"""Greedy decoding that reads prompts a few at a time and writes their replies together.

On a CPU a batch of long prompts is read more slowly than one after the other (padding is computed as well, and a mask
keeps attention off its fast path), but replies are written much faster together: each step moves all weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from rankpipe.catalog import need

KeysValues = list[tuple[Any, Any]]  # of each layer, (1, heads, tokens, size of a head) both
Read = Callable[[Sequence[int]], tuple[list[KeysValues], Any]]


def greedy(
    model: Any, read: Read, lengths: Sequence[int], reading: Sequence[Sequence[int]], most: int, stops: Collection[int]
) -> list[list[int]]:
    """The likeliest next tokens after each prompt, until a stop token (which is given) or so many.

    :param read: some prompts' keys and values, without padding, and the likeliest token after each, (prompts,).
    :param lengths: of the prompts, in tokens.
    :param reading: which prompts are read together; each is in one part.
    :param most: tokens of a reply.
    """
    torch = need("torch", name="hf", extra="lm")
    rows: list[KeysValues] = [[] for _ in lengths]
    first: dict[int, int] = {}
    for part in reading:
        made, tokens = read(part)
        first.update(zip(part, tokens.tolist(), strict=True))
        for i, row in zip(part, made, strict=True):
            rows[i] = row
    width = max(lengths)
    past = need("transformers", name="hf", extra="lm").DynamicCache(_stacked(rows, width))
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=model.device)
    written = [[first[i]] for i in range(len(lengths))]
    going = list(range(len(lengths)))
    for _ in range(most - 1):
        kept = [row for row, i in enumerate(going) if written[i][-1] not in stops]
        if not kept:
            break
        if len(kept) < len(going):
            going, mask = [going[row] for row in kept], mask[kept]
            past.batch_select_indices(torch.tensor(kept, device=model.device))
        mask = torch.cat([mask, mask.new_ones(len(going), 1)], dim=1)
        last = torch.tensor([[written[i][-1]] for i in going], device=model.device)
        places = mask.sum(1, keepdim=True) - 1
        out = model(input_ids=last, attention_mask=mask, position_ids=places, past_key_values=past, use_cache=True)
        for i, token in zip(going, out.logits[:, -1].argmax(-1).tolist(), strict=True):
            written[i].append(token)
    return written


def _stacked(rows: Sequence[KeysValues], width: int) -> KeysValues:
    """All rows as one, padded on the left; the rows are given up layer by layer, so that memory holds one copy."""
    layers: KeysValues = []
    for _ in range(len(rows[0])):
        parts = [row.pop(0) for row in rows]
        stacked = []
        for j in (0, 1):
            whole = parts[0][j].new_zeros(len(parts), parts[0][j].shape[1], width, parts[0][j].shape[3])
            for i, part in enumerate(parts):
                whole[i, :, width - part[j].shape[2] :] = part[j][0]
            stacked.append(whole)
        layers.append((stacked[0], stacked[1]))
    return layers
