"""One record of JSON into one document or query, strictly: what is not understood is refused, with its place.

The names a field may have; where a record has several of them, the first in this table counts:

| field | names |
| --- | --- |
| document id | ``_id``, ``id``, ``docid``, ``doc_id``, ``docno`` |
| document text | ``text``, ``contents``, ``content``, ``body``, ``passage``, ``segment`` |
| document title | ``title`` (may be missing or null) |
| query id | ``_id``, ``id``, ``qid``, ``query_id`` |
| query text | ``text``, ``query``, ``question``, ``title`` |

An id is a string that is not empty, kept as it is, or a whole number, kept as its digits. A document's text may be
empty, a query's may not. All other fields of a document are kept as :attr:`rankpipe.data.Doc.fields`, those in an
object ``metadata``, as BEIR has them, beside those at the top. Other fields of a query are not read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any

from rankpipe.data import Doc, Query
from rankpipe.datasets.unique import unique
from rankpipe.errors import DataError
from rankpipe.trec import lines

DOC_ID = ("_id", "id", "docid", "doc_id", "docno")
DOC_TEXT = ("text", "contents", "content", "body", "passage", "segment")
QUERY_ID = ("_id", "id", "qid", "query_id")
QUERY_TEXT = ("text", "query", "question", "title")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(line: str, place: str) -> dict[str, Any]:
    """The JSON object in a line.

    :raises DataError: If it is no JSON, no object, or holds half a character (a lone surrogate).
    """
    try:
        record = json.loads(line)
        if _SURROGATE.search(line):
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: not JSON: {error.msg} at column {error.colno}; one object a line is expected"
        ) from None
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataError(f"{place}: {half} is half a character (a lone surrogate); replace it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: JSON that cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: a JSON {type(record).__name__}, expected an object {{...}} on each line")
    return record


def doc(record: Mapping[str, Any], place: str) -> Doc:
    """A document from its fields.

    :raises DataError: If the id or the text is missing or is no text, or a field is there twice.
    """
    title = record.get("title")
    return Doc(
        identifier(record, DOC_ID, place),
        text(record, DOC_TEXT, place),
        "" if title is None else text(record, ("title",), place),
        fields(record, (_name(record, DOC_ID, place), _name(record, DOC_TEXT, place), "title"), place),
    )


def fields(record: Mapping[str, Any], read: Collection[str], place: str) -> dict[str, Any]:
    """All fields of a record but those that were read; what is in an object ``metadata`` is taken out of it.

    :raises DataError: If a field is in it and beside it.
    """
    left = {name: value for name, value in record.items() if name not in read}
    inner = left.pop("metadata", None)
    if not isinstance(inner, dict):
        return left if inner is None else {**left, "metadata": inner}
    if both := left.keys() & inner.keys():
        raise DataError(f"{place}: {min(both)!r} is in 'metadata' and beside it; leave one of them out")
    return left | inner


def query(record: Mapping[str, Any], place: str) -> Query:
    """A query from its fields.

    :raises DataError: If the id or the text is missing, empty, or no text.
    """
    return asked(identifier(record, QUERY_ID, place), text(record, QUERY_TEXT, place), place)


def asked(id: str, text: str, place: str) -> Query:
    """A query that asks something.

    :raises DataError: If its text is empty.
    """
    if not text.strip():
        raise DataError(f"{place}: query {id!r} has an empty text; remove it or write one")
    return Query(id, text)


def identifier(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> str:
    """An id as a string.

    :raises DataError: If it is missing, empty, or neither a string nor a whole number.
    """
    name = _name(record, names, place)
    value = record[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{place}: {name!r} is {_shown(value)}, expected a string or a whole number")
    if not value:
        raise DataError(f"{place}: {name!r} is empty; every record needs an id")
    return value


def text(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> str:
    """A text, as it is.

    :raises DataError: If it is missing or no string.
    """
    name = _name(record, names, place)
    value = record[name]
    if not isinstance(value, str):
        raise DataError(f'{place}: {name!r} is {_shown(value)}, expected a string ("" where there is no text)')
    return value


def _name(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> str:
    for name in names:
        if name in record:
            return name
    there = ", ".join(map(repr, list(record)[:8])) or "no field at all"
    raise DataError(f"{place}: no {' or '.join(map(repr, names))} in the record; it has {there}")


def _shown(value: Any) -> str:
    return "null" if value is None else f"the {type(value).__name__} {str(value)[:40]!r}"


@dataclass(frozen=True)
class Jsonl:
    """A corpus in one file of JSON lines; ``.gz`` is unpacked on the way."""

    path: Path

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @cached_property
    def count(self) -> int:
        """Its lines that are not blank: quicker than reading the documents."""
        with _unpacked(self.path) as f:
            return sum(not line.isspace() for line in f)

    def docs(self) -> Iterator[Doc]:
        """Its documents."""
        return unique(self.placed)

    def placed(self) -> Iterator[tuple[str, Doc]]:
        """Its documents, each with its file and line."""
        return ((place, doc(parse(line, place), place)) for place, line in lines(self.path))

    def checksum(self) -> str:
        """The sha256 of the unpacked file."""
        with _unpacked(self.path) as f:
            return hashlib.file_digest(f, "sha256").hexdigest()


def read_queries(path: Path) -> tuple[Query, ...]:
    """The queries of a file of JSON lines.

    :raises DataError: At a line that is no query, or an id that came before; says where.
    """
    return tuple(unique(lambda: ((place, query(parse(line, place), place)) for place, line in lines(path))))


@contextmanager
def _unpacked(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            yield f
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error})") from None
