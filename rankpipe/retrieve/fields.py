"""The fields of a segment's documents: which documents have a value, by the value.

``fields/`` is an inverted index (:mod:`rankpipe.retrieve.postings`) whose terms are a field and a value of it as JSON,
``["year", 2019]``: a field's values lie together, its texts first, then its numbers, its booleans, and what is not
compared. The folder is not there if no document has a field.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.memory import TERM
from rankpipe.retrieve.postings import Postings
from rankpipe.retrieve.strings import Strings
from rankpipe.where import KINDS, And, Equals, Exists, Filter, In, Not, Or, Range

LONG = 1000  # characters; a longer text exists, but is not compared
MANY = 100  # values; likewise a longer list
DECODED = 32  # fields whose values are remembered
OTHER = "value too long or too deep to compare"
SECTIONS = {"text": ('"', "#"), "number": ("-", "a"), "boolean": ("f", "u"), OTHER: ("{", "}")}  # first letters
Mask = NDArray[np.bool_]  # (documents,)


def flat(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """The values in what a field holds, with their names: ``author.name`` for what is in an object."""
    if isinstance(held, Mapping):
        if held:
            yield name, held
        for inner, value in held.items():
            yield from flat(f"{name}.{inner}", value)
    elif isinstance(held, list | tuple) and len(held) <= MANY:
        for value in held:
            yield from flat(name, value)
    elif held is not None and held == held:  # what is not a number (NaN) is no value
        yield name, held


def terms(fields: Mapping[str, Any]) -> dict[str, int]:
    """What a document is found by, each once."""
    return {_term(name, value): 1 for field, held in fields.items() for name, value in flat(str(field), held)}


class Fields:
    """The fields of a segment.

    :param folder: of the segment.
    :param documents: how many it has.
    """

    def __init__(self, folder: Path, documents: int) -> None:
        self._documents = documents
        self._terms: Strings | tuple[str, ...] = ()
        self._starts, self._docs = np.zeros(1, np.int64), np.empty(0, np.int32)
        if (folder / "fields").exists():
            postings = Postings(folder / "fields")
            self._terms, self._starts, self._docs = postings.terms, postings.starts, postings.docs
        self._decoded: dict[tuple[int, int], list[Any]] = {}

    @property
    def held(self) -> int:
        """Bytes that writing them again holds, about."""
        return TERM * len(self._terms) + (self._terms.size_bytes if isinstance(self._terms, Strings) else 0)

    @property
    def names(self) -> Iterator[str]:
        """Of all fields that a document has."""
        place = 0
        while place < len(self._terms):
            name = json.loads(self._terms[place])[0]
            yield name
            _, place = self._section(name)

    def having(self, name: str, kind: str | None = None) -> Mask:
        """Which documents have such a field; of one kind (see :data:`SECTIONS`), if that is asked for."""
        return self._mask([self._docs_of(*self._section(name, kind))])

    def mask(self, where: Filter) -> Mask:
        """Which documents meet a condition.

        :raises TypeError: If it is none of those in :mod:`rankpipe.where`.
        """
        match where:
            case Or():
                return reduce(np.logical_or, map(self.mask, where.parts))
            case And():
                return reduce(np.logical_and, map(self.mask, where.parts))
            case Not():
                return ~self.mask(where.part)
            case Exists():
                return self.having(where.field)
            case Equals() | In():
                sought = [_term(where.field, value) for value in where.values if kind_of(value) != OTHER]
                return self._mask(
                    self._docs_of(bisect_left(self._terms, t), bisect_right(self._terms, t)) for t in sought
                )
            case Range():
                first, last = self._section(where.field, KINDS[type(where.values[0])])
                within = np.fromiter(map(where.has, self._values(first, last)), bool, last - first)
                counts = np.diff(self._starts[first : last + 1])
                return self._mask([self._docs_of(first, last)[np.repeat(within, counts)]])
        raise TypeError(f"{type(where).__name__} is no filter")

    def _section(self, name: str, kind: str | None = None) -> tuple[int, int]:
        """From which term to which the values of a field lie, or those of one kind."""
        low, high = SECTIONS[kind] if kind else ("", "~")
        begin = json.dumps([name])[:-1] + ", "
        return bisect_left(self._terms, begin + low), bisect_left(self._terms, begin + high)

    def _values(self, first: int, last: int) -> list[Any]:
        """The values of some terms."""
        if (values := self._decoded.get((first, last))) is None:
            values = [json.loads(self._terms[place])[1] for place in range(first, last)]
            if len(self._decoded) >= DECODED:
                self._decoded = {}  # other threads may read the old ones
            self._decoded[first, last] = values
        return values

    def _docs_of(self, first: int, last: int) -> NDArray[np.int32]:
        return self._docs[self._starts[first] : self._starts[last]]

    def _mask(self, parts: Iterable[NDArray[np.int32]]) -> Mask:
        made = np.zeros(self._documents, bool)
        for docs in parts:
            made[docs] = True
        return made


def kind_of(value: Any) -> str:
    """In which of the :data:`SECTIONS` a value is."""
    if isinstance(value, str):
        return "text" if len(value) <= LONG else OTHER
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else OTHER


def _term(name: str, value: Any) -> str:
    """A field and a value of it; what is not compared as an empty object."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps([name, {} if kind_of(value) == OTHER else value])
