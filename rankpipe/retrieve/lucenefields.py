"""The fields of documents in a Lucene index: which terms a document has of them, and which query a filter is.

All are terms of one field of Lucene's: a field's name as JSON, the sign of a kind, and the value, so written that terms
sort as values do. So a field's values lie together, those of a kind in a row, and every condition is some of the terms
or all between two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from math import inf
from typing import Any

from rankpipe import java
from rankpipe.data import Doc
from rankpipe.errors import RecipeError
from rankpipe.retrieve.fields import OTHER, flat, kind_of
from rankpipe.retrieve.passages import Passages
from rankpipe.where import KINDS, And, Equals, Exists, Filter, In, Not, Or, Range

FIELD = "fields"
OF = "of"  # the field of passages that has the id of their document
FIRST = "odd", "first_passages"  # field and term of the passages that their documents begin with
SIGNS = {"text": '"', "number": "#", "boolean": "?", OTHER: "~"}
TURNED = str.maketrans("0123456789", "9876543210")
FARTHEST = 900  # bytes of the text that a range begins or ends with; Lucene walks an automaton of them, 1,000 deep
LARGE = 50_000  # digits before the point that a number does not have


def terms(fields: Mapping[str, Any]) -> Iterable[str]:
    """What a document is found by, each once."""
    found = (_term(name, value) for field, held in fields.items() for name, value in flat(str(field), held))
    return dict.fromkeys(found)


def oddities(doc: Doc) -> Iterator[str]:
    """What is counted of documents (see :func:`rankpipe.retrieve.docs.write_docs`)."""
    if not doc.contents.strip():
        yield "empty_texts"
    if not doc.id or any(c.isspace() for c in doc.id):
        yield "ids_with_white_space"


def key(cut: Passages | None) -> str:
    """The field that has the ids of documents."""
    return OF if cut else "id"


@lru_cache(maxsize=32)
def query(where: Filter) -> Any:
    """Lucene's query for the documents that meet a condition; to be asked for under the lock.

    :raises TypeError: If it is none of those in :mod:`rankpipe.where`.
    :raises RecipeError: If a range is between longer texts than Lucene takes.
    """
    find = java.find
    match where:
        case Or():
            return both(SHOULD=map(query, where.parts))
        case And():
            return both(FILTER=map(query, where.parts))
        case Not():
            every = find("org.apache.lucene.search.MatchAllDocsQuery")()
            return both(FILTER=[every], MUST_NOT=[query(where.part)])
        case Exists():
            return having(where.field)
        case Equals() | In():
            sought = find("java.util.ArrayList")()
            for value in where.values:
                if kind_of(value) != OTHER:
                    sought.add(_bytes(_term(where.field, value)))
            return find("org.apache.lucene.search.TermInSetQuery")(FIELD, sought)
        case Range():
            begin, end = _section(where.field, kind := KINDS[type(where.values[0])])
            for bound in where.bounds.values():
                if (size := len(str(bound).encode())) > FARTHEST:
                    said = f"a text of {size} bytes; Lucene compares with {FARTHEST} at most"
                    raise RecipeError([f"where: {where.field}: {said}"])
            bounds = {name: _written(where.field, kind, bound) for name, bound in where.bounds.items()}
            low, high = bounds.get("gte", bounds.get("gt", begin)), bounds.get("lte", bounds.get("lt", end))
            return _between(low, high, "gt" not in bounds, "lte" in bounds)
    raise TypeError(f"{type(where).__name__} is no filter")


def having(name: str, kind: str | None = None, *, first: bool = False) -> Any:
    """Lucene's query for the documents that have such a field; of one kind, if that is asked for.

    :param first: only for the first passages of documents.
    """
    found = _between(*_section(name, kind), True, False)
    if not first:
        return found
    term = java.find("org.apache.lucene.index.Term")(*FIRST)
    return both(FILTER=[found, java.find("org.apache.lucene.search.TermQuery")(term)])


def names(reader: Any) -> Iterator[str]:
    """Of all fields that a document has; of each segment.

    :param reader: Lucene's, of the index.
    """
    there = [found for leaf in reader.leaves().toArray() if (found := leaf.reader().terms(FIELD))]
    for walk in (found.iterator() for found in there):
        sought = ""
        while walk.seekCeil(_bytes(sought)).toString() != "END":
            name, _ = json.JSONDecoder().raw_decode(walk.term().utf8ToString())
            yield name
            _, sought = _section(name)


def both(**clauses: Iterable[Any]) -> Any:
    """One query of several, each as Lucene's BooleanClause.Occur is named."""
    made = java.find("org.apache.lucene.search.BooleanQuery$Builder")()
    for occur, queries in clauses.items():
        for one in queries:
            made.add(one, getattr(java.find("org.apache.lucene.search.BooleanClause$Occur"), occur))
    return made.build()


def _section(name: str, kind: str | None = None) -> tuple[str, str]:
    """From which term to which, without that, the values of a field lie, or those of one kind."""
    begin = json.dumps(name)
    first, last = (SIGNS[kind],) * 2 if kind else (min(SIGNS.values()), max(SIGNS.values()))
    return begin + first, begin + chr(ord(last) + 1)


def _between(low: str, high: str, with_low: bool, with_high: bool) -> Any:
    """Lucene's query for the documents that have a term between two."""
    return java.find("org.apache.lucene.search.TermRangeQuery")(FIELD, _bytes(low), _bytes(high), with_low, with_high)


def _term(name: str, value: Any) -> str:
    return _written(name, kind_of(value), value)


def _written(name: str, kind: str, value: Any) -> str:
    begin, _ = _section(name, kind)
    if kind == "number":
        return begin + _sortable(value)
    return begin + ("" if kind == OTHER else str(value))


def _sortable(number: float) -> str:
    """Digits that sort as numbers do, exactly: sign, how many stand before the point, and they themselves."""
    if not number:
        return "2"
    if abs(number) == inf:
        return "4" if number > 0 else "0"
    sign, digits, exponent = Decimal(number).as_tuple()
    assert isinstance(exponent, int)  # of what is finite
    said = f"{len(digits) + exponent + LARGE:06}" + "".join(map(str, digits)).rstrip("0")
    return f"1{said.translate(TURNED)}~" if sign else f"3{said}"


def _bytes(term: str) -> Any:
    return java.find("org.apache.lucene.util.BytesRef")(term.encode())
