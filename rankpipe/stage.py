"""The one protocol: a stage turns a batch of records into as many others. ``a >> b`` runs a, then b."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import reduce
from itertools import islice, pairwise
from operator import rshift
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from rankpipe.data import Answer, Query, Ranking, Step
from rankpipe.errors import DataError, RecipeError
from rankpipe.progress import counting

if TYPE_CHECKING:
    from rankpipe.where import Filter

I = TypeVar("I")  # noqa: E741  what a stage takes
O = TypeVar("O")  # noqa: E741  what it gives
P = TypeVar("P")
FILTERS = ("bm25", "dense", "sparse", "colbert", "lucene", "milvus")  # kinds that can


class Stage(ABC, Generic[I, O]):
    """Takes records of one kind, gives as many of another, in the same order."""

    takes: ClassVar[type[Any]]
    gives: ClassVar[type[Any]]
    batch: int = 64  # records a call to run() when streaming
    opens: ClassVar[bool] = False  # whether making one reads files, such as an index: then a check does not make it

    @abstractmethod
    def run(self, batch: Sequence[I]) -> Sequence[O]:
        """One record out for each record in. The only method to write."""

    def apply(self, batch: Sequence[I]) -> Sequence[O]:
        """``run``, checked and timed: every ranking's last step says what this stage cost for it.

        :raises RuntimeError: If ``run`` gives more or fewer records than it took.
        """
        start = perf_counter()
        out = self.run(batch)
        seconds = (perf_counter() - start) / max(len(batch), 1)
        if len(out) != len(batch):
            raise RuntimeError(f"{self!r} took {len(batch)} records and gave {len(out)}")
        return [self._timed(i, o, seconds) for i, o in zip(batch, out, strict=True)]

    def _timed(self, took: I, made: O, seconds: float) -> O:
        if not isinstance(made, Ranking):
            return made
        before = len(took.steps) if isinstance(took, Ranking) else 0
        *inner, last = made.steps[before:] or (Step(self.name),)
        if last.stage != self.name:  # inner stages noted their cost, this one did not
            inner, last = [*inner, last], Step(self.name)
        own = max(seconds - sum(s.seconds for s in inner), 0.0)
        return replace(made, steps=(*made.steps[:before], *inner, replace(last, seconds=own)))

    @property
    def name(self) -> str:
        """What the stage is called in tables and steps."""
        return type(self).__name__

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        """The single stages this one is a chain of; itself, if it is no chain."""
        return (self,)

    def filtered(self, where: Filter | str) -> Self:  # noqa: ARG002  this one cannot
        """The same stage, finding only documents whose fields meet a condition; this one stays as it is.

        :param where: see :mod:`rankpipe.where`.
        :raises RecipeError: If the condition is none, or a stage of this kind cannot filter.
        """
        kinds = ", ".join(FILTERS)
        raise RecipeError([f"where: {type(self).__name__} cannot filter by fields; indexes of the kinds {kinds} can"])

    def __call__(self, items: Iterable[I]) -> Iterator[O]:
        """Stream records through, a batch at a time."""
        it = iter(items)
        while chunk := list(islice(it, self.batch)):
            yield from self.apply(chunk)

    def __rshift__(self, then: Stage[O, P]) -> Stage[I, P]:
        return Chain(self, then)

    def __repr__(self) -> str:
        return self.name


class Chain(Stage[I, P]):
    """Two stages, one after the other.

    :raises TypeError: If the second does not take what the first gives; names both.
    """

    def __init__(self, first: Stage[I, O], then: Stage[O, P]) -> None:
        if first.gives is not then.takes:
            raise TypeError(f"{first!r} gives {first.gives.__name__}, but {then!r} takes {then.takes.__name__}")
        self.first, self.then, self.batch = first, then, first.batch
        self.takes, self.gives = first.takes, then.gives  # type: ignore[misc]  # a chain's types are its ends'

    def filtered(self, where: Filter | str) -> Self:
        """The chain, its first stage filtered."""
        made = copy(self)
        made.first = self.first.filtered(where)
        return made

    def run(self, batch: Sequence[I]) -> Sequence[P]:
        """First, then."""
        return self.then.apply(self.first.apply(batch))

    def _timed(self, took: I, made: P, seconds: float) -> P:  # noqa: ARG002
        return made  # its stages have noted themselves

    @property
    def stages(self) -> tuple[Stage[Any, Any], ...]:
        """All stages of the chain, in order."""
        return (*self.first.stages, *self.then.stages)

    def __repr__(self) -> str:
        return f"{self.first!r} >> {self.then!r}"


def chain(*stages: Stage[Any, Any]) -> Stage[Any, Any]:
    """``a >> b >> c``, for recipes: a retriever with its rerankers as one of those that are fused.

    :param stages: in their order; a list of components in a recipe.
    :raises RecipeError: If there is none, or one does not take what the one before it gives.
    """
    if not stages:
        raise RecipeError(["stages: none; expected a list of components"])
    names = [type(s).__name__ for s in stages]  # a check's stand-ins have no other
    if faults := [f"stages[{i}]: {n} is no stage" for i, n in enumerate(names) if not isinstance(stages[i], Stage)]:
        raise RecipeError(faults)
    for i, (a, b) in enumerate(pairwise(stages), 1):
        if a.gives is not b.takes:
            raise RecipeError([f"stages[{i}]: {names[i]} takes {b.takes.__name__}, but is given {a.gives.__name__}"])
    return reduce(rshift, stages)


class Retriever(Stage[Query, Ranking]):
    """Finds documents."""

    takes, gives, opens = Query, Ranking, True
    k: int  # hits a query, at most, of those that have such a bound
    most: ClassVar[int] = sys.maxsize  # that it can give

    @classmethod
    def refuse_hits(cls, k: int) -> None:
        """:raises RecipeError: If so many hits a query cannot be given."""
        if k < 1:
            raise RecipeError([f"k: {k} hits; expected 1 or more"])
        if k > cls.most:
            raise RecipeError([f"k: {k} hits; {cls.__name__} gives at most {cls.most}"])

    def search(self, text: str, k: int | None = None, where: Filter | str | None = None) -> Ranking:
        """One question, typed by hand.

        :param k: hits, at most; as many as of any query by default.
        :param where: which documents may be found, as of :meth:`filtered`.
        :raises DataError: If it is no text.
        :raises RecipeError: If it cannot give so many hits, or ``where`` is no condition.
        """
        if not isinstance(text, str):
            cure = "queries are searched for by calling it: list(index(queries))"
            raise DataError(f"the question {text!r} is a {type(text).__name__}, expected a str; {cure}")
        if k is not None:
            self.refuse_hits(k)
        made = self if where is None else self.filtered(where)
        if k is not None:
            made = copy(made)
            made.k = k
        [ranking] = made.apply([Query("q", text)])
        return ranking if k is None else replace(ranking, hits=ranking.hits[:k])


class Reranker(Stage[Ranking, Ranking]):
    """Reorders or cuts a ranking; never adds a document."""

    takes, gives = Ranking, Ranking
    tells: ClassVar[bool] = False  # whether it notes what a model was shown and said (rerank/ledger.py)
    reads_scores: ClassVar[bool] = False  # whether what it gives depends on the scores it is given (journal.py)
    counts: str = "queries"  # what its work is counted in, for progress
    depth: int  # hits that it reads, if not all

    def whole(self) -> Self:
        """The same reranker, reading all hits of a ranking, whatever its ``depth``; this one stays as it is.

        :raises RecipeError: If its depth cannot be changed, or it has a budget: what that leaves out is not scored.
        """
        if (budget := getattr(self, "budget", None)) != (type(budget)() if budget else None):
            raise RecipeError([f"{self.name}: has a budget, and all hits are to be scored; leave it out"])
        made = copy(self)
        if hasattr(made, "depth"):
            try:
                made.depth = sys.maxsize
            except AttributeError:
                fault = f"{self.name}: reads the first {self.depth} hits, which cannot be changed; all are to be scored"
                raise RecipeError([fault]) from None
        return made

    def work(self, ranking: Ranking) -> int:  # noqa: ARG002
        """How many of these a ranking takes, at most."""
        return 1

    def apply(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Counted, checked and timed: see :meth:`Stage.apply`."""
        with counting(f"{self.name}: {self.counts}", sum(map(self.work, batch))):
            return super().apply(batch)

    def refuse(self, ranking: Ranking) -> None:
        """Refuse what could not be reranked, if that is cheap to know."""

    def through(self, rankings: Sequence[Ranking], label: str) -> list[Ranking]:
        """Rerank them all, and count that as one piece of work; but none, if one is refused."""
        for ranking in rankings:
            self.refuse(ranking)
        with counting(f"{label}: {self.counts}", sum(map(self.work, rankings))):
            return list(self(rankings))


class Generator(Stage[Ranking, Answer]):
    """Writes an answer from a ranking."""

    takes, gives = Ranking, Answer


class Top(Reranker):
    """Keeps the first ``k`` hits.

    :param k: hits kept for a query.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise RecipeError([f"k: {k} hits; expected 1 or more"])
        self.k = k

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Cut."""
        return [replace(r, hits=r.hits[: self.k]) for r in batch]

    @property
    def name(self) -> str:
        """``Top(k)``."""
        return f"Top({self.k})"
