"""How good a model is while it is tuned: its reranker over a run of development queries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import rshift
from pathlib import Path
from typing import Any

from rankpipe import trec
from rankpipe.data import Ranking
from rankpipe.datasets import Dataset, open_dataset, rankings
from rankpipe.errors import RecipeError
from rankpipe.measure.ranking import evaluate, parse
from rankpipe.stage import Stage
from rankpipe.train.heads.head import Ranker
from rankpipe.train.lists import Part, Source
from rankpipe.train.split import Others, origin, relevant
from rankpipe.trec import Qrels, Run


@dataclass(frozen=True)
class Held:
    """Development queries: a run with texts, judgements, and what is measured of them."""

    rankings: tuple[Ranking, ...]
    qrels: Qrels
    measures: tuple[str, ...]
    depth: int

    def reranked(self, ranker: Ranker, model: Any, some: Sequence[Ranking]) -> Run:
        """What a model as it is now makes of some of the rankings."""
        with ranker.stage(model, self.depth) as stage:
            return trec.to_run(stage.through(list(some), "evaluation"))

    def measured(self, run: Run) -> dict[str, float]:
        """The figures of a run of all queries, by measure."""
        return dict(evaluate(run, self.qrels, self.measures).means)

    @property
    def before(self) -> dict[str, float]:
        """Of the run itself, which nothing has reranked."""
        return self.measured(trec.to_run(self.rankings))


@dataclass(frozen=True)
class Dev:
    """Development queries, by which the best checkpoint is chosen.

    :param every: steps between evaluations, and checkpoints.
    :param share: of the examples' judged queries that is held out for it: none shares a relevant document with what is
        learned from.
    :param data: a collection of its own in place of a share, as ``beir/nfcorpus/dev`` or a folder. No list has its
        queries, by their texts, nor, of the same collection, what is relevant to them.
    :param split: whose judgements; a name that says its split needs none.
    :param run: over that, a TREC run or a pipeline.
    :param measures: what is measured; the first one decides.
    :param depth: hits that are reranked.
    :param queries: so many, drawn from all of them (of a mixture, from all sources); all if None.
    :param seed: of the queries that are drawn.
    :param patience: evaluations without a better one after which training ends; None is to the last step.
    :raises RecipeError: If it is not said where the queries come from, or a number is out of range.
    """

    every: int
    share: float = 0.0
    data: str | None = None
    run: Path | Sequence[Stage[Any, Any]] | None = None
    measures: Sequence[str] = ("nDCG@10",)
    depth: int = 20
    queries: int | None = None
    patience: int | None = None
    split: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [f"{k}: {v}; expected 1 or more" for k in ("every", "depth", "queries", "patience")
                  if (v := getattr(self, k)) is not None and v < 1]  # fmt: skip
        if bool(self.share) == bool(self.data) or bool(self.data) != bool(self.run):
            faults.append("say a share of the examples, as share: 0.1, or data and run of its own")
        if not 0 <= self.share < 1:
            faults.append(f"share: {self.share}; expected from 0 to below 1")
        if faults:
            raise RecipeError(faults)
        for measure in self.measures:
            parse(measure)

    def beside(self, lists: Source) -> Source:
        """The lists, kept apart from development queries of a collection of its own; a share is apart anyway."""
        if not self.data:
            return lists
        own = self._held
        return lists.beside(Others(frozenset(r.query.text for r in own.rankings), own.qrels, origin(self._collection)))

    def held(self, lists: Source, part: Part) -> Held:
        """The queries.

        :param part: of the examples, that is held out for a share.
        """
        return self._held if self.data else self._taken(lists.rankings(part), part.qrels)

    @cached_property
    def _collection(self) -> Dataset:
        return open_dataset(str(self.data), self.split)

    @cached_property
    def _held(self) -> Held:
        """Of a collection of its own."""
        own = self._collection
        judged = {q.id for q in own.queries if relevant({q.id: own.qrels.get(q.id, {})})}
        return self._taken(self._own(own, judged), own.qrels)

    def _taken(self, found: Sequence[Ranking], qrels: Qrels) -> Held:
        judged = [r.query.id for r in found if qrels.get(r.query.id)]
        drawn = {*sorted(judged, key=lambda q: hashlib.sha256(f"{self.seed} {q}".encode()).digest())[: self.queries]}
        taken = tuple(replace(r, hits=r.hits[: self.depth]) for r in found if r.query.id in drawn)
        return Held(taken, {r.query.id: qrels[r.query.id] for r in taken}, tuple(self.measures), self.depth)

    def _own(self, own: Dataset, judged: set[str]) -> list[Ranking]:
        if isinstance(self.run, Path):
            run = trec.read_run(self.run).run
            return rankings({q: hits for q, hits in run.items() if q in judged}, own)
        return list(reduce(rshift, self.run or ())([q for q in own.queries if q.id in judged]))
