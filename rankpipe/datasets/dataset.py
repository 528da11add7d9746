"""A collection: documents that stream, queries, judgements, and the policies that go with them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from rankpipe.catalog import near
from rankpipe.data import Doc, Query
from rankpipe.datasets.facts import Collection
from rankpipe.datasets.unique import unique
from rankpipe.errors import DataError
from rankpipe.store import Data
from rankpipe.trec import Qrels, Run

SelfMatch = Literal["keep", "drop"]
Titles = Literal["join", "drop"]


class NoSplit(DataError):
    """A collection has no such split.

    :param place: of the splits.
    :param splits: those that it has.
    """

    def __init__(self, place: str, split: str, splits: Iterable[str]) -> None:
        self.splits = tuple(splits)
        super().__init__(place, split, self.splits)

    def __str__(self) -> str:
        place, split, splits = self.args
        meant = near(split, [*splits])
        return f"{place}: no split {split!r}{meant}{' It' if meant else '; it'} has {', '.join(splits)}"


class Corpus(Protocol):
    """Where documents come from. Nothing here holds them all."""

    @property
    def place(self) -> str:
        """What to call it in an error."""
        ...

    @property
    def count(self) -> int | None:
        """How many documents, where that is known or quickly counted."""
        ...

    @property
    def path(self) -> Path | None:
        """The file it is, where it is one."""
        ...

    def docs(self) -> Iterator[Doc]:
        """Stream the documents, from the first, at every call.

        :raises DataError: At a record that is no document, or an id that came before; says where.
        """
        ...

    def checksum(self) -> str:
        """The sha256 of the documents: of the unpacked file where there is one, else of :func:`digest`."""
        ...


@dataclass(frozen=True)
class Held:
    """A corpus in memory."""

    held: tuple[Doc, ...]
    place: str = "docs"
    path: None = None

    @property
    def count(self) -> int:
        """How many documents."""
        return len(self.held)

    def docs(self) -> Iterator[Doc]:
        """The documents."""
        return unique(lambda: ((f"{self.place}[{i}]", doc) for i, doc in enumerate(self.held)))

    def checksum(self) -> str:
        """:func:`digest` of them."""
        return digest(self.held)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A collection, opened at one split. Queries and judgements are held, documents stream.

    ``self_match`` says what becomes of a hit whose id is the query's own: BEIR's evaluation drops it, which matters
    where queries are documents (ArguAna, Quora). ``titles`` says whether a title is put before its text
    (``Doc.contents``, as BEIR does) or left out. Change either with ``dataclasses.replace``.
    """

    name: str  # canonical: collection/split
    corpus: Corpus | None
    queries: tuple[Query, ...] = ()
    qrels: Qrels = field(default_factory=dict)
    self_match: SelfMatch = "keep"
    titles: Titles = "join"
    known: Collection | None = None  # the facts it was checked against
    other_queries: int = 0  # queries of the source that belong to other splits, and are not in ``queries``
    notes: tuple[str, ...] = ()  # what a reader should know, in words

    @classmethod
    def of(
        cls, docs: Sequence[Doc], queries: Iterable[Query] = (), qrels: Qrels | None = None, name: str = "docs"
    ) -> Dataset:
        """A collection in memory.

        :raises DataError: If one is no :class:`Doc`.
        """
        return cls(name, Held(tuple(only_docs(docs)), name), tuple(queries), qrels or {})

    @property
    def count(self) -> int | None:
        """How many documents, where that is known or quickly counted."""
        if self.known:
            return self.known.documents
        return self.corpus.count if self.corpus else None

    def docs(self) -> Iterator[Doc]:
        """Stream the documents; each call starts at the first.

        Doubled ids are found in 8 bytes a document, at the latest when the stream ends.

        :raises DataError: If a record is no document, an id comes twice, there are none at all, or their number is not
            that of the known collection.
        """
        corpus, seen = self._corpus(), 0
        for seen, doc in enumerate(corpus.docs(), 1):  # noqa: B007  counts
            yield replace(doc, title="") if self.titles == "drop" else doc
        if not seen:
            raise DataError(f"{corpus.place}: no documents in it")
        if self.known and seen != self.known.documents:
            raise DataError(
                f"{corpus.place}: {seen} documents, but {self.known.id} has {self.known.documents}; "
                "get it again, or open it by its path under another folder name"
            )

    @cached_property
    def checksum(self) -> str:
        """Of the documents as they stream: sha256, hexadecimal. Reads them all, once.

        :raises DataError: If it is not that of the known collection.
        """
        corpus = self._corpus()
        found = corpus.checksum()
        if self.known and self.known.sha256 and corpus.path and found != self.known.sha256:
            raise DataError(
                f"{corpus.place}: its sha256 is {found}, but that of {self.known.id} is {self.known.sha256}; "
                "get it again, or open it by its path under another folder name"
            )
        return hashlib.sha256(f"{found} without titles".encode()).hexdigest() if self.titles == "drop" else found

    @property
    def data(self) -> Data:
        """What an artefact's manifest keeps of it."""
        return Data(self.name, self.checksum)

    @property
    def summary(self) -> dict[str, Any]:
        """What can be said without reading the documents: counts, policies, licence."""
        asked = {q.id for q in self.queries}
        grades = Counter(grade for of_query in self.qrels.values() for grade in of_query.values())
        return {
            "name": self.name,
            "documents": self.count,
            "queries": len(self.queries),
            "judged": len(asked & self.qrels.keys()),
            "unjudged": len(asked - self.qrels.keys()),
            "judged_without_text": len(self.qrels.keys() - asked),
            "other_queries": self.other_queries,
            "judgements": sum(grades.values()),
            "grades": dict(sorted(grades.items())),
            "self_match": self.self_match,
            "titles": self.titles,
            "licence": self.known.licence if self.known else "unknown",
            "notes": list(self.notes),
        }

    def verify(self) -> dict[str, int]:
        """Read every document and check all there is to check: ids, counts, checksum.

        :return: counts of documents, of empty ones (neither text nor title), of titled ones, of characters, and of
            judged documents that are not in the corpus.
        :raises DataError: As :meth:`docs` and :attr:`checksum` do.
        """
        judged = {doc for grades in self.qrels.values() for doc in grades}
        counts = Counter(documents=0, empty=0, titled=0, characters=0)
        for doc in self.docs():
            judged.discard(doc.id)
            counts["documents"] += 1
            counts["empty"] += not doc.contents.strip()
            counts["titled"] += bool(doc.title)
            counts["characters"] += len(doc.contents)
        _ = self.checksum
        return {**counts, "judged_missing": len(judged)}

    def without_self_matches(self, run: Run) -> tuple[Run, int]:
        """The run as the self-match policy wants it, and how many hits that dropped (0 under ``keep``)."""
        if self.self_match == "keep":
            return run, 0
        kept = {query: {d: s for d, s in scores.items() if d != query} for query, scores in run.items()}
        return kept, sum(len(run[query]) - len(kept[query]) for query in run)

    def _corpus(self) -> Corpus:
        if self.corpus is None:
            raise DataError(f"{self.name}: has no documents; open it with its corpus (corpus=...) to read their texts")
        return self.corpus


def only_docs(docs: Iterable[Doc]) -> Iterator[Doc]:
    """The documents, as they come.

    :raises DataError: If one is something else, or all together are; says what is expected.
    """
    if isinstance(docs, str | Dataset | Doc) or not isinstance(docs, Iterable):
        cure = "take its docs()" if isinstance(docs, Dataset) else "for example [Doc(id, text)]"
        raise DataError(f"documents: a {type(docs).__name__}, expected several of rankpipe.Doc; {cure}")
    for number, doc in enumerate(docs, 1):
        if not isinstance(doc, Doc):
            raise DataError(f"document {number}: a {type(doc).__name__}, expected a rankpipe.Doc: Doc(id, text)")
        yield doc


def digest(docs: Iterable[Doc]) -> str:
    """The checksum of documents that are no file: sha256 over a JSON line ``[id, title, text]`` for each, in order;
    ``[id, title, text, fields]`` for those that have fields.
    """
    state = hashlib.sha256()
    for doc in docs:
        told = [doc.id, doc.title, doc.text, *([doc.fields] if doc.fields else ())]
        state.update(json.dumps(told, separators=(",", ":"), default=str).encode() + b"\n")
    return state.hexdigest()
