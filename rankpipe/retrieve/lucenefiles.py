"""A folder of Lucene's files, written and read through Java in Anserini's fields, so that Pyserini can open it, too.

A document has its ``id``, a line of JSON in BEIR's layout (``raw``) and ``contents``, title and text joined; ``title``
and ``text`` beside it, where they are to be searched apart; and what it is filtered by (``lucenefields.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankpipe import java
from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.java import LOCK, locked
from rankpipe.retrieve.docs import line_of
from rankpipe.retrieve.lucenefaults import refusals
from rankpipe.retrieve.lucenefields import FIELD, FIRST, OF, key, oddities, terms
from rankpipe.retrieve.lucenereader import directory
from rankpipe.retrieve.memory import ANY
from rankpipe.retrieve.passages import Passages

LONGEST = 32766  # bytes of a term
RAM_MB = 256.0  # of Java's memory, before documents are written out, at most


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
    clean: bool = True,
) -> Iterator[Writer]:
    """Change the index in the folder, or make one: all that the block does, or nothing after what it commits. Files are
    only added and removed, never written into.

    :param cut: how documents are cut, that are put.
    :param memory: bytes that may be held.
    :param segments: of the index in the end, at most.
    :param clean: leave nothing that was deleted in any segment, so that Lucene's statistics are those of the living.
    :raises DiskError: If Lucene cannot write there.
    """
    index = "org.apache.lucene.index."
    with refusals(folder):
        with LOCK:
            config = java.find(f"{index}IndexWriterConfig")(analyzer)
            config.setMergePolicy(java.find(f"{index}LogByteSizeMergePolicy")())  # keeps the documents in their order
            config.setMergeScheduler(java.find(f"{index}SerialMergeScheduler")())
            config.setRAMBufferSizeMB(ram_mb(memory))
            writer = java.find(f"{index}IndexWriter")(directory(folder), config)
            puts = Writer(writer, fields, cut)
        try:
            yield puts  # others may search meanwhile, between two documents
            with LOCK:
                if clean:
                    writer.forceMergeDeletes()
                if segments:
                    writer.forceMerge(segments)
                writer.commit()
                writer.close()
        except BaseException:
            with LOCK:
                writer.rollback()
            raise


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
