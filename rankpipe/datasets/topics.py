"""Queries in the files that evaluations hand out. The first character tells the format:

``<``  classic TREC topics, ``<top> <num> Number: 301 <title> ... </top>``: the number and the title are read;
``{``  JSON lines, see :mod:`rankpipe.datasets.records`;
else   one query a line, its id and its text with a tab between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rankpipe.data import Query
from rankpipe.datasets.records import asked, read_queries
from rankpipe.datasets.unique import unique
from rankpipe.errors import DataError
from rankpipe.trec import lines

_TAG = re.compile(r"\s*<(/?\w+)[^>]*>(.*)")
_LABEL = {"num": "Number:", "title": "Topic:"}  # words that some years put before the value


def read_topics(path: Path) -> tuple[Query, ...]:
    """The queries of a file, in its order; ``.gz`` is unpacked.

    :raises DataError: If it is empty, a line is no query, or an id comes twice; says the line.
    """
    first = next((line.lstrip()[0] for _, line in islice(lines(path), 1)), None)
    if first is None:
        raise DataError(f"{path}: no queries in it")
    if first == "{":
        return read_queries(path)
    return tuple(unique(lambda: _trec(path) if first == "<" else _tsv(path)))


def _tsv(path: Path) -> Iterator[tuple[str, Query]]:
    for place, line in lines(path):
        id, tab, text = line.partition("\t")
        if not tab or not id.strip():
            raise DataError(
                f"{place}: no query id and text with a tab between; accepted are TSV, JSON lines, TREC topics"
            )
        yield place, asked(id.strip(), text.strip(), place)


def _trec(path: Path) -> Iterator[tuple[str, Query]]:
    fields: dict[str, str] | None = None
    start, open_tag = "", ""
    for place, line in lines(path):
        tag = _TAG.match(line)
        name, value = (tag[1].lower(), tag[2]) if tag else ("", line)
        if name == "top":
            if fields is not None:
                raise DataError(f"{place}: <top> inside the topic of {start}, which has no </top>")
            fields, start, open_tag = {}, place, ""
        elif fields is None:
            raise DataError(
                f"{place}: {line.strip()[:40]!r} outside <top> ... </top>; classic TREC topics are expected"
            )
        elif name == "/top":
            yield start, _topic(fields, start)
            fields = None
        else:
            open_tag = name or open_tag
            closing = f"</{open_tag}>"
            fields[open_tag] = f"{fields.get(open_tag, '')} {value.replace(closing, ' ')}"
    if fields is not None:
        raise DataError(f"{start}: this <top> has no </top>")


def _topic(fields: dict[str, str], place: str) -> Query:
    number, title = (
        " ".join(fields.get(tag, "").split()).removeprefix(_LABEL[tag]).strip() for tag in ("num", "title")
    )
    if not number:
        raise DataError(f"{place}: the topic has no <num>")
    return asked(number, title, place)
