"""Engines for tests."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rankpipe.engine import Local

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Others(Local):
    """Passes everything through pickle, as workers in other processes get and give it."""

    workers = 3

    def __init__(self) -> None:
        self.items = list[Any]()

    def map(self, do: Callable[[I], O], items: Iterable[I]) -> Iterator[O]:
        there = pickle.loads(pickle.dumps(do))
        for item in items:
            self.items.append(item)
            yield pickle.loads(pickle.dumps(there(pickle.loads(pickle.dumps(item)))))

    def crew(self, dos: Sequence[Callable[[I], O]]) -> Callable[[I], list[O]]:
        there = [pickle.loads(pickle.dumps(do)) for do in dos]
        return lambda item: [pickle.loads(pickle.dumps(do(pickle.loads(pickle.dumps(item))))) for do in there]
