"""A folder of Lucene's files, as it was when it was opened (``lucenefiles.py`` says what is in it)."""

from __future__ import annotations

import json
import weakref
from base64 import b64decode
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rankpipe import java
from rankpipe.data import Doc
from rankpipe.errors import ArtefactError
from rankpipe.java import LOCK, locked
from rankpipe.retrieve.lucenefaults import refusals

TEXTS = ("text", "contents", "passage", "segment", "body")  # where Anserini's collections have their text
PIECE = 1 << 12  # documents that Java is asked about at once
Found = tuple[int, str, float]  # Lucene's number of the document, its id, its score


class Reader:
    """The documents of an index as they were when it was opened, whatever becomes of the files.

    :param look: read all of it, for each file has its checksum.
    :raises FileNotFoundError: If there is no index in the folder, or a file of it has gone.
    :raises ArtefactError: If Lucene cannot read it.
    """

    @locked
    def __init__(self, folder: Path, *, look: bool = False) -> None:
        self.folder = folder
        with refusals(folder):
            self.java = java.find("org.apache.lucene.index.DirectoryReader").open(directory(folder))
            for number in range(self.segments if look else 0):
                self.java.leaves().get(number).reader().checkIntegrity()
        weakref.finalize(self, _close, self.java).atexit = False
        self._json = java.find("com.fasterxml.jackson.databind.ObjectMapper")()
        self._last = (-1, Doc("", ""))

    @locked
    def __len__(self) -> int:
        return int(self.java.numDocs())

    @property
    @locked
    def segments(self) -> int:
        """How many there are."""
        return int(self.java.leaves().size())

    @property
    @locked
    def names(self) -> list[str]:
        """Of its segments."""
        return [_name(leaf) for leaf in self._leaves]

    @property
    @locked
    def dead(self) -> int:
        """How many deleted documents are still in its segments."""
        return int(self.java.numDeletedDocs())

    @property
    @locked
    def segments_with_dead(self) -> dict[str, tuple[int, int]]:
        """The names of segments that have deleted documents, how many documents they have, and how many of these."""
        if not self.java.hasDeletions():
            return {}
        told = {
            _name(leaf): (int(leaf.reader().maxDoc()), int(leaf.reader().numDeletedDocs())) for leaf in self._leaves
        }
        return {name: (documents, dead) for name, (documents, dead) in told.items() if dead}

    @locked
    def segment_of(self, place: int) -> str:
        """The name of the segment of a document."""
        return _name(next(leaf for leaf in reversed(self._leaves) if leaf.docBase <= place))

    @locked
    def count(self, field: str, term: str) -> int:
        """How many documents that are alive have the term."""
        if self.java.hasDeletions():
            return int(self._searcher.count(self._having(field, term)))
        return int(self.java.docFreq(java.find("org.apache.lucene.index.Term")(field, term)))

    @locked
    def places(self, field: str, term: str) -> list[int]:
        """Of the documents that are alive and have the term, rising."""
        query = self._having(field, term)
        if not (many := int(self._searcher.count(query))):
            return []
        top = self._searcher.search(query, many)
        return sorted(int(hit.doc) for hit in top.scoreDocs)

    def living(self) -> Iterator[int]:
        """The places of the documents that are alive, rising."""
        with LOCK:
            alive = java.find("org.apache.lucene.index.MultiBits").getLiveDocs(self.java)
            end = int(self.java.maxDoc())
        for start in range(0, end, PIECE):
            piece = range(start, min(start + PIECE, end))
            with LOCK:  # others may search between two pieces
                some = piece if alive is None else [place for place in piece if alive.get(place)]
            yield from some

    @cached_property
    def _leaves(self) -> list[Any]:
        return list(self.java.leaves().toArray())

    @cached_property
    def _searcher(self) -> Any:
        kind = java.find("org.apache.lucene.search.IndexSearcher")
        return kind(self.java, signature="(Lorg/apache/lucene/index/IndexReader;)V")

    @staticmethod
    def _having(field: str, term: str) -> Any:
        return java.find("org.apache.lucene.search.TermQuery")(java.find("org.apache.lucene.index.Term")(field, term))

    def search(self, searcher: Any, query: Any, k: int) -> list[Found]:
        """The best for a query, best first; equal scores as trec_eval breaks them, at the cut as well.

        All hits cross from Java in one piece, as JSON: one call for each would cost more than the search.
        """
        top = searcher.search(query, k, _by_score(), True)
        hits = json.loads(self._json.writeValueAsString(top))["scoreDocs"]
        scores = np.array([hit["score"] for hit in hits], np.float32).tolist()
        ids = [_unpacked(hit["fields"][1]) for hit in hits]
        return [(hit["doc"], id, score) for hit, id, score in zip(hits, ids, scores, strict=True)]

    def raw(self, place: int) -> str | None:
        """A document as its collection had it; None if the index has no texts."""
        return self._stored(place)[1]

    def __getitem__(self, place: int) -> Doc:
        last = self._last
        if last[0] != place:
            last = self._last = place, _doc(*self._stored(place), self.folder)
        return last[1]

    @locked
    def _stored(self, place: int) -> tuple[str, str | None]:
        stored = self.java.storedFields().document(place)
        return stored.get("id"), stored.get("raw")


def directory(folder: Path) -> Any:
    """Lucene's of a folder, without its lock: ours is held by whoever writes, and leaves no file."""
    path = java.find("java.nio.file.Paths").get(str(folder.resolve()))
    unlocked = java.find("org.apache.lucene.store.NoLockFactory").INSTANCE
    return java.find("org.apache.lucene.store.FSDirectory").open(path, unlocked)


def _name(leaf: Any) -> str:
    return str(java.cast("org.apache.lucene.index.SegmentReader", leaf.reader()).getSegmentName())


@locked
def _close(reader: Any) -> None:
    reader.close()  # named here, not bound when the reader was opened: jnius would close whichever was asked last


def _by_score() -> Any:
    search = "org.apache.lucene.search."
    field = java.find(f"{search}SortField")
    by_id = field("id", java.find(f"{search}SortField$Type").STRING_VAL, True)
    return java.find(f"{search}Sort")(field.FIELD_SCORE, by_id)


def _unpacked(packed: dict[str, Any]) -> str:
    """Jackson's form of a BytesRef."""
    start = packed["offset"]
    return b64decode(packed["bytes"])[start : start + packed["length"]].decode()


def _doc(id: str, raw: str | None, folder: Path) -> Doc:
    """A document of an index, ours or one of Anserini's.

    :raises ArtefactError: If the index has no texts.
    """
    if raw is None:
        raise ArtefactError(f"{folder}: this index has no texts; take one that has, such as those named -full or -raw")
    if raw[:1] != "{":
        return Doc(id, raw)
    told = json.loads(raw)
    text = next((told[name] for name in TEXTS if name in told), raw)
    fields = told.get("metadata")
    return Doc(id, text, told.get("title") or "", fields if isinstance(fields, dict) else {})
