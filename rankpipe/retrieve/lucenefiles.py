"""A folder of Lucene's files, written and read through Java in Anserini's fields, so that Pyserini can open it, too.

A document has its ``id``, a line of JSON in BEIR's layout (``raw``) and ``contents``, title and text joined; ``title``
and ``text`` beside it, where they are to be searched apart; and what it is filtered by (``lucenefields.py``).
"""

from __future__ import annotations

import json
import weakref
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rankpipe import java
from rankpipe.data import Doc
from rankpipe.errors import ArtefactError, DataError
from rankpipe.java import LOCK, locked
from rankpipe.retrieve.docs import line_of
from rankpipe.retrieve.lucenefaults import refusals
from rankpipe.retrieve.lucenefields import FIELD, FIRST, OF, key, oddities, terms
from rankpipe.retrieve.memory import ANY
from rankpipe.retrieve.passages import Passages

LONGEST = 32766  # bytes of a term
RAM_MB = 256.0  # of Java's memory, before documents are written out, at most
TEXTS = ("text", "contents", "passage", "segment", "body")  # where Anserini's collections have their text
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
            self.java = java.find("org.apache.lucene.index.DirectoryReader").open(_directory(folder))
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

    @locked
    def count(self, field: str, term: str) -> int:
        """How many documents have the term."""
        return int(self.java.docFreq(java.find("org.apache.lucene.index.Term")(field, term)))

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


class Writer:
    """Puts documents into an index and takes them out; see :func:`writing`."""

    def __init__(self, writer: Any, fields: Iterable[str], cut: Passages | None) -> None:
        self.java, self._cut = writer, cut
        find = java.find
        self._term, self._document = find("org.apache.lucene.index.Term"), find("org.apache.lucene.document.Document")
        self._query = find("org.apache.lucene.search.TermQuery")
        self._bytes = find("org.apache.lucene.util.BytesRef")
        kept = find("org.apache.lucene.document.Field$Store")
        self._string = find("org.apache.lucene.document.StringField")
        self._kept, self._not = kept.YES, kept.NO
        self._id = self._string("id", "", self._kept)
        self._order = find("org.apache.lucene.document.BinaryDocValuesField")("id", self._bytes(b""))
        self._raw = find("org.apache.lucene.document.StoredField")("raw", "")
        self._fields = {name: _searched(name) for name in fields}
        self._terms = list[Any]()  # as many as a document has had; a new one costs more than what is done with it
        told = writer.getLiveCommitData().iterator()
        self._documents = int(told.next().getValue()) if told.hasNext() else 0

    def __len__(self) -> int:
        """How many documents were put, with those that a build has put before."""
        return self._documents

    @locked
    def commit(self) -> None:
        """Keep what was done so far, whatever becomes of the rest."""
        told = java.find("java.util.HashMap")()
        told.put("documents", str(self._documents))
        self.java.setLiveCommitData(told.entrySet())
        self.java.commit()

    @locked
    def put(self, doc: Doc, line: bytes, *, new: bool) -> None:
        """Add a document; one that is not new takes the place of that with its id.

        :param line: the document as JSON.
        :raises DataError: If its id or the name of a field is too long for Lucene.
        """
        self._documents += 1
        if self._cut:
            if not new:
                self.delete(doc.id)
            for place, passage in enumerate(self._cut.split([doc])):
                own = [(OF, doc.id), *([FIRST] if not place else [])]
                self._put(passage, line_of(passage, self._documents), own)
        else:
            self._put(doc, line, new=new)

    def _put(self, doc: Doc, line: bytes, own: Iterable[tuple[str, str]] = (), *, new: bool = True) -> None:
        """Add a document or a passage.

        :param own: fields and terms that it is found by.
        """
        if len(key := doc.id.encode()) > LONGEST:
            raise DataError(f"document {doc.id[:40]!r}...: an id of {len(key)} bytes; Lucene has {LONGEST} at most")
        self._id.setStringValue(doc.id)
        self._order.setBytesValue(self._bytes(key))
        self._raw.setStringValue(line.decode())
        made = self._document()
        for field in (self._id, self._order, self._raw, *self._fields.values()):
            made.add(field)
        for name, field in self._fields.items():
            field.setStringValue(getattr(doc, name))
        for name, term in (*own, *(("odd", told) for told in oddities(doc))):
            made.add(self._string(name, term, self._not))
        for place, term in enumerate(terms(doc.fields)):
            if len(term.encode()) > LONGEST:
                raise DataError(f"document {doc.id!r}: the name of the field {term[:40]}... is too long for Lucene")
            if place == len(self._terms):
                self._terms.append(self._string(FIELD, "", self._not))
            self._terms[place].setStringValue(term)
            made.add(self._terms[place])
        if new:
            self.java.addDocument(made)
        else:
            self.java.updateDocument(self._term("id", doc.id), made)

    @locked
    def delete(self, id: str) -> None:
        """Take out the document of this id, if it is there."""
        self.java.deleteDocuments(self._query(self._term(key(self._cut), id)))


def ram_mb(memory: int) -> float:
    """Of Java's memory, before documents are written out, where so many bytes may be held."""
    return min(RAM_MB, memory / 4 / 2**20)


@contextmanager
def writing(
    folder: Path,
    analyzer: Any,
    fields: Iterable[str],
    cut: Passages | None = None,
    *,
    memory: int = ANY,
    segments: int | None = None,
) -> Iterator[Writer]:
    """Change the index in the folder, or make one: all that the block does, or nothing after what it commits.

    In the end nothing that was deleted is left in any segment, so that Lucene's statistics are those of the documents
    that are alive. Files are only added and removed, never written into.

    :param cut: how documents are cut, that are put.
    :param memory: bytes that may be held.
    :param segments: of the index in the end, at most.
    :raises DiskError: If Lucene cannot write there.
    """
    index = "org.apache.lucene.index."
    with refusals(folder):
        with LOCK:
            config = java.find(f"{index}IndexWriterConfig")(analyzer)
            config.setMergePolicy(java.find(f"{index}LogByteSizeMergePolicy")())  # keeps the documents in their order
            config.setMergeScheduler(java.find(f"{index}SerialMergeScheduler")())
            config.setRAMBufferSizeMB(ram_mb(memory))
            writer = java.find(f"{index}IndexWriter")(_directory(folder), config)
            puts = Writer(writer, fields, cut)
        try:
            yield puts  # others may search meanwhile, between two documents
            with LOCK:
                writer.forceMergeDeletes()
                if segments:
                    writer.forceMerge(segments)
                writer.commit()
                writer.close()
        except BaseException:
            with LOCK:
                writer.rollback()
            raise


@locked
def _close(reader: Any) -> None:
    reader.close()  # named here, not bound when the reader was opened: jnius would close whichever was asked last


def _directory(folder: Path) -> Any:
    """Without Lucene's own lock: ours is held by whoever writes, and leaves no file."""
    path = java.find("java.nio.file.Paths").get(str(folder.resolve()))
    unlocked = java.find("org.apache.lucene.store.NoLockFactory").INSTANCE
    return java.find("org.apache.lucene.store.FSDirectory").open(path, unlocked)


def _searched(name: str) -> Any:
    """A field of words with their counts, without their places."""
    kind = java.find("org.apache.lucene.document.FieldType")()
    kind.setIndexOptions(java.find("org.apache.lucene.index.IndexOptions").DOCS_AND_FREQS)
    kind.freeze()
    return java.find("org.apache.lucene.document.Field")(
        name,
        java.find("java.lang.String")(""),
        kind,
        signature="(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V",
    )


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
