"""What FAISS will hold and how long it will take to make an index, said before there is any."""

from __future__ import annotations

import re
from functools import partial
from math import log
from time import perf_counter

import numpy as np

from rankpipe.errors import RecipeError
from rankpipe.retrieve import approximate
from rankpipe.retrieve.parts import Part

QUICK = re.compile(r"(IVF\d+,)?(Flat|SQ\w+)|HNSW\d*(,Flat|_SQ\w+)?")  # others train for half a minute
TRIED = 1 << 10, 1 << 12  # vectors
POWER = 1.0, 1.15  # of their number, that the time to add them rises with, at least and at most
CENTROIDS, EACH = 256, 256  # FAISS learns so many at least, from so many vectors each at most


def prepare(draft: Part, factory: str, dimension: int, train: int, device: str) -> None:
    """Say what FAISS will hold of each document of a segment, and how long it will take.

    :raises RecipeError: If FAISS cannot make such an index.
    """
    try:
        approximate.index_of("Flat" if factory == "exact" else factory, dimension)
    except RuntimeError as error:
        raise RecipeError([f"factory: FAISS cannot make {factory!r} of {dimension} dimensions: {error}"]) from None
    draft.row += approximate.row_bytes(dimension)
    draft.share, draft.without = approximate.SHARE, "FAISS's building"
    draft.foretold = partial(seconds, factory, dimension, train=train, device=device)


def seconds(factory: str, dimension: int, documents: int, *, train: int, device: str = "cpu") -> float | None:
    """About the time to train and fill an index on the CPU, by vectors that are drawn by chance; its recall is measured
    in less. None if that cannot be foretold so soon: of other factories than graphs and lists of vectors as they are or
    in fewer bits, of more lists than are tried vectors, or on a GPU.

    :param factory: FAISS's word for it; "exact" if one is to be picked.
    :param train: documents that it is trained on, at most.
    """
    name = factory if factory != "exact" else approximate.picked(documents, device)[0]
    if device != "cpu" or not QUICK.fullmatch(name):
        return None
    index, few_most = approximate.index_of(name, dimension), list[float]()
    drawn = np.random.default_rng(0).standard_normal((TRIED[-1], dimension), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    trained = 0.0
    if not index.is_trained:
        if hasattr(index, "cp"):
            index.cp.min_points_per_centroid = 1  # it would warn
        begun = perf_counter()
        try:
            index.train(drawn)
        except RuntimeError:
            return None
        learned = min(train, documents, EACH * max(getattr(index, "nlist", 0), CENTROIDS))
        trained = (perf_counter() - begun) * learned / TRIED[-1]
    for tried in TRIED:
        index.reset()
        begun = perf_counter()
        index.add(drawn[:tried])
        few_most.append(perf_counter() - begun)
    few, most = few_most
    power = float(np.clip(log(most / few) / log(TRIED[1] / TRIED[0]), *POWER))
    return float(trained + most * (documents / TRIED[1]) ** power)
