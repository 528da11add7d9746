"""Several retrievers as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Literal, Self

from rankpipe.data import Doc, Hit, Query, Ranking, Step
from rankpipe.errors import RecipeError
from rankpipe.stage import Retriever, Stage
from rankpipe.where import Filter

Finder = Stage[Query, Ranking]  # a retriever, or a chain that begins with one
Points = list[float]  # what each hit of one list is worth, best first


class Fuse(Retriever):
    """Adds up what several retrievers say of a document; ties as trec_eval breaks them.

    - ``rrf``: reciprocal rank fusion, ``1 / (rank_constant + rank)``, ranks from 1 (Cormack et al. 2009, eq. 1).
    - ``minmax``: scores moved to 0..1 for each list. Where all are equal, each is 1: to be found is better than not.
    - ``zscore``: scores minus their mean, over their standard deviation (of the population); 0 where all are equal.

    A document that a list lacks has 0 from it under ``rrf`` and ``minmax``. Under ``zscore`` it has what the list's
    last hit has (0 would be the mean, better than half of the hits): there we deviate from ranx, which gives 0.
    Each hit keeps the record of the first list that has it; the steps of all retrievers are kept.

    :param retrievers: what to fuse, two or more: ``Fuse(bm25, dense)``; a list of components in a recipe.
    :param method: how points come from ranks or scores: ``rrf``, ``minmax`` or ``zscore``.
    :param weights: what each list's points are multiplied by; 1 by default.
    :param depth: how many hits of each list are read; normalisation sees only these.
    :param k: hits given for a query, at most.
    :param rank_constant: how flat ``rrf`` is.
    :param where: which documents may be found, by every retriever: ``year >= 2019 and lang in (en, de)``.
    :raises RecipeError: If something is no retriever, or cannot filter, or an argument is out of its range; says all
        faults.
    """

    opens = False

    def __init__(
        self,
        *retrievers: Finder,
        method: Literal["rrf", "minmax", "zscore"] = "rrf",
        weights: Sequence[float] | None = None,
        depth: int = 1000,
        k: int = 1000,
        rank_constant: int = 60,
        where: Filter | str | None = None,
    ) -> None:
        faults = [f for i, r in enumerate(retrievers) for f in _misfit(i, r)]
        if len(retrievers) < 2:
            faults.append(f"retrievers: {len(retrievers)}; expected two or more")
        if method not in NORMALISED and method != "rrf":
            faults.append(f"method: {method!r} is not one of rrf, {', '.join(NORMALISED)}")
        faults += _unweighable([1.0] * len(retrievers) if weights is None else weights, len(retrievers))
        least = {"depth": (depth, 1), "k": (k, 1), "rank_constant": (rank_constant, 0)}
        faults += [f"{n}: {value}; expected {low} or more" for n, (value, low) in least.items() if value < low]
        if faults:
            raise RecipeError(faults)
        self.retrievers, self.method, self.depth, self.k = retrievers, method, depth, k
        self.weights = [1.0] * len(retrievers) if weights is None else [float(w) for w in weights]
        self.rank_constant = rank_constant
        if where is not None:
            self.retrievers = self.filtered(where).retrievers

    @property
    def name(self) -> str:
        """``Fuse(method)``."""
        return f"Fuse({self.method})"

    def filtered(self, where: Filter | str) -> Self:
        """The same fusion, of filtered retrievers."""
        made, faults, where = copy(self), list[str](), Filter.of(where)
        kept = list[Finder]()
        for i, retriever in enumerate(self.retrievers):
            try:
                kept.append(retriever.filtered(where))
            except RecipeError as error:
                faults += [f"retrievers[{i}]: {fault}" for fault in error.faults]
        if faults:
            raise RecipeError(faults)
        made.retrievers = tuple(kept)
        return made

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Ask each retriever for the whole batch, then fuse query by query."""
        lists = [retriever.apply(batch) for retriever in self.retrievers]
        return [self._fused(query, rankings) for query, *rankings in zip(batch, *lists, strict=True)]

    def _fused(self, query: Query, rankings: Sequence[Ranking]) -> Ranking:
        docs: dict[str, Doc] = {}
        total: dict[str, float] = {}
        read = [ranking.hits[: self.depth] for ranking in rankings]
        for hits in read:
            for hit in hits:
                docs.setdefault(hit.doc.id, hit.doc)
        for hits, weight in zip(read, self.weights, strict=True):
            points, absent = self._points([hit.score for hit in hits])
            gained = {hit.doc.id: p for hit, p in zip(hits, points, strict=True)}
            for doc in docs:
                total[doc] = total.get(doc, 0.0) + weight * gained.get(doc, absent)
        steps = tuple(step for ranking in rankings for step in ranking.steps)
        return Ranking.scored(query, (Hit(docs[d], s) for d, s in total.items()), self.k, (*steps, Step(self.name)))

    def _points(self, scores: list[float]) -> tuple[Points, float]:
        """What each hit of a list is worth, and a document that is not in it."""
        if self.method == "rrf":
            return [1 / (self.rank_constant + rank) for rank in range(1, len(scores) + 1)], 0.0
        return NORMALISED[self.method](scores) if scores else ([], 0.0)


def _minmax(scores: list[float]) -> tuple[Points, float]:
    high, low = scores[0], scores[-1]
    return [(s - low) / (high - low) if high > low else 1.0 for s in scores], 0.0


def _zscore(scores: list[float]) -> tuple[Points, float]:
    if scores[0] == scores[-1]:
        return [0.0] * len(scores), 0.0
    mean = math.fsum(scores) / len(scores)
    spread = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores))
    return [(s - mean) / spread for s in scores], (scores[-1] - mean) / spread


NORMALISED: dict[str, Callable[[list[float]], tuple[Points, float]]] = {"minmax": _minmax, "zscore": _zscore}


def _misfit(place: int, retriever: Any) -> list[str]:
    if not isinstance(retriever, Stage):
        return [f"retrievers[{place}]: a {type(retriever).__name__} is no retriever"]
    if (retriever.takes, retriever.gives) != (Query, Ranking):
        took, gave = retriever.takes.__name__, retriever.gives.__name__
        return [f"retrievers[{place}]: {retriever!r} takes {took} and gives {gave}, expected Query and Ranking"]
    return []


def _unweighable(weights: Sequence[float], lists: int) -> list[str]:
    if len(weights) != lists:
        return [f"weights: {len(weights)} for {lists} retrievers"]
    if not any(weights):
        return ["weights: are all 0; expected one above"]
    return [
        f"weights[{i}]: {w}; expected 0 or more" for i, w in enumerate(weights) if not (math.isfinite(w) and w >= 0)
    ]
