"""Token vectors as a model makes them, or as older segments have them, on their way to where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankpipe.colbert import Read, TokenEncoder
from rankpipe.data import Doc
from rankpipe.errors import ModelError
from rankpipe.progress import track
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.grown import Grown, Known, Places, Rows, grow, shards
from rankpipe.retrieve.recall import FEW, Truth, WatchedTokens, drawn
from rankpipe.retrieve.residuals import Codec
from rankpipe.retrieve.strings import forget
from rankpipe.retrieve.tokens import TokenRows, packed
from rankpipe.retrieve.vectors import Columns, Vectors, spans

SHARD = 128  # documents encoded between two savings
SAMPLE = 24  # documents that centroids are learned from, times the square root of all
AWRY = 0.01  # how far from 1 the length of a vector may be


class Reader:
    """Makes token vectors, and what is kept of them.

    :param name: of the model.
    :param codec: compresses them; None leaves them whole.
    """

    def __init__(self, name: str, encoder: TokenEncoder) -> None:
        self._name, self._encoder = name, encoder
        self.codec: Codec | None = None
        self._watched: WatchedTokens | None = None

    @property
    def truth(self) -> Truth | None:
        """What was seen of vectors before they were compressed; None if nobody looked."""
        return self._watched.truth if self._watched else None

    def watch(self, truth: Truth) -> None:
        """Look at vectors before they are compressed, from now on."""
        self._watched = WatchedTokens(truth)

    def seen(self, folder: Path, documents: int) -> None:
        """Keep what was seen, before the folder has so many documents."""
        if self.truth:
            self.truth.keep(folder, documents)

    def keep(self, codec: Codec | None, folder: Path) -> None:
        """Keep vectors so from now on, as the segment's folder says."""
        self.codec = codec
        if codec:
            codec.save(folder)
        else:
            (folder / "codec.npz").unlink(missing_ok=True)

    def takes(self, known: Known[TokenRows]) -> Known[TokenRows]:
        """Of older segments those whose vectors lose nothing on the way: that have them whole, or compressed alike."""
        known.only(lambda s: s.codec is None or (self.codec is not None and self.codec.like(s.codec)))
        return known

    def fresh(self, places: Places, docs: Sequence[Doc]) -> Rows:
        """What is kept of documents.

        :raises ModelError: As :func:`refuse`.
        """
        reads = [*self._encoder.docs([doc.contents for doc in docs])]
        refuse([f"document {doc.id!r}" for doc in docs], reads, self._name)
        vectors, cut = [read.vectors for read in reads], np.array([read.cut for read in reads])
        return _told(np.array([*map(len, vectors)], np.int32), cut), self._packed(places, vectors)

    def taken(self, places: Places, segment: TokenRows, there: Places) -> Rows:
        """What is kept of documents of an older segment."""
        lengths = segment.lengths[there]
        rows, told = spans(segment.starts[there], lengths), _told(lengths, segment.cut[there])
        if segment.codec or not self.codec:
            kept = {name: column[rows] for name, column in segment.columns.items()}
        else:
            kept = self._packed(places, np.split(segment.vectors(rows), np.cumsum(lengths)[:-1]))
        forget(*segment.columns.values())
        return told, kept

    def _packed(self, places: Places, vectors: Sequence[Vectors]) -> Columns:
        if self._watched:
            self._watched.see(places, vectors)
        return packed(np.concatenate(vectors), self.codec)


def refuse(texts: Sequence[str], reads: Sequence[Read], model: str) -> None:
    """Refuse token vectors that are none.

    :raises ModelError: If they are not one :class:`~rankpipe.colbert.Read` for each text, or a vector is not of length
        1; says of which text.
    """
    if len(reads) != len(texts):
        raise ModelError(f"{model}: read {len(reads)} texts, expected {len(texts)}")
    for text, one in zip(texts, reads, strict=True):
        if not isinstance(one, Read):
            raise ModelError(f"{model}: gave a {type(one).__name__} for {text}, expected a rankpipe.colbert.Read")
        if np.ndim(one.vectors) != 2:
            raise ModelError(f"{model}: {text} has numbers of shape {np.shape(one.vectors)}, expected a vector a token")
        if not (np.abs(np.linalg.norm(one.vectors, axis=1) - 1) < AWRY).all():
            raise ModelError(f"{model}: {text} has a vector that is not of length 1")


class Sample:
    """Whole token vectors of some documents, to learn from; they are kept meanwhile, so as not to be made twice.

    :param docs: all of them.
    :param known: what older segments have.
    :param reader: keeps vectors whole.
    """

    def __init__(self, folder: Path, way: str, docs: Docs, known: Known[TokenRows], reader: Reader) -> None:
        some = min(len(docs), ceil(SAMPLE * len(docs) ** 0.5))
        self._places = np.sort(np.random.default_rng(0).choice(len(docs), some, replace=False))
        grown = Grown(folder, way)
        left = self._places[grown.documents :].tolist()
        places = track(left, "token vectors to learn from", len(left))
        grow(shards(docs, places, grown.documents, SHARD), grown, reader.takes(known), reader)
        self._rows = TokenRows(folder)
        self.tokens = round(len(self._rows.columns["vectors"]) / some * len(docs))  # of all documents, about

    def learned(self, bits: int) -> Codec:
        """How to compress the vectors of all."""
        return Codec.learn(self._rows.columns["vectors"], self.tokens, bits)

    def truth(self) -> Truth:
        """What will tell how well compressed vectors say which documents are near to some of these."""
        there = np.flatnonzero(self._rows.lengths)
        there = there[drawn(len(there), FEW)]
        begins = self._rows.starts[there].tolist()
        lengths = np.minimum(self._rows.lengths[there], FEW).tolist()
        vectors = [self._rows.vectors(slice(a, a + n)) for a, n in zip(begins, lengths, strict=True)]
        forget(*self._rows.columns.values())
        return Truth(self._places[there], np.concatenate(vectors), np.array(lengths))


def inherited(known: Known[TokenRows], hashes: NDArray[np.uint64]) -> Codec | None:
    """How an older segment compresses vectors, if it has most of some texts: they can be taken as they are."""
    found = [(len(there), s.codec) for _, s, there in known.of(hashes) if s.codec]
    most, codec = max(found, key=lambda one: one[0], default=(0, None))
    return codec if 2 * most > len(hashes) else None


def _told(lengths: NDArray[np.int32], cut: NDArray[np.bool_]) -> Columns:
    return {"lengths": lengths, "cut": cut}
