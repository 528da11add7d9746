"""Numbers in eight bits, a block at a time (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BLOCK = 256  # numbers that share one scale


@cache
def table(signed: bool, device: torch.device) -> Tensor:
    """The 256 values that a code can mean, ascending: between -1 and 1, or 0 and 1; (256,) float32.

    Seven decades; each one up has twice as many values, which lie evenly between a tenth of it and all of it.
    """
    decades = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (i if signed else i + 1) + 1, dtype=torch.float64)
        decades.append((edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - 6))
    above = torch.cat(decades)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cat([above, -above, ends] if signed else [above, ends]).sort().values.float().to(device)


@cache
def nearest(signed: bool, device: torch.device) -> Tensor:
    """The code of every bfloat16, by its bits: (65536,) uint8. Where there is no sign, only 0 has the code of 0: a
    second moment of 0 would divide by nothing.
    """
    values = table(signed, device)
    numbers = torch.arange(1 << 16, device=device).to(torch.int16).view(torch.bfloat16).float()
    codes = torch.bucketize(numbers.nan_to_num(), (values[1:] + values[:-1]) / 2)
    return codes.masked_fill_((codes == 0) & (numbers > 0), 1).to(torch.uint8)


def pack(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (the shape of ``x``, uint8), and each block's largest absolute value (blocks, float32).

    A number is rounded to bfloat16 on its way, which has about as many digits as codes have: a code is then looked up,
    over ten times as fast on a CPU as searched for.
    """
    flat = _blocks(x.float().flatten())
    scales = flat.abs().amax(1)
    shares = (flat / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).flatten()[: x.numel()]
    bits = shares.bfloat16().view(torch.int16).int().bitwise_and_((1 << 16) - 1)
    return nearest(signed, x.device).index_select(0, bits).view(x.shape), scales


def unpack(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """What the codes mean, float32."""
    shares = _blocks(table(signed, codes.device).index_select(0, codes.flatten().int()))
    return (shares * scales[:, None]).flatten()[: codes.numel()].view(codes.shape)


def _blocks(flat: Tensor) -> Tensor:
    """(blocks, 256), the last one filled up with zeros."""
    return torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)


def packed_bytes(numel: int) -> int:
    """What :func:`pack` makes of so many numbers."""
    return numel + 4 * -(-numel // BLOCK)
