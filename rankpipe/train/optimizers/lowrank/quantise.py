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


def pack(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (the shape of ``x``, uint8), and each block's largest absolute value (blocks, float32).

    A number takes the nearest code; but none that is not 0 becomes 0 where there is no sign: as a second moment it
    would divide by nothing.
    """
    values = table(signed, x.device)
    flat = torch.nn.functional.pad(x.float().flatten(), (0, -x.numel() % BLOCK)).view(-1, BLOCK)
    scales = flat.abs().amax(1)
    share = flat / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    codes = torch.bucketize(share, (values[1:] + values[:-1]) / 2, out_int32=True)
    if not signed:
        codes.masked_fill_((codes == 0) & (flat > 0), 1)
    return codes.to(torch.uint8).flatten()[: x.numel()].view(x.shape).clone(), scales


def unpack(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """What the codes mean, float32."""
    shares = table(signed, codes.device)[codes.flatten().int()]
    whole = torch.nn.functional.pad(shares, (0, -codes.numel() % BLOCK)).view(-1, BLOCK) * scales[:, None]
    return whole.flatten()[: codes.numel()].view(codes.shape)


def packed_bytes(numel: int) -> int:
    """What :func:`pack` makes of so many numbers."""
    return numel + 4 * -(-numel // BLOCK)
