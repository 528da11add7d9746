"""Decoding that reads prompts a few at a time and writes their replies together.

On a CPU a batch of long prompts is read more slowly than one after the other (padding is computed as well, and a mask
keeps attention off its fast path), but replies are written much faster together: each step moves all weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from rankpipe.catalog import need

KeysValues = list[tuple[Any, Any]]  # of each layer, (1, heads, tokens, size of a head) both
Read = Callable[[Sequence[int]], tuple[list[KeysValues], Any]]
Pick = Callable[[Sequence[int], Any], list[list[int]]]


class Greedy:
    """The likeliest token, until a stop token (which is given) or so many. A :data:`Pick`.

    :param rows: how many replies.
    :param most: tokens of a reply.
    """

    def __init__(self, rows: int, most: int, stops: Collection[int]) -> None:
        self.most, self.stops = most, stops
        self.written: list[list[int]] = [[] for _ in range(rows)]

    def __call__(self, rows: Sequence[int], logits: Any) -> list[list[int]]:
        """What each of them goes on with."""
        tokens = logits.argmax(-1).tolist()
        for i, token in zip(rows, tokens, strict=True):
            self.written[i].append(token)
        return [[] if self._over(self.written[i]) else [token] for i, token in zip(rows, tokens, strict=True)]

    def _over(self, written: Sequence[int]) -> bool:
        return written[-1] in self.stops or len(written) == self.most


def decode(model: Any, read: Read, lengths: Sequence[int], reading: Sequence[Sequence[int]], pick: Pick) -> None:
    """Ask ``pick`` for the next tokens of each prompt's reply, until it has no more for any.

    :param read: some prompts' keys and values, without padding, and the logits after each, (prompts, vocabulary).
    :param lengths: of the prompts, in tokens.
    :param reading: which prompts are read together; each is in one part.
    :param pick: given some prompts and the logits behind each, (prompts, vocabulary), it says which tokens come next:
        several are read in one pass; none, and the reply is over.
    """
    torch = need("torch", name="hf", extra="lm")
    rows: list[KeysValues] = [[] for _ in lengths]
    new: dict[int, list[int]] = {}
    for part in reading:
        made, logits = read(part)
        new.update(zip(part, pick(part, logits), strict=True))
        for i, row in zip(part, made, strict=True):
            rows[i] = row
    width = max(lengths)
    past = need("transformers", name="hf", extra="lm").DynamicCache(_stacked(rows, width))
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=model.device)
    going = list(range(len(lengths)))
    while kept := [row for row, i in enumerate(going) if new[i]]:
        if len(kept) < len(going):
            going, mask = [going[row] for row in kept], mask[kept]
            past.batch_select_indices(torch.tensor(kept, device=model.device))
        wide = max(len(new[i]) for i in going)
        gaps = [wide - len(new[i]) for i in going]
        mask = torch.cat([mask, mask.new_tensor([[0] * gap + [1] * (wide - gap) for gap in gaps])], dim=1)
        out = model(
            input_ids=mask.new_tensor([[0] * gap + new[i] for gap, i in zip(gaps, going, strict=True)]),
            attention_mask=mask,
            position_ids=(mask.cumsum(1)[:, -wide:] - 1).clamp(min=0),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        new.update(zip(going, pick(going, out.logits[:, -1]), strict=True))


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
