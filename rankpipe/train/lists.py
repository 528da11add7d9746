"""Lists to learn from: a run's hits and the relevant documents, labelled, in many drawn lists, kept as Arrow."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import chain, islice
from math import ceil
from operator import rshift
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from rankpipe import store
from rankpipe.catalog import need, require
from rankpipe.data import Doc, Ranking
from rankpipe.datasets import Dataset, open_dataset, open_to_learn, rankings, streamed
from rankpipe.errors import DataError, RecipeError, several
from rankpipe.progress import notice, track
from rankpipe.retrieve import parts
from rankpipe.retrieve.docs import Docs, Stored, write_docs
from rankpipe.stage import Stage
from rankpipe.train.examples import Example, drawn
from rankpipe.train.labels import Judged, Labels
from rankpipe.train.negatives import Negatives
from rankpipe.train.split import Others, apart, origin, relevant, some, split, tell_apart
from rankpipe.trec import Qrels, Run, ordered, read_run, to_run

KIND, FORMAT = "lists", 2  # of artefacts; the first had no column of what is relevant
FILE = "lists.arrow"
MANY = 64  # queries that a teacher is asked about together


@dataclass(frozen=True)
class Part:
    """A run over some of the queries, and their judgements."""

    run: Run
    qrels: Qrels


class Source(ABC):
    """What lists come from."""

    @property
    def ordered(self) -> bool:
        """Whether lists are learned from in their order; else in random order."""
        return False

    @property
    @abstractmethod
    def collections(self) -> Sequence[Dataset]:
        """The opened collections."""

    @property
    @abstractmethod
    def checksums(self) -> Sequence[str]:
        """Of what lists are made by that neither the recipe nor a part says: the records of teachers."""

    @abstractmethod
    def parts(self, share: float = 0.0) -> tuple[Part, Part]:
        """What is learned from, and what is held out: no query and no relevant document of one is in the other.

        :param share: of the judged queries that is held out.
        :raises DataError: If nothing is left to learn from, or the held-out part cannot be had.
        """

    @abstractmethod
    def beside(self, others: Others) -> Self:
        """The same, kept apart from these queries."""

    @abstractmethod
    def rankings(self, part: Part) -> list[Ranking]:
        """The part's run, with texts."""

    @abstractmethod
    def examples(self, part: Part) -> Iterator[Example]:
        """The lists of a part.

        :raises DataError: If there are none.
        """

    def ensure(self, folder: Path, node: dict[str, Any], part: Part) -> Any:
        """The lists of a part, as a ``datasets.Dataset`` mapped into memory; made, unless they are in the folder.

        :param node: these lists as their recipe has them.
        """
        said = hashlib.sha256()
        for piece in json.JSONEncoder(sort_keys=True).iterencode([part.run, part.qrels, *self.checksums]):
            said.update(piece.encode())
        data = store.Data(" + ".join(dict.fromkeys(c.name for c in self.collections)), said.hexdigest())
        if store.staleness(folder, kind=KIND, format=FORMAT, recipe=node, data=data):
            with store.publish(folder, kind=KIND, format=FORMAT, recipe=node, data=data) as draft:
                draft.facts["lists"] = self._write(draft.folder, part)
        datasets = need("datasets", name="lists", extra="train")
        return datasets.Dataset.from_file(str(store.open_artefact(folder, kind=KIND, format=FORMAT).path / FILE))

    def _write(self, folder: Path, part: Part) -> int:
        """As Arrow files; how many lists."""
        datasets = need("datasets", name="lists", extra="train")
        text, many = datasets.Value("string"), datasets.List
        features = datasets.Features(
            query_id=text,
            query=text,
            docs=many({"id": text, "title": text, "text": text}),
            labels=many(datasets.Value("float64")),
            relevant=many(text),
        )
        with datasets.arrow_writer.ArrowWriter(path=str(folder / FILE), features=features) as writer:
            for example in self.examples(part):
                writer.write(example.row())
            lists, _ = writer.finalize()
        return int(lists)


@dataclass(frozen=True)
class Lists(Source):
    """Lists of the judged queries of a collection, from a run over it.

    Of each query there is a pool: what the run found and ``negatives`` takes, and what is relevant. Every list is drawn
    from it anew: its length, which documents (the best one is always there), their order. Queries without a relevant
    document, or whose documents all have one label, make no list.

    :param data: the collection, as ``beir/scifact/train`` or a folder.
    :param run: a TREC run, or a pipeline, which is run.
    :param labels: who labels documents.
    :param negatives: which hits are taken.
    :param length: documents of a list, the least and the most; as many as there are, where that is less.
    :param copies: lists drawn of each query.
    :param queries: so many of the judged queries, the same ones as ``rankpipe teach --queries`` takes; all if None.
    :param shuffle: lists are in random order; else in the run's, and what is not among its first hits (``depth`` of
        ``negatives``) at random places.
    :param relevant: relevant documents that the run did not find are put in.
    :param apart: collections, as ``beir/scifact/test``, that shall share no relevant document with these lists.
    :param seed: of lists, and of the share that is held out.
    :param split: whose judgements; None is the one that the name says, or train, or, if there is none, test.
    :raises RecipeError: If a number is out of range.
    :raises MissingExtra: If datasets is not installed.
    """

    data: str
    run: Path | Sequence[Stage[Any, Any]]
    labels: Labels = Judged()  # noqa: RUF009  frozen
    negatives: Negatives = Negatives()  # noqa: RUF009  frozen
    length: Sequence[int] = (2, 20)
    copies: int = 1
    queries: int | None = None
    shuffle: bool = True
    relevant: bool = True
    apart: Sequence[str] = ()
    seed: int = 0
    split: str | None = None

    def __post_init__(self) -> None:
        require("datasets", name="lists", extra="train")
        if not (len(self.length) == 2 and 2 <= self.length[0] <= self.length[1]):
            raise RecipeError([f"length: {list(self.length)}; expected the least and the most documents, as [2, 20]"])
        for key, number in (("copies", self.copies), ("queries", self.queries)):
            if number is not None and number < 1:
                raise RecipeError([f"{key}: {number}; expected 1 or more"])

    @cached_property
    def collection(self) -> Dataset:
        """The opened collection."""
        return open_dataset(self.data, self.split) if self.split else open_to_learn(self.data)

    @property
    def collections(self) -> Sequence[Dataset]:
        """The one."""
        return (self.collection,)

    @property
    def checksums(self) -> Sequence[str]:
        """Of the labels, and of who tells false negatives; and what must not be drawn."""
        said = [said.checksum for said in (self.labels, self.negatives.teacher) if said]
        return said + sorted(relevant(self._others.qrels)) if self.negatives.random else said

    def parts(self, share: float = 0.0) -> tuple[Part, Part]:
        """By the judgements; what is relevant in collections that lists shall be ``apart`` from is left out."""
        asked = {q.id: q.text for q in self.collection.queries}
        judged = some({q: g for q, g in self.collection.qrels.items() if q in asked}, self.queries)
        if not judged:
            raise DataError(f"{self.collection.name}: has no query with a relevant document; is it the right split?")
        others = [self._others.qrels, *(open_dataset(name).qrels for name in self.apart)]
        judged = self._others.left_out(judged, asked, self.data)
        run = self._run(judged)
        mine, theirs = split(judged, share, self.seed) if share else (judged, {})
        made = Part(*apart(run, mine, [theirs, *others]))
        tell_apart(self.data, {q: run[q] for q in run if q in mine}, made.run, self.apart)
        if not made.run:
            raise DataError(
                f"{self.data}: no judged query with hits is left of {len(judged)}: nothing to learn from; is the run "
                "of these queries, and does apart leave any?"
            )
        return made, Part(*apart(run, theirs, [mine])) if theirs else Part({}, {})

    def beside(self, others: Others) -> Self:
        """The same lists, without these queries and what is relevant to them."""
        made = copy(self)
        same = others.origin == origin(self.collection)  # else their ids say nothing of ours
        made.__dict__["_others"] = others if same else replace(others, qrels={})
        return made

    @cached_property
    def _others(self) -> Others:
        return Others()

    def rankings(self, part: Part) -> list[Ranking]:
        """The part's run, with texts."""
        return rankings(part.run, self.collection)

    def examples(self, part: Part) -> Iterator[Example]:
        """The lists of a part, one after the other, each copy of all in an order of its own. Texts are not held: they
        lie in a temporary folder meanwhile.
        """
        with TemporaryDirectory() as folder:
            pools = [*self._pools(part, Path(folder))]
            if not pools:
                raise DataError(f"{self.data}: no query has documents with different labels: nothing to learn from")
            if lost := len(part.run) - len(pools):
                notice(f"{self.data}: {several(lost, 'query makes', 'queries make')} no list, without two labels")
            for copy in range(self.copies):
                order = random.Random(f"{self.seed} {copy}").sample(pools, len(pools)) if self.shuffle else pools
                for pool in order:
                    yield drawn(pool, self.length, self.shuffle, f"{self.seed} {copy} {pool.query.id}")

    def _pools(self, part: Part, folder: Path) -> Iterator[Example]:
        """Of each query all labelled documents, whose texts lie in a folder."""
        ids = self._drawable(part.qrels) if self.negatives.random else []
        pools = {q: self._pool(q, scores, part.qrels[q], self._drawn(q, ids)) for q, scores in part.run.items()}
        found = streamed(pools, self.collection, partial(_stored, folder), "the lists'")
        blocks = iter(lambda: [*islice(found, MANY)], [])
        for block in track(blocks, "labels: blocks of queries", ceil(len(pools) / MANY)):
            grades = [part.qrels[r.query.id] for r in block]
            doubtful = self.negatives.false(block, grades)
            labelled = self.labels.of(block, grades)
            for ranking, of_query, said, false in zip(block, grades, labelled, doubtful, strict=True):
                docs = tuple(h.doc for h in ranking.hits if h.doc.id in said and h.doc.id not in false)
                labels = tuple(said[d.id] for d in docs)
                if len(set(labels)) > 1:
                    yield Example(ranking.query, docs, labels, tuple(d for d, grade in of_query.items() if grade > 0))

    def _pool(
        self, query: str, scores: dict[str, float], grades: dict[str, int], chosen: Sequence[str]
    ) -> dict[str, float]:
        """What is taken of a query's first hits, and what is relevant and not among them, and what is drawn: below, or,
        where lists are in this order, at random places, since the last ones would tell what they are.
        """
        run = ordered(scores)
        first, mined = {*run[self.negatives.skip : self.negatives.depth]}, self.negatives.mined(run, grades)
        made, more = [d for d in mined if d in first], [d for d in mined if d not in first]
        more += [d for d, grade in sorted(grades.items()) if grade > 0 and d not in scores] if self.relevant else []
        more += [d for d in chosen if grades.get(d, 0) <= 0 and d not in first]
        chance = random.Random(f"{self.seed} {query} places")
        for doc in dict.fromkeys(more):
            made.insert(len(made) if self.shuffle else chance.randint(0, len(made)), doc)
        return {d: 1.0 / rank for rank, d in enumerate(made, 1)}

    def _drawn(self, query: str, ids: Sequence[str]) -> list[str]:
        return random.Random(f"{self.seed} {query}").sample(ids, min(self.negatives.random, len(ids)))

    def _drawable(self, qrels: Qrels) -> list[str]:
        """All documents but those that are relevant to other queries than these, or in collections to be apart from."""
        rest = {q: grades for q, grades in self.collection.qrels.items() if q not in qrels}
        kept = [rest, self._others.qrels, *(open_dataset(name).qrels for name in self.apart)]
        others = set().union(*map(relevant, kept))
        return [doc.id for doc in self.collection.docs() if doc.id not in others]

    def _run(self, judged: Qrels) -> Run:
        if isinstance(self.run, Path):
            return read_run(self.run).run
        return to_run(reduce(rshift, self.run)(q for q in self.collection.queries if q.id in judged))


def _stored(folder: Path, docs: Iterable[Doc]) -> dict[str, Doc]:
    """Documents by their ids; the texts lie in the folder and are read when they are asked for."""
    docs = iter(docs)
    if (first := next(docs, None)) is None:
        return {}
    deque(write_docs(chain([first], docs), parts.Part(folder)), maxlen=0)
    kept = Docs(folder)
    return {id: Stored(id, kept, place) for place, id in enumerate(kept.ids)}
