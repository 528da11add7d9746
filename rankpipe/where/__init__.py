r"""Which documents may be found: conditions on their fields, as values or as text.

    >>> Range("year", gte=2019) & In("lang", ["en", "de"]) & Exists("doi")
    year >= 2019 and lang in ("en", "de") and exists(doi)
    >>> Filter.of("year >= 2019 and lang in (en, de) and exists(doi)")
    year >= 2019 and lang in ("en", "de") and exists(doi)

The text has ``year == 2019``, ``year >= 2019``, ``2019 <= year < 2021``, ``lang in (en, de)`` and ``exists(doi)``,
joined by ``not``, ``and``, ``or`` and parentheses; ``!=`` and ``not in`` are short for a ``not``, ``=`` for ``==``. A
word that is written as a number is one, ``true`` and ``false`` are booleans, anything else is text, and so is all
that stands in quotes: ``code == "007"``. A field's name with other characters stands in backquotes. A ``\`` takes the
meaning from the quote or ``\`` after it.

Values of different kinds are never equal, above or below each other. Texts compare by code points, which is the order
of dates as ISO 8601 writes them. A field that is a list meets a condition if one of its values does. A document without
the field meets none, and so the ``not`` of any.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from rankpipe.errors import RecipeError

Value = str | int | float | bool
KINDS = {str: "text", int: "number", float: "number", bool: "boolean"}
KEYWORDS = ("and", "or", "not", "in", "exists")
BOUNDS = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
TURNED = {">=": "<=", ">": "<", "<=": ">=", "<": ">"}
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # as JSON has it
WORD = re.compile(r"""[^\s()<>=!,"'`\\]+""")


class Filter(ABC):
    """A condition on documents. Filters combine by ``&``, ``|`` and ``~``; they are equal if they are written alike."""

    @staticmethod
    def of(where: Filter | str) -> Filter:
        """The filter that a text says; a filter itself.

        :raises RecipeError: If the text says none; names the place in it.
        """
        from rankpipe.where.read import Reader  # which makes filters

        if isinstance(where, Filter):
            return where
        if isinstance(where, str):
            return Reader(where).read()
        said = f"a {type(where).__name__}; expected a text, such as 'year >= 2019 and lang in (en, de)', or a Filter"
        raise RecipeError([f"where: {said} of rankpipe.where"])

    @property
    @abstractmethod
    def leaves(self) -> Iterator[Leaf]:
        """Its conditions on single fields."""

    @abstractmethod
    def __str__(self) -> str:
        """As :meth:`of` reads it."""

    def __and__(self, other: Filter) -> Filter:
        return And((*_flat(And, self), *_flat(And, other)))

    def __or__(self, other: Filter) -> Filter:
        return Or((*_flat(Or, self), *_flat(Or, other)))

    def __invert__(self) -> Filter:
        return self.part if isinstance(self, Not) else Not(self)

    def __repr__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Filter):
    """A condition on a field; the field ``author.name`` is the ``name`` in the object that the field ``author`` is."""

    field: str

    @property
    def leaves(self) -> Iterator[Leaf]:
        """Itself."""
        yield self

    @property
    def values(self) -> tuple[Value, ...]:
        """What the field's values are compared with."""
        return ()

    @property
    def name(self) -> str:
        """The field, as it is written."""
        odd = not WORD.fullmatch(self.field) or NUMBER.fullmatch(self.field) or self.field.lower() in KEYWORDS
        return _quoted(self.field, "`") if odd else self.field


@dataclass(frozen=True, eq=False, repr=False)
class Exists(Leaf):
    """The field has a value; null, and an empty list or object, is none."""

    def __str__(self) -> str:
        return f"exists({self.name})"


@dataclass(frozen=True, eq=False, repr=False)
class Equals(Leaf):
    """The field has this value.

    :raises RecipeError: If it is neither a text, nor a finite number, nor a boolean.
    """

    value: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _value(self.value, self))

    @property
    def values(self) -> tuple[Value, ...]:
        """It."""
        return (self.value,)

    def __str__(self) -> str:
        return f"{self.name} == {_written(self.value)}"


@dataclass(frozen=True, eq=False, repr=False)
class In(Leaf):
    """The field has one of these values; without any, no document meets it.

    :raises RecipeError: If one is neither a text, nor a finite number, nor a boolean.
    """

    among: Iterable[Value]

    def __post_init__(self) -> None:
        if isinstance(self.among, str):
            raise RecipeError([f"where: {self.name} in {self.among!r}: expected a list of values"])
        object.__setattr__(self, "among", tuple(_value(v, self) for v in self.among))

    @property
    def values(self) -> tuple[Value, ...]:
        """They."""
        return tuple(self.among)

    def __str__(self) -> str:
        return f"{self.name} in ({', '.join(map(_written, self.among))})"


@dataclass(frozen=True, eq=False, repr=False)
class Range(Leaf):
    """The field has a value above a bound, below one, or between two: ``Range("year", gte=2019, lt=2021)``.

    :raises RecipeError: Unless there is a lower bound (``gte`` or ``gt``), an upper one (``lte`` or ``lt``), or one of
        each, numbers or texts.
    """

    gte: Value | None = None
    gt: Value | None = None
    lte: Value | None = None
    lt: Value | None = None

    def __post_init__(self) -> None:
        for name, bound in self.bounds.items():
            object.__setattr__(self, name, _value(bound, self))
        if None not in (self.gte, self.gt) or None not in (self.lte, self.lt) or not self.bounds:
            raise RecipeError([f"where: {self.name}: a range has a lower bound, an upper bound, or one of each"])
        if {KINDS[type(b)] for b in self.values} not in ({"text"}, {"number"}):
            raise RecipeError([f"where: {self}: the bounds of a range are numbers, or they are texts"])

    @property
    def bounds(self) -> dict[str, Value]:
        """Those that there are by name, the lower one first."""
        return {name: bound for name in BOUNDS.values() if (bound := getattr(self, name)) is not None}

    @property
    def values(self) -> tuple[Value, ...]:
        """The bounds."""
        return tuple(self.bounds.values())

    def has(self, value: Any) -> bool:
        """Whether a value of the bounds' kind lies within them."""
        return (
            (self.gte is None or value >= self.gte)
            and (self.gt is None or value > self.gt)
            and (self.lte is None or value <= self.lte)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        signs = {name: sign for sign, name in BOUNDS.items()}
        (sign, bound), *upper = [(signs[name], _written(b)) for name, b in self.bounds.items()]
        return f"{bound} {TURNED[sign]} {self.name} {' '.join(upper[0])}" if upper else f"{self.name} {sign} {bound}"


@dataclass(frozen=True, eq=False, repr=False)
class Not(Filter):
    """Its part is not met."""

    part: Filter

    @property
    def leaves(self) -> Iterator[Leaf]:
        """Those of its part."""
        return self.part.leaves

    def __str__(self) -> str:
        return f"not {_within(self.part)}"


@dataclass(frozen=True, eq=False, repr=False)
class And(Filter):
    """All of its parts are met."""

    parts: tuple[Filter, ...]

    @property
    def leaves(self) -> Iterator[Leaf]:
        """Those of its parts."""
        return (leaf for part in self.parts for leaf in part.leaves)

    def __str__(self) -> str:
        return f" {type(self).__name__.lower()} ".join(map(_within, self.parts))


class Or(And):
    """One of its parts is met."""


def _flat(kind: type[And], where: Filter) -> tuple[Filter, ...]:
    return where.parts if type(where) is kind else (where,)


def _within(part: Filter) -> str:
    return f"({part})" if isinstance(part, And) else str(part)


def _value(value: Any, of: Leaf) -> Value:
    """A value in the one way that it is written, 2019.0 as 2019."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return int(value) if value == int(value) else value
    shown = f"the {type(value).__name__} {str(value)[:40]!r}"
    raise RecipeError([f"where: {of.name}: {shown} is neither a text, nor a number, nor true or false"])


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value, '"') if isinstance(value, str) else str(value)


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote
