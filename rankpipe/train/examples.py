"""What a ranker is trained on: a query, documents in the order in which they are shown, and a label for each."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankpipe.data import Doc, Query


@dataclass(frozen=True, slots=True)
class Example:
    """One list. Labels are grades, or a teacher's scores: the larger, the better.

    ``relevant`` are the ids of all documents that are judged so, in the list or not.
    """

    query: Query
    docs: tuple[Doc, ...]
    labels: tuple[float, ...]
    relevant: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, ...]:
        """Places, the best label first; equal ones as they are shown."""
        return tuple(sorted(range(len(self.labels)), key=lambda i: -self.labels[i]))

    def row(self) -> dict[str, Any]:
        """As a row of the data set that is kept."""
        docs = [{"id": d.id, "title": d.title, "text": d.text} for d in self.docs]
        return {
            "query_id": self.query.id, "query": self.query.text, "docs": docs, "labels": list(self.labels),
            "relevant": list(self.relevant),
        }  # fmt: skip

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Example:
        """From such a row."""
        docs = tuple(Doc(d["id"], d["text"], d["title"]) for d in row["docs"])
        return cls(Query(row["query_id"], row["query"]), docs, tuple(row["labels"]), tuple(row["relevant"]))


def drawn(pool: Example, length: Sequence[int], shuffle: bool, seed: str) -> Example:
    """A list of a random length, of random documents of a pool. The best one is always there, and one of another label.

    :param length: the least and the most documents; all there are, where that is less.
    :param shuffle: show them in random order; else in the pool's.
    :param seed: the same one draws the same list, whatever else is drawn.
    """
    chance = random.Random(seed)
    size = min(chance.randint(*length), len(pool.docs))
    best, *others = pool.order
    places = [best, *chance.sample(sorted(others), size - 1)]
    if len({pool.labels[i] for i in places}) == 1:
        places[-1] = chance.choice([i for i in sorted(others) if pool.labels[i] != pool.labels[best]])
    if shuffle:
        chance.shuffle(places)
    else:
        places.sort()
    return replace(pool, docs=tuple(pool.docs[i] for i in places), labels=tuple(pool.labels[i] for i in places))
