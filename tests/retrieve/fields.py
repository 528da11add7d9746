"""Vectors on the disk, to be searched without documents."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.nearest import Field
from rankpipe.retrieve.vectors import STORES, Vectors, append


def drawn(size: int, dimension: int = 32, seed: int = 0, *, tight: float = 1.0) -> Vectors:
    """Unit vectors around a few centres; the smaller ``tight``, the nearer."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((20, dimension))
    made = centres[chance.integers(20, size=size)] + tight * chance.standard_normal((size, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def field(
    folder: Path, vectors: Vectors, store: str = "float32", alive: NDArray[np.bool_] | None = None, seed: int = 0
) -> Field:
    """They, kept in a folder."""
    folder.mkdir(exist_ok=True)
    append(folder, 0, STORES[store].pack(vectors))
    longest = float(np.linalg.norm(vectors, axis=1).max()) * 1.01
    precedence = np.random.default_rng(seed).permutation(len(vectors)).astype(np.int32)
    return Field(STORES[store](folder), longest, precedence, alive)
