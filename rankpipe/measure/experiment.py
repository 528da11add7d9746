"""An experiment is a recipe on the ``eval`` shelf: data, systems, measures, and the bounds its figures must keep.

    data: beir/scifact/test
    measures: [nDCG@10, R@100]
    systems:
      bm25: &bm25 [{use: bm25, index: indexes/scifact-bm25}]
      reranked: [*bm25, {use: top, k: 100}, {use: cross-encoder}]   # a pipeline in a pipeline is spliced in
      listwise: {pipeline: [*bm25, {use: listwise, lm: {use: hf}}], sample: 20}   # on 20 queries only
    expect: {bm25: {"nDCG@10": [0.675, 1]}}

Systems that begin alike share that work, and what rerankers did is kept: the same recipe again costs seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from rankpipe import lines, recipe, store, trec
from rankpipe.data import Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.engine import Engine
from rankpipe.errors import Fault, MissingExtra, RankpipeError, placed, refuse
from rankpipe.journal import Kept
from rankpipe.measure.identity import builds, identity
from rankpipe.measure.misshapen import DEFAULT_MEASURES, misshapen, pipelines
from rankpipe.measure.ranking import Evaluation, evaluate, parse
from rankpipe.measure.results import Result, SystemResult, compared
from rankpipe.progress import track
from rankpipe.provenance import commit
from rankpipe.retrieve import shelf
from rankpipe.retrieve.docs import lean
from rankpipe.stage import Reranker, Stage, Top

RUNS = "runs"  # the kind of artefact that an experiment makes
SEED = 0  # of samples of queries, and of bootstrap intervals
BLOCK = 64  # queries that go through all systems together; bounds the memory that rankings take


@dataclass(frozen=True)
class System:
    """A named pipeline, and how many queries it runs on (None for all)."""

    name: str
    stages: tuple[dict[str, Any], ...]
    sample: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a system gave."""

    system: System
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True)
class Block:
    """What was made of some queries.

    :param rankings: of each system.
    :param dropped: hits that were their own query.
    :param rows: for the journals of rerankers, by the names of their files.
    """

    rankings: dict[str, list[Ranking]]
    dropped: int
    rows: dict[str, list[dict[str, Any]]]


class Experiment:
    """A recipe that was read; ``check`` it, then ``run`` it.

    :param path: the recipe, or its folder.
    :raises DataError: If there is no recipe, or it is not YAML.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self.tree = recipe.load(path)
        self.root = recipe.house(path)
        self.aside = False  # whether another process writes the journals
        self._built: dict[str, Stage[Any, Any]] = {}
        self._dropped = 0  # hits of a block that were their own query
        self._commit = commit()  # before anything is written

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def measures(self) -> list[str]:
        """As the recipe spells them."""
        return list(self.tree.get("measures", DEFAULT_MEASURES))

    @cached_property
    def systems(self) -> list[System]:
        """All systems, their pipelines spliced flat."""
        return [
            System(name, tuple(_flat(s["pipeline"])), s.get("sample"))
            if isinstance(s, dict)
            else System(name, tuple(_flat(s)))
            for name, s in self.tree["systems"].items()
        ]

    @cached_property
    def data(self) -> Dataset:
        """The opened data set."""
        return open_dataset(self.tree["data"], **{k: self.tree[k] for k in ("split", "self_match") if k in self.tree})

    @property
    def indexes(self) -> list[Path]:
        """The folders of all indexes that the systems name, each once."""
        nodes = [node for s in self.systems for _, node in recipe.walk(list(s.stages))]
        return list(dict.fromkeys(self.root / n["index"] for n in nodes if isinstance(n.get("index"), str)))

    def check(self) -> list[str]:
        """Every fault, each with its place; loads no model and opens no index."""
        faults = misshapen(self.tree)
        if pipelines(self.tree):
            faults += self._unbuildable()
        if isinstance(self.tree.get("measures"), list):
            faults += [f for measure in self.measures for f in _refusal("measures", parse, measure)]
        if isinstance(self.tree.get("data"), str):
            faults += _refusal("data", lambda: self.data)
        return list(dict.fromkeys(faults))

    def _unbuildable(self) -> list[str]:
        faults = []
        for system in self.systems:
            place = f"systems.{system.name}"
            faults += recipe.check(list(system.stages), place, self.root)
            faults += recipe.misjoined(list(system.stages), place)
        for index in self.indexes:
            if (index / "recipe.yaml").exists():
                faults += placed(str(index), shelf.check(recipe.load(index)))
            elif not (index / "manifest.json").exists():
                faults.append(f"{index}: no index here, and no recipe to build one by")
        return faults

    @property
    def baseline(self) -> str:
        """The system that others are compared with: the recipe's, or the first."""
        return str(self.tree.get("baseline", self.systems[0].name))

    def run(self, *, force: bool = False, engine: Engine | None = None, block: int = BLOCK) -> list[Outcome]:
        """Run every system; write run files under ``made/``.

        :param force: forget what is kept of earlier runs.
        :param engine: builds the indexes, and has the queries, block after block, go through all systems; None does it
            here. The run is the same.
        :param block: queries that go through all systems together. Stages whose numbers depend on what else is in their
            batch (torch's, in the last bits) give the same for the same size.
        :raises RecipeError: If ``check`` finds faults; MissingExtra if they are only of extras.
        :raises ArtefactError: If something else was built in the recipe's folder.
        """
        refuse(self.check(), str(self.path))
        store.refuse_other(self.folder, RUNS)
        for folder in self.indexes:
            if (folder / "recipe.yaml").exists():
                shelf.ready(folder, engine=engine)
        for kept in (self.folder / "kept").glob("*.jsonl"):
            kept.unlink() if force else lines.mend(kept)
        made: dict[str, list[Ranking]] = {s.name: [] for s in self.systems}
        queries = self.data.queries
        blocks = [queries[i : i + block] for i in range(0, len(queries), block)]
        dropped = 0
        through = zip(blocks, self._done(blocks, engine) if engine else map(self.through, blocks), strict=True)
        for _, one in track(through, f"{self.name}: queries", len(queries), lambda of: len(of[0])):
            for name, rankings in one.rankings.items():
                made[name] += rankings
            dropped += one.dropped
        outcomes = [Outcome(s, tuple(made[s.name])) for s in self.systems]
        self._publish(outcomes, dropped)
        return outcomes

    def _done(self, blocks: Sequence[Sequence[Query]], engine: Engine) -> Iterator[Block]:
        """Blocks that others have put through all systems."""
        engine.sees(self.folder, *(store.read_manifest(index).path for index in self.indexes))
        for one in engine.map(Apart(self.path, self.tree, uuid4().hex), blocks):
            for name, rows in one.rows.items():
                lines.append(self.folder / "kept" / name, rows)
            yield one

    def measure(self, outcomes: Sequence[Outcome]) -> tuple[Result, dict[str, Evaluation]]:
        """The record to file, and each system's evaluation; a sampled system's is over its sample."""
        made, systems = {}, {}
        average = self.tree.get("average", "judged")
        runs = {o.system.name: trec.to_run(o.rankings) for o in outcomes}
        for outcome in outcomes:
            name, sampled = outcome.system.name, self._sample(outcome.system)
            qrels = {q: g for q, g in self.data.qrels.items() if outcome.system.sample is None or q in sampled}
            made[name] = evaluate(runs[name], qrels, self.measures, average=average)
            systems[name] = SystemResult.of(made[name], outcome.rankings)
        whole = {s.name: runs[s.name] for s in self.systems if s.sample is None}
        against = compared(whole, self.data.qrels, self.measures, self.baseline, average)
        recipes = [self.tree, *(store.read_manifest(index).recipe for index in self.indexes)]
        given = (self.name, recipe.digest(recipes), self.data.data, SEED, systems)
        return Result(*given, self.baseline, against, builds(self.tree, self.root), self._commit), made

    def _sample(self, system: System) -> frozenset[str]:
        """The queries a system runs on: all, or the same few whatever the system."""
        ids = sorted(q.id for q in self.data.queries)
        size = len(ids) if system.sample is None else min(system.sample, len(ids))
        return frozenset(random.Random(SEED).sample(ids, len(ids))[:size])

    def through(self, queries: Sequence[Query]) -> Block:
        """One block of queries through all systems."""
        done: dict[str, dict[str, Ranking]] = {}
        self._dropped = 0
        made = {s.name: self._through(s, [q for q in queries if q.id in self._sample(s)], done) for s in self.systems}
        kept = [stage for stage in self._built.values() if isinstance(stage, Kept)]
        return Block(made, self._dropped, {stage.path.name: rows for stage in kept if (rows := stage.taken())})

    def _through(self, system: System, queries: list[Query], done: dict[str, dict[str, Ranking]]) -> list[Ranking]:
        """One block of queries through one system; ``done`` holds what a prefix of it gave before."""
        records: list[Any] = list(queries)
        for depth, node in enumerate(system.stages, 1):
            known = done.setdefault(recipe.digest(system.stages[:depth]), {})
            todo = [(q, r) for q, r in zip(queries, records, strict=True) if q.id not in known]
            if todo:
                made = self._stage(node).apply([r for _, r in todo])
                known |= {q.id: self._own(r) for (q, _), r in zip(todo, made, strict=True)}
            records = [known[q.id] for q in queries]
        return records

    def _own(self, ranking: Ranking) -> Ranking:
        """Without the question itself, where the data set says it is among the documents (ArguAna, Quora)."""
        if self.data.self_match == "keep":
            return ranking
        hits = tuple(h for h in ranking.hits if h.doc.id != ranking.query.id)
        self._dropped += len(ranking.hits) - len(hits)
        return replace(ranking, hits=hits)

    def _stage(self, node: dict[str, Any]) -> Stage[Any, Any]:
        key = recipe.digest(node)
        if key not in self._built:
            stage = recipe.build(node, self.root)
            if isinstance(stage, Reranker) and not isinstance(stage, Top):
                path = self.folder / "kept" / f"{node['use']}-{key}.jsonl"
                stage = Kept(stage, path, identity(node, self.root), aside=self.aside)
            self._built[key] = stage
        return self._built[key]

    def _publish(self, outcomes: list[Outcome], dropped: int) -> None:
        with store.publish(self.folder, kind=RUNS, recipe=self.tree, data=self.data.data) as draft:
            for outcome in outcomes:
                file = draft.folder / f"{outcome.system.name}.trec"
                lowered = trec.write_run(file, outcome.rankings, tag=outcome.system.name)
                draft.facts[outcome.system.name] = {"queries": len(outcome.rankings), "scores_lowered": lowered}
            draft.facts["self_matches_dropped"] = dropped


@dataclass(frozen=True)
class Apart:
    """An experiment in another process.

    :param tree: the recipe as it was read, whatever is at ``path`` now.
    :param run: a word for this run; in another one a worker that has it still reads anew what is kept.
    """

    path: Path
    tree: dict[str, Any]
    run: str

    def __call__(self, queries: Sequence[Query]) -> Block:
        """One block of queries through all systems."""
        made = self._experiment.through(queries)
        return replace(made, rankings={name: lean(rankings) for name, rankings in made.rankings.items()})

    @cached_property
    def _experiment(self) -> Experiment:
        made = Experiment(self.path)
        made.tree, made.aside = self.tree, True
        return made


def _flat(stages: list[Any]) -> Iterator[dict[str, Any]]:
    for stage in stages:
        if isinstance(stage, list):
            yield from _flat(stage)
        else:
            yield stage


def _refusal(place: str, call: Callable[..., Any], *arguments: Any) -> list[str]:
    try:
        call(*arguments)
    except MissingExtra as error:
        return [Fault(f"{place}: {error}", type(error))]
    except RankpipeError as error:
        return [f"{place}: {error}"]
    return []
