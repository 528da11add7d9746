"""Lists of several collections, or drawn in several ways, to learn from together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self, TypeVar

from rankpipe.data import Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.train.examples import Example
from rankpipe.train.lists import Lists, Part, Source
from rankpipe.train.split import Others, apart

T = TypeVar("T")
Told = TypeVar("Told", Ranking, Example)


@dataclass(frozen=True)
class Mixture(Source):
    """All lists of several sources; training draws from all of them in random order, or in ``stages``.

    A query is called ``N:ID``, by its source and its name there. One collection may be there several times, as for
    lists in random order and lists in the run's; of what is held out of it, the first one's run is evaluated.

    :param of: the sources.
    :param stages: a curriculum (Bengio et al. 2009): ``[1, 3]`` is lists of the first source, then those of the next
        three, drawn from each by its share of their queries; they are learned from in this order.
    :param seed: of all lists, in place of their own, and of their order.
    :raises RecipeError: If there are none, two of one collection would not hold out the same queries, or the stages are
        not of all sources.
    """

    of: Sequence[Lists]
    stages: Sequence[int] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.of:
            raise RecipeError(["of: no lists; expected some, as [{use: lists, ...}, {use: lists, ...}]"])
        if self.stages is not None and (min(self.stages, default=0) < 1 or sum(self.stages) != len(self.of)):
            raise RecipeError([f"stages: {[*self.stages]}; expected numbers that add up to the {len(self.of)} sources"])
        if self.seed is not None:
            object.__setattr__(self, "of", [replace(lists, seed=self.seed) for lists in self.of])
        for data, times in Counter(lists.data for lists in self.of).items():
            if len(seeds := {lists.seed for lists in self.of if lists.data == data}) > 1:
                raise RecipeError([f"of: {data} is there {times} times with seeds {sorted(seeds)}; give all one seed"])

    @property
    def collections(self) -> Sequence[Dataset]:
        """Of all sources."""
        return [lists.collection for lists in self.of]

    @property
    def checksums(self) -> Sequence[str]:
        """Of all sources."""
        return [one for lists in self.of for one in lists.checksums]

    def parts(self, share: float = 0.0) -> tuple[Part, Part]:
        """Of each source its parts; what one holds out of a collection, no other learns from."""
        both = [lists.parts(share) for lists in self.of]
        first = {lists.data: n for n, lists in reversed([*enumerate(self.of)])}
        held = {data: both[n][1].qrels for data, n in first.items()}
        mine = [Part(*apart(m.run, m.qrels, [held[s.data]])) for s, (m, _) in zip(self.of, both, strict=True)]
        theirs = [
            t if first[s.data] == n else Part({}, {}) for n, (s, (_, t)) in enumerate(zip(self.of, both, strict=True))
        ]
        return _named(mine), _named(theirs)

    def beside(self, others: Others) -> Self:
        """The same, each source kept apart from these queries."""
        made = copy(self)
        object.__setattr__(made, "of", [lists.beside(others) for lists in self.of])
        return made

    def rankings(self, part: Part) -> list[Ranking]:
        """Of each source its part's, under the names that queries have here."""
        both = enumerate(zip(self.of, self._apart(part), strict=True))
        return [_called(r, n) for n, (lists, own) in both for r in lists.rankings(own)]

    @property
    def ordered(self) -> bool:
        """Whether they are in stages."""
        return self.stages is not None

    def examples(self, part: Part) -> Iterator[Example]:
        """One source after another, or one stage."""
        numbered = enumerate(zip(self.of, self._apart(part), strict=True))
        for stage in self.stages or [1] * len(self.of):
            streams = {_called_all(lists.examples(own), n): len(own.run) for n, (lists, own) in islice(numbered, stage)}
            chance = random.Random(self.seed or 0)
            while streams:
                [stream] = chance.choices([*streams], [*streams.values()])
                if (example := next(stream, None)) is not None:
                    yield example
                else:
                    del streams[stream]

    def _apart(self, part: Part) -> list[Part]:
        """What of a part is whose, under the names that queries have there."""
        return [Part(_of(n, part.run), _of(n, part.qrels)) for n in range(len(self.of))]


def _called_all(examples: Iterator[Example], n: int) -> Iterator[Example]:
    return (_called(e, n) for e in examples)


def _called(told: Told, n: int) -> Told:
    return replace(told, query=replace(told.query, id=f"{n}:{told.query.id}"))


def _of(n: int, named: Mapping[str, T]) -> dict[str, T]:
    return {name.partition(":")[2]: value for name, value in named.items() if name.partition(":")[0] == str(n)}


def _named(parts: Sequence[Part]) -> Part:
    return Part(
        {f"{n}:{q}": hits for n, part in enumerate(parts) for q, hits in part.run.items()},
        {f"{n}:{q}": grades for n, part in enumerate(parts) for q, grades in part.qrels.items()},
    )
