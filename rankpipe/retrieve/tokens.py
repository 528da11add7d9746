"""A segment of token vectors, and MaxSim over it: each of a query's tokens with the nearest of a document's, summed.

``lengths.npy`` (N,) says how many vectors each document has. They lie one after the other in ``vectors.npy`` (T,
dimension), in half precision; or, with ``codec.npz``, in ``codes.npy`` (T,) and ``residuals.npy`` (T, bytes), and then
postings say which documents each centroid has.

Scores are made twice. Products of all documents with all queries are fast, but their last bits depend on what else is
in the block; those that may be among the best are then compared document by document and query by query, so that a
score is the same in whatever segment or batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.docs import best
from rankpipe.retrieve.fields import Mask
from rankpipe.retrieve.postings import Postings, Spill
from rankpipe.retrieve.residuals import Codec
from rankpipe.retrieve.segment import Segment
from rankpipe.retrieve.strings import forget, forgetting, mapped
from rankpipe.retrieve.vectors import ROUNDING, Columns, Vectors, spans

Found = tuple[NDArray[np.intp], NDArray[np.float32]]  # places and scores of a query's documents, best first
Rows = slice | NDArray[np.int64]
SCORES = 1 << 24  # of documents for queries in memory at once, 4 bytes each
PRODUCTS = 1 << 24  # of token vectors, likewise
TOKENS = 1 << 14  # looked at together, at most


class TokenRows:
    """A vector for each token of each document."""

    def __init__(self, folder: Path) -> None:
        self.lengths: NDArray[np.int32] = mapped(folder / "lengths.npy")  # (documents,)
        self.cut: NDArray[np.bool_] = mapped(folder / "cut.npy")  # (documents,) whether its text was too long
        self.starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])
        self.codec = Codec.of(folder)
        names = ("codes", "residuals") if self.codec else ("vectors",)
        self.columns: dict[str, NDArray[Any]] = {name: mapped(folder / f"{name}.npy") for name in names}

    def rows(self, docs: NDArray[np.intp]) -> tuple[Rows, NDArray[np.int64]]:
        """Where the vectors of some documents are, and where among them each document's begin; (n + 1,).

        :param docs: rising.
        """
        lengths = self.lengths[docs]
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        if len(docs) and docs[-1] - docs[0] == len(docs) - 1:
            return slice(int(self.starts[docs[0]]), int(self.starts[docs[-1] + 1])), ends
        return spans(self.starts[docs], lengths), ends

    def vectors(self, rows: Rows) -> Vectors:
        """Token vectors, as well as they were kept."""
        kept = [column[rows] for column in self.columns.values()]
        return self.codec.unpack(*kept) if self.codec else kept[0].astype(np.float32)


class Tokens(Segment, TokenRows):
    """Documents with a vector for each of their tokens.

    :param passing: whether nothing that is read of these is to stay in memory.
    """

    def __init__(self, folder: Path, *, passing: bool = False) -> None:
        Segment.__init__(self, folder)
        TokenRows.__init__(self, folder)
        self._passing, self._most = passing, TOKENS // 4 if passing else TOKENS

    def open(self) -> None:
        """Open all files that are not yet."""
        super().open()
        if self.codec:
            _ = self._postings

    def search(
        self, queries: Sequence[Vectors], k: int, candidates: int | None, probes: int, among: Mask | None
    ) -> list[Found]:
        """The ``k`` best for each query.

        :param candidates: documents that are compared, of those that the ``probes`` nearest centroids of each token of
            the query have; all, if None, if there are no centroids, or no more documents.
        :param among: which documents may be found, (documents,); all, if None.
        """
        docs = np.flatnonzero(self.lengths > 0 if among is None else among & (self.lengths > 0))
        if candidates is None or self.codec is None or len(docs) <= candidates:
            size = max(SCORES // max(len(docs), 1), 1)
            parts = [queries[start : start + size] for start in range(0, len(queries), size)]
            return [found for part in parts for found in self._all(part, docs, k)]
        probes = probes * len(self.docs) // len(docs)
        return [self._compared(query, self._near(query, self.codec, candidates, probes, among), k) for query in queries]

    def _all(self, queries: Sequence[Vectors], docs: NDArray[np.intp], k: int) -> Iterator[Found]:
        asked = np.concatenate(queries).T  # (dimension, tokens of all queries)
        begins = np.cumsum([0, *map(len, queries[:-1])])
        rough = self._sums(docs, lambda rows: self.vectors(rows) @ asked, begins, asked.shape[1])
        for query, scores in zip(queries, rough.T, strict=True):
            edge = -np.inf
            if k < len(docs):  # two of them may be off by so much together, as in vectors.py; no product is above 1
                slack = 2 * (len(asked) + len(query) + 8) * ROUNDING * len(query)
                edge = np.partition(scores, len(docs) - k)[len(docs) - k] - slack
            yield self._compared(query, docs[scores >= edge], k)

    def _near(self, query: Vectors, codec: Codec, candidates: int, probes: int, among: Mask | None) -> NDArray[np.intp]:
        """Documents that may be among the best, rising (PLAID, Santhanam et al. 2022b, stages 1 to 3): those of the
        centroids that are nearest to a token of the query, and of them the best by their centroids alone.
        """
        products = codec.centroids @ query.T  # (centroids, tokens of the query)
        probed = np.unique(np.argpartition(products, -min(probes, len(products)), axis=0)[-probes:])
        lists = [self._postings.docs[self._postings.of(n)] for n in self._numbers[probed].tolist() if n >= 0]
        docs = np.unique(np.concatenate(lists)).astype(np.intp) if lists else np.empty(0, np.intp)
        if among is not None:
            docs = docs[among[docs]]
        if len(docs) <= candidates:
            return docs
        codes = self.columns["codes"]
        [scores] = self._sums(docs, lambda rows: products[codes[rows]], np.zeros(1, np.int64), len(query)).T
        return np.sort(docs[best(scores, self.docs.precedence[docs], candidates)])

    def _compared(self, query: Vectors, docs: NDArray[np.intp], k: int) -> Found:
        """The best of some documents, rising, compared one by one."""
        scores = np.empty(len(docs), np.float32)
        for some in self._blocks(docs, TOKENS):
            rows, ends = self.rows(docs[some])
            vectors = self.vectors(rows)
            scores[some] = [(query @ vectors[a:b].T).max(axis=1).sum() for a, b in pairwise(ends.tolist())]
        self._read()
        top = best(scores, self.docs.precedence[docs], k)
        return docs[top], scores[top]

    def _sums(
        self,
        docs: NDArray[np.intp],
        products: Callable[[Rows], NDArray[np.float32]],
        begins: NDArray[np.int64],
        width: int,
    ) -> NDArray[np.float32]:
        """MaxSim of some documents with several queries, (documents, queries).

        :param products: of these rows with the tokens of all queries, (rows, width).
        :param begins: where among them each query's begin.
        """
        made = np.empty((len(docs), len(begins)), np.float32)
        for some in self._blocks(docs, min(PRODUCTS // width, self._most)):
            rows, ends = self.rows(docs[some])
            made[some] = maxsim(products(rows), ends, begins)
            self._read()
        return made

    def _blocks(self, docs: NDArray[np.intp], tokens: int) -> Iterator[slice]:
        """Parts of ``docs`` that have so many tokens, as far as their bounds allow; one document at least."""
        ends, start = np.cumsum(self.lengths[docs], dtype=np.int64), 0
        while start < len(docs):
            before = ends[start - 1] if start else 0
            end = max(int(np.searchsorted(ends, before + tokens, side="right")), start + 1)
            yield slice(start, end)
            start = end

    def _read(self) -> None:
        """What was read is done with."""
        if self._passing:
            forget(*self.columns.values())

    @cached_property
    def _postings(self) -> Postings:
        return Postings(self.folder)

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """Where each centroid is in the postings; -1 if no document has it."""
        made = np.full(len(self.codec.centroids) if self.codec else 0, -1, np.int64)
        made[[int(code) for code in self._postings.terms]] = np.arange(len(self._postings.terms))
        return made


def maxsim(products: NDArray[np.float32], ends: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.float32]:
    """MaxSim of documents, each of which has a vector at least, with queries, (documents, queries).

    :param products: of the vectors of all documents with the tokens of all queries.
    :param ends: where the vectors of documents end, 0 before them, (documents + 1,).
    :param begins: where the tokens of queries begin, (queries,).
    """
    tops = np.stack([products[a:b].max(axis=0) for a, b in pairwise(ends.tolist())])
    made: NDArray[np.float32] = np.add.reduceat(tops, begins, axis=1)
    return made


def packed(vectors: Vectors, codec: Codec | None) -> Columns:
    """What is kept of token vectors."""
    return codec.pack(vectors) if codec else {"vectors": vectors.astype(np.float16)}


def invert(folder: Path, block: int) -> None:
    """Write which documents each centroid has, and how often."""
    lengths, codes = mapped(folder / "lengths.npy"), mapped(folder / "codes.npy")
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    spill = Spill(folder / "spill.bin", block=block)
    told = (np.unique(codes[a:b], return_counts=True) for a, b in forgetting(pairwise([0, *ends]), codes))
    spill.fill(dict(zip(map(str, numbers.tolist()), counts.tolist(), strict=True)) for numbers, counts in told)
    spill.invert(folder)
