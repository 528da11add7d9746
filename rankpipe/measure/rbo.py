"""Rank-biased overlap: how alike two rankings are, the top mattering most."""

from __future__ import annotations

from collections.abc import Sequence


def rbo(a: Sequence[str], b: Sequence[str], p: float = 0.9) -> float:
    """RBO_ext of two rankings without repeats: 1 if equal, 0 if they share nothing (two empty ones are equal).

    Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 28(4), 2010, equation 32: the
    agreement seen so far is taken to go on below the end of the lists.

    :param p: how far down a reader goes: with 0.9 the first 10 ranks carry 86 % of the weight.
    :raises ValueError: If ``p`` does not lie between 0 and 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p}: must lie between 0 and 1")
    short, long = sorted((a, b), key=len)
    s, l = len(short), len(long)  # noqa: E741  the paper's names
    if not s:
        return float(not l)
    seen: tuple[set[str], set[str]] = (set(), set())
    shared, shared_s, total = 0, 0, 0.0  # X_d, X_s, the sum of A_d p^d
    for d in range(1, l + 1):
        if d <= s:
            seen[0].add(short[d - 1])
            shared += short[d - 1] in seen[1]
        seen[1].add(long[d - 1])
        shared += long[d - 1] in seen[0]
        shared_s = shared if d == s else shared_s
        total += (shared + shared_s * (d - s) / s) / d * p**d  # X_s is 0 above s
    return (1 - p) / p * total + ((shared - shared_s) / l + shared_s / s) * p**l
