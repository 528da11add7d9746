"""Token vectors in a few bits: the nearest of some centroids, and roughly what is left (ColBERTv2's compression).

Santhanam et al. 2022a (ColBERTv2, section 3.3): a vector is kept as the number of its centroid and, for each dimension
of the difference, the bucket that it falls into; buckets are equally full. Unlike theirs, centroids are learned from at
most 64 vectors each, so that learning takes a part of the time that encoding takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rankpipe.disk import write
from rankpipe.progress import track
from rankpipe.retrieve.encode import unit
from rankpipe.retrieve.strings import scattered
from rankpipe.retrieve.vectors import Columns, Vectors

CENTROIDS = 4  # times the square root of the number of vectors
POINTS = 64  # vectors that a centroid is learned from, at most
ROUNDS = 4
HELD = 4096  # vectors that buckets are learned from, at most; centroids are not
PRODUCTS = 1 << 24  # in memory at once, 4 bytes each


@dataclass(frozen=True, eq=False)
class Codec:
    """How vectors of length 1 are kept.

    :param centroids: (C, dimension), of length 1 and rounded to half precision.
    :param cuts: (2^bits - 1,) between buckets, rising.
    :param values: (2^bits,) what is in a bucket counts as.
    :param tokens: how many vectors it was made for.
    """

    centroids: Vectors
    cuts: NDArray[np.float32]
    values: NDArray[np.float32]
    tokens: int

    @classmethod
    def learn(cls, vectors: NDArray[Any], tokens: int, bits: int) -> Self:
        """Learn from a sample.

        :param vectors: (n, dimension), of half or single precision.
        :param tokens: how many there will be.
        """
        chance = np.random.default_rng(0)
        order = chance.permutation(len(vectors))
        held = order[: min(HELD, len(order) // 20)]
        wanted = round(CENTROIDS * tokens**0.5)
        used = np.sort(order[len(held) : len(held) + POINTS * wanted])
        centroids = _centroids(vectors, used, min(wanted, len(used)), chance)
        some = scattered(vectors, held if len(held) else used).astype(np.float32)
        rest = some - centroids[nearest(some, centroids)]
        buckets = 1 << bits
        cuts = np.quantile(rest, np.arange(1, buckets) / buckets).astype(np.float32)
        values = np.quantile(rest, (np.arange(buckets) + 0.5) / buckets).astype(np.float32)
        return cls(centroids, cuts, values, tokens)

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """As it was saved; None if there is none."""
        if not (folder / "codec.npz").exists():
            return None
        with np.load(folder / "codec.npz") as told:
            return cls(told["centroids"].astype(np.float32), told["cuts"], told["values"], int(told["tokens"]))

    def save(self, folder: Path) -> None:
        """Write ``codec.npz``."""
        with write(folder / "codec.npz", "wb") as f:
            half = self.centroids.astype(np.float16)
            np.savez(f, centroids=half, cuts=self.cuts, values=self.values, tokens=self.tokens)

    def like(self, other: Codec | None) -> bool:
        """Whether both keep vectors in the same way."""
        return other is not None and all(
            np.array_equal(a, b)
            for a, b in ((self.centroids, other.centroids), (self.cuts, other.cuts), (self.values, other.values))
        )

    def pack(self, vectors: Vectors) -> Columns:
        """``codes`` (n,), which centroid, and ``residuals`` (n, bytes), which buckets."""
        codes = nearest(vectors, self.centroids)
        buckets = np.searchsorted(self.cuts, vectors - self.centroids[codes]).astype(np.uint8)
        (n, dimension), shifts = buckets.shape, self._shifts
        size = -(-dimension // len(shifts))
        buckets = np.pad(buckets, ((0, 0), (0, size * len(shifts) - dimension)))
        parts = buckets.reshape(n, size, len(shifts)) << shifts  # (n, bytes, dimensions a byte)
        return {"codes": codes, "residuals": np.bitwise_or.reduce(parts, axis=2)}

    def unpack(self, codes: NDArray[np.int32], residuals: NDArray[np.uint8]) -> Vectors:
        """The vectors, roughly, of length 1."""
        rest = self._of_byte[residuals]  # (n, bytes, dimensions a byte)
        rest = rest.reshape(len(codes), rest.shape[1] * rest.shape[2])[:, : self.centroids.shape[1]]
        return unit(self.centroids[codes] + rest)

    @cached_property
    def _shifts(self) -> NDArray[np.uint8]:
        """By how many bits each of a byte's buckets is moved up."""
        bits = len(self.cuts).bit_length()
        return np.arange(0, 8, bits, dtype=np.uint8)

    @cached_property
    def _of_byte(self) -> Vectors:
        """What each byte counts as, (256, dimensions a byte)."""
        buckets = (np.arange(256)[:, None] >> self._shifts) & (len(self.values) - 1)
        made: Vectors = self.values[buckets]
        return made


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int32]:
    """The number of the centroid with the largest inner product, (n,)."""
    made = np.empty(len(vectors), np.int32)
    for some in _blocks(len(vectors), len(centroids)):
        made[some] = (vectors[some] @ centroids.T).argmax(axis=1)
    return made


def _centroids(vectors: NDArray[Any], used: NDArray[np.intp], count: int, chance: np.random.Generator) -> Vectors:
    """Directions that some vectors lie around (k-means on the sphere).

    :param used: which of them; they are read block by block.
    """
    made = unit(scattered(vectors, np.sort(chance.choice(used, count, replace=False))).astype(np.float32))
    for _ in track(range(ROUNDS), f"{count} centroids of {len(used)} token vectors"):
        sums = np.zeros_like(made)
        for some in _blocks(len(used), count):
            block = scattered(vectors, used[some]).astype(np.float32)
            codes = nearest(block, made)
            order = np.argsort(codes, kind="stable")
            told, first = np.unique(codes[order], return_index=True)
            sums[told] += np.add.reduceat(block[order], first)
        found = np.linalg.norm(sums, axis=1) > 1e-6  # one that nothing is near to stays where it is
        made[found] = unit(sums[found])
    return made.astype(np.float16).astype(np.float32)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(PRODUCTS // columns, 1)
    return (slice(start, start + size) for start in range(0, rows, size))
