"""Which of several ways to compute the same vectors is the fastest here: each is tried for a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

SECONDS = 2.0  # for all ways together
GAIN = 1.1  # times as fast must a way be that is less exact
NEAR = 0.999  # mean cosine to the vectors of the most exact way, at least
PASSAGES = [
    "The heart pumps blood through the vessels of the body; in adults it beats sixty to a hundred times a minute. " * 6,
    "Cities that were built along rivers grew with trade, and lost people when railways took the goods elsewhere. " * 5,
    "A compiler translates a program into instructions, and leaves out those whose results are never used. " * 6,
    "Bread rises because yeast turns sugar into carbon dioxide, which is held by the gluten of the dough. " * 5,
]


class Way(Protocol):
    """Makes vectors."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension)."""
        ...


N = TypeVar("N", bound=str)


class Tried(NamedTuple):
    """What was seen of a way."""

    texts_a_second: float
    cosine: float  # of its vectors to those of the most exact way, the mean


def fastest(ways: Mapping[N, Way], clock: Callable[[], float] = perf_counter) -> tuple[N, dict[N, Tried]]:
    """Try all ways by turns, with more and more texts, and choose one.

    A way that is less exact than the chosen one before it must be :data:`GAIN` times as fast, and :data:`NEAR` the
    first one. Nothing is tried of which the next turn would end after its share of :data:`SECONDS`; so only a way that
    takes longer for a single text can exceed it.

    :param ways: the most exact one first.
    """
    left = dict.fromkeys(ways, SECONDS / len(ways))
    rates, vectors = dict.fromkeys(ways, 0.0), dict[N, Any]()
    texts, going = 1, list(ways)
    while going:
        for name in [*going]:
            start = clock()
            vectors[name] = ways[name].encode_docs([*islice(cycle(PASSAGES), texts)])
            took = clock() - start
            left[name] -= took
            rates[name] = max(rates[name], texts / max(took, 1e-9))
            if 2 * took > left[name]:
                going.remove(name)
        texts *= 2
    [chosen, *others] = ways
    tried = {name: Tried(round(rates[name], 1), _cosine(vectors[name], vectors[chosen])) for name in ways}
    for name in others:
        if tried[name].cosine >= NEAR and rates[name] >= GAIN * rates[chosen]:
            chosen = name
    return chosen, tried


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The mean over those texts that both have read."""
    a, b = (v[: min(len(a), len(b))] / np.linalg.norm(v[: min(len(a), len(b))], axis=1, keepdims=True) for v in (a, b))
    return round(float((a * b).sum(axis=1).mean()), 5)
