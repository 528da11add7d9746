"""The texts an index keeps, and which of two documents comes first where their scores are equal.

``docs.jsonl`` has one document a line in BEIR's layout, ``offsets.npy`` (N + 1,) where each line begins, ``ids`` the
ids, and ``precedence.npy`` (N,) each document's place when the ids are sorted falling, as trec_eval breaks ties.
``fields/`` has their fields by value (:mod:`rankpipe.retrieve.fields`).
"""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Ranking
from rankpipe.errors import ArtefactError, DataError
from rankpipe.retrieve.fields import terms
from rankpipe.retrieve.memory import TERM
from rankpipe.retrieve.postings import Spill
from rankpipe.retrieve.strings import Strings, forgetting, mapped, write_strings
from rankpipe.store import TEXTS

if TYPE_CHECKING:
    from rankpipe.retrieve.parts import Part

CACHE_BYTES = 64 << 20


class Texts(Protocol):
    """Documents by position."""

    def __getitem__(self, position: int, /) -> Doc:
        """One of them."""
        ...


class Docs:
    """The documents of an index by position, read from disk when asked for.

    :param folder: where :func:`write_docs` has put them.
    :param cache_bytes: how much text is kept ready, so that rankings that share documents need not parse them again.
    """

    def __init__(self, folder: Path, cache_bytes: int = CACHE_BYTES) -> None:
        with open(folder / "docs.jsonl", "rb") as f:
            self._lines = mmap(f.fileno(), 0, access=ACCESS_READ)
        self._offsets = mapped(folder / "offsets.npy")
        self.folder = folder
        self.precedence: NDArray[np.int32] = mapped(folder / "precedence.npy")
        self.ids = Strings(folder / "ids")
        self._ready: dict[int, Doc] = {}
        self._ready_bytes, self._cache_bytes = 0, cache_bytes

    def __len__(self) -> int:
        return len(self.precedence)

    def __getitem__(self, position: int) -> Doc:
        doc = self._ready.get(position)
        return doc if doc is not None else self._read(position)

    def __iter__(self) -> Iterator[Doc]:
        return self.each(range(len(self)))

    def each(self, positions: Iterable[int]) -> Iterator[Doc]:
        """The documents at these positions, one after the other; none is kept ready."""
        return forgetting(map(self._parse, positions), self._lines)

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Where the documents of these ids are; those that are not there are left out."""
        if self.ids.order is None:
            self.ids.order = np.argsort(self.precedence)[::-1].astype(np.int32)
        return {i: place for i in ids if (place := self.ids.find(i)) is not None}

    def _read(self, position: int) -> Doc:
        size = int(self._offsets[position + 1] - self._offsets[position])
        if self._ready_bytes + size > self._cache_bytes:
            self._ready, self._ready_bytes = {}, 0
        doc = self._ready[position] = self._parse(position)
        self._ready_bytes += size
        return doc

    def _parse(self, position: int) -> Doc:
        try:
            return parsed(self._lines[self._offsets[position] : self._offsets[position + 1]])
        except (ValueError, TypeError, KeyError):
            where = f"{self.folder / TEXTS}:{position + 1}"
            raise ArtefactError(f"{where}: damaged; rankpipe index verify says what else is, and the cure") from None


class Stored(Doc):
    """A document of an index, whose title and text are read when they are first asked for.

    It passes for a :class:`Doc`, so that it equals one, and replacing a field of it or pickling it makes one; but not
    pickling one whose texts lie elsewhere (:func:`lean`).
    """

    __slots__ = ("_docs", "_place")
    __class__ = Doc  # type: ignore[assignment]
    _docs: Texts
    _place: int

    def __init__(self, id: str, docs: Texts, place: int) -> None:
        _set_id(self, id)
        _set_docs(self, docs)
        _set_place(self, place)

    @property
    def text(self) -> str:
        """As stored."""
        return self._docs[self._place].text

    @property
    def title(self) -> str:
        """As stored; "" if it has none."""
        return self._docs[self._place].title

    @property
    def fields(self) -> Mapping[str, Any]:
        """As stored."""
        return self._docs[self._place].fields

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self._docs) is Elsewhere:
            return Stored, (self.id, self._docs, self._place)
        return Doc, (self.id, self.text, self.title, self.fields)


# past the frozen class, and twice as fast as object.__setattr__: a thousand are made for a query
_set_id, _set_docs, _set_place = Doc.id.__set__, Stored._docs.__set__, Stored._place.__set__  # type: ignore[attr-defined, misc]


def renamed(doc: Doc, id: str) -> Doc:
    """The same document under another id; nothing of it is read for that."""
    return Stored(id, doc._docs, doc._place) if isinstance(doc, Stored) else replace(doc, id=id)


class Elsewhere:
    """The texts in a folder, opened when the first is asked for, in whatever process that is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, position: int) -> Doc:
        return _opened(self.folder)[position]


@lru_cache(maxsize=1024)
def _opened(folder: Path) -> Docs:
    """Once in a process."""
    try:
        return Docs(folder)
    except FileNotFoundError:
        raise ArtefactError(f"{folder}: is gone, for the index was changed meanwhile; search it again") from None


def lean(rankings: Iterable[Ranking]) -> list[Ranking]:
    """The rankings as they are sent to another process: of the documents of an index only where they lie."""
    places: dict[Path, Elsewhere] = {}

    def leaner(doc: Doc) -> Doc:
        if type(doc) is not Stored or not isinstance(doc._docs, Docs):
            return doc
        return Stored(doc.id, places.setdefault(doc._docs.folder, Elsewhere(doc._docs.folder)), doc._place)

    return [replace(r, hits=tuple(Hit(leaner(h.doc), h.score) for h in r.hits)) for r in rankings]


def within(rankings: Iterable[Ranking], opened: Iterable[Docs]) -> None:
    """Have texts that lie in these folders, which are open, read from there: they may go from the disk meanwhile."""
    known = {docs.folder.name: docs for docs in opened}
    for hit in chain.from_iterable(r.hits for r in rankings):
        if isinstance(hit.doc, Stored) and isinstance(hit.doc._docs, Elsewhere):
            _set_docs(hit.doc, known[hit.doc._docs.folder.name])


def write_docs(docs: Iterable[Doc], draft: Part) -> Iterator[Doc]:
    """Keep the documents in ``draft`` while they pass by, so that whoever indexes them reads the corpus once.

    When the last has passed, ``draft.facts`` counts the documents, those without text, and those whose ids have white
    space (or are empty): a TREC run cannot hold them. Memory: the ids, 16 bytes a document, and the different values of
    fields, which are counted in ``draft.held``.

    :raises DataError: If there is no document, an id comes twice, a text has half a character (a lone surrogate), or a
        field is no JSON. Of an id that comes twice a collection's own stream, which knows its file and line, is let
        speak first.
    """
    ids = dict[str, None]()
    offsets = array("q", [0])
    empty, columns = 0, Spill(draft.folder / "fields.bin", block=draft.block)
    with open(draft.folder / "docs.jsonl", "wb") as f, open(columns.path, "wb") as spilled:
        for doc, line in checked(docs, ids):
            empty += not doc.contents.strip()
            offsets.append(offsets[-1] + f.write(line))
            values = terms(doc.fields)
            draft.count_values(sum(TERM + len(term) for term in values if term not in columns.vocabulary))
            columns.add(values, spilled)
            yield doc
    if columns.vocabulary:
        (draft.folder / "fields").mkdir(exist_ok=True)
        columns.invert(draft.folder / "fields")
    columns.path.unlink(missing_ok=True)
    np.save(draft.folder / "offsets.npy", np.array(offsets, np.int64))
    write_strings(draft.folder / "ids", ids)
    np.save(draft.folder / "precedence.npy", _precedence(list(ids)))
    spaced = sum(not i or any(c.isspace() for c in i) for i in ids)
    draft.facts |= {"documents": len(ids), "empty_texts": empty, "ids_with_white_space": spaced}


def checked(docs: Iterable[Doc], ids: dict[str, None]) -> Iterator[tuple[Doc, bytes]]:
    """The documents, each with its line of JSON in BEIR's layout, while their ids are noted in ``ids``.

    :raises DataError: As :func:`write_docs`.
    """
    docs = iter(docs)
    for doc in docs:
        if doc.id in ids:
            deque(docs, maxlen=0)  # a collection refuses it itself, at its end at the latest, and says where
            raise DataError(f"document {len(ids) + 1}: the id {doc.id!r} is there twice; ids must be unique")
        ids[doc.id] = None
        yield doc, line_of(doc, len(ids))
    if not ids:
        raise DataError("the corpus is empty: there is nothing to index; is the path right?")


def best(scores: NDArray[np.float32], precedence: NDArray[np.int32], k: int) -> NDArray[np.intp]:
    """The positions of the ``k`` highest scores, best first; equal scores in trec_eval's order, at the cut as well.

    :param scores: (N,).
    :param precedence: (N,); of two equal scores the smaller goes first.
    """
    chosen = np.arange(len(scores))
    if k < len(scores):
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= edge)
    return chosen[np.lexsort((precedence[chosen], -scores[chosen]))[:k]]


def _precedence(ids: list[str]) -> NDArray[np.int32]:
    falling = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    places = np.empty(len(ids), np.int32)
    places[falling] = np.arange(len(ids), dtype=np.int32)
    return places


def parsed(line: bytes) -> Doc:
    """The document that :func:`line_of` made a line of."""
    told = json.loads(line)
    return Doc(told["_id"], told["text"], told["title"], told.get("metadata", {}))


def line_of(doc: Doc, number: int) -> bytes:
    """A document as a line of JSON in BEIR's layout.

    :param number: which one it is, for errors.
    :raises DataError: If it has half a character, a field that is no JSON, or what is no text in a text's place.
    """
    for name, value in (("id", doc.id), ("title", doc.title), ("text", doc.text)):
        if not isinstance(value, str):
            raise DataError(f"document {number} ({doc.id!r}): its {name} is a {type(value).__name__}, expected a str")
    if not doc.id:
        raise DataError(f"document {number}: its id is empty; every document needs one of its own")
    told = {"_id": doc.id, "title": doc.title, "text": doc.text} | ({"metadata": doc.fields} if doc.fields else {})
    try:
        return json.dumps(told, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DataError(
            f"document {number} ({doc.id!r}): {error.object[error.start]!r} is half a character (a lone surrogate), "
            "which no Unicode text has; remove it"
        ) from None
    except (TypeError, ValueError) as error:
        raise DataError(f"document {number} ({doc.id!r}): its fields are no JSON: {error}") from None
