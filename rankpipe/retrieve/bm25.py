"""BM25 over words: an inverted index made in bounded memory, searched from a memory map, that lives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.errors import RecipeError
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.docs import best, write_docs
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.memory import TERM
from rankpipe.retrieve.parts import Part, moved
from rankpipe.retrieve.postings import Postings, Spill, merge
from rankpipe.retrieve.segment import DEAD, Segment
from rankpipe.retrieve.strings import mapped
from rankpipe.retrieve.topk import Each, Scorer, Weighted
from rankpipe.retrieve.words import Words
from rankpipe.where import Filter

# idf of a term from its document frequency and the number of documents (Kamphuis et al. 2020, table 1)
IDF: dict[str, Callable[[int, int], float]] = {
    "lucene": lambda df, n: math.log(1 + (n - df + 0.5) / (df + 0.5)),
    "robertson": lambda df, n: math.log(max((n - df + 0.5) / (df + 0.5), 1)),  # never negative, as in bm25s
    "atire": lambda df, n: math.log(n / df),
}
SHARD = 1 << 16  # documents between two savings of a build
WORDS = 1 << 14  # that are remembered
ABOVE = 1 + 1e-6  # bounds are to hold after rounding


class Term(NamedTuple):
    """What a segment has of a word."""

    frequency: int  # documents that are alive and have it
    lies: slice  # of its postings
    most: float  # what no score of it is above, but for its weight


class Counted(Segment):
    """Postings with counts, and how long the documents are."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.postings = Postings(folder)
        self.lengths: NDArray[np.int32] = mapped(folder / "lengths.npy")  # (documents,) words
        self.words = int(self.lengths.sum()) - int(self.lengths[self.dead].sum())  # of what is alive
        lost = folder / "lost.npy"
        self.lost = dict(np.load(lost).T.tolist()) if lost.exists() else {}  # term: its dead documents
        self._terms: dict[str, Term] = {}
        self.weighing = 0.0, 0.0, 1.0  # k1, b, and the mean length in the index as a whole

    @property
    def held(self) -> int:
        """Bytes that merging it holds, about."""
        return super().held + TERM * len(self.postings.terms)

    def term(self, word: str) -> Term | None:
        """A word, as it is to be searched for; None if the segment has it not."""
        if found := self._terms.get(word):
            return found
        if (term := self.postings.terms.find(word)) is None:
            return None
        lies, top = self.postings.of(term), float(self.postings.tops[term])
        if len(self._terms) >= WORDS:
            self._terms = {}  # other threads may read the old ones
        made = Term(lies.stop - lies.start - self.lost.get(term, 0), lies, top / (top + self._least) * ABOVE)
        self._terms[word] = made
        return made

    @cached_property
    def scorer(self) -> Scorer:
        """Of its postings, with what each document's length does to its counts."""
        k1, b, mean = self.weighing
        norms = (k1 * (1 - b + b * self.lengths / max(mean, 1e-9))).astype(np.float32)
        return Scorer(self.postings.docs, self.postings.values, len(self.docs), norms)

    @cached_property
    def _least(self) -> float:
        assert self.scorer.norms is not None
        return float(self.scorer.norms.min())


class BM25(Living):
    """Finds documents by the words they share with the query (Robertson et al. 1994; Kamphuis et al. 2020).

    Only documents with a score above 0 are hits: a query without a known word has none. Statistics (document
    frequencies, the mean length) are those of all documents that are alive, so that an index which documents were added
    to and deleted from gives the scores of one built from what is left.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :param k1: how fast repeated words stop counting; as built by default.
    :param b: how much long documents are held back, 0 to 1; as built by default.
    :raises ArtefactError: If there is no whole BM25 index in the folder.
    :raises RecipeError: If a number is out of its range.
    """

    kind = "bm25"
    portion = 1 << 20
    counts = (*Living.counts, "words", "postings")
    shared = ("terms.npy", "terms.bin", "starts.npy", "lengths.npy", "lost.npy", DEAD)

    def __init__(
        self,
        index: Path | str,
        k: int = 1000,
        where: Filter | str | None = None,
        k1: float | None = None,
        b: float | None = None,
    ) -> None:
        if faults := _unweighable(k1 or 0, b or 0):
            raise RecipeError(faults)
        self.k1, self.b = k1, b
        super().__init__(index, k, where)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        stemmer: str = "english",
        stopwords: str = "english",
        method: Literal["lucene", "robertson", "atire"] = "lucene",
        **common: Unpack[Common],
    ) -> BM25:
        """Index a collection; texts and postings are never in memory as a whole, the vocabulary is. A build that was
        interrupted goes on after its last whole shard of 65,536 documents.

        Words are two or more letters and digits in a row, as in bm25s: "C" is none, and a text without blanks, such as
        a Japanese one, is hardly cut; ``lucene`` knows languages.

        :param k1: how fast repeated words stop counting; 0.9 is Anserini's. A search can take another, as of ``b``.
        :param b: how much long documents are held back, 0 to 1; 0.4 is Anserini's.
        :param stemmer: an algorithm of PyStemmer's ("english" is Snowball's, also called Porter 2), or "none".
        :param stopwords: words left out: one of bm25s's lists ("english" is Lucene's, of 33 words), or "none".
        :param method: the variant (Kamphuis et al. 2020): Lucene's exact one, Robertson's (idf at least 0), ATIRE's.
        :raises DataError: If there is no document, or an id comes twice.
        :raises RecipeError: If an argument is out of its range.
        """
        cls.check(k1=k1, b=b, stemmer=stemmer, stopwords=stopwords, method=method)
        recipe = {"use": "bm25", "k1": k1, "b": b, "stemmer": stemmer, "stopwords": stopwords, "method": method}
        return cls.make(data, folder, recipe, **common)

    @staticmethod
    def check(*, k1: float, b: float, stemmer: str, stopwords: str, method: str) -> Words:
        """The words that such an index has.

        :raises RecipeError: If an argument is out of its range; says all faults.
        """
        faults = _unweighable(k1, b)
        if method not in IDF:
            faults.append(f"method: {method!r} is not one of {', '.join(IDF)}")
        try:
            words = Words(stemmer, stopwords)
        except RecipeError as error:
            faults += error.faults
        if faults:
            raise RecipeError(faults)
        return words

    @classmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        """Count words."""
        words = Words(recipe["stemmer"], recipe["stopwords"])
        spill = Spill(draft.folder / "spill.bin", block=draft.block)
        spill.take_up()
        draft.held += TERM * len(spill.vocabulary)

        def counted() -> Iterator[Counter[str]]:
            for doc in islice(write_docs(docs, draft), len(spill.distinct), None):
                known = len(spill.vocabulary)
                yield Counter(words(doc.contents))
                draft.held += TERM * (len(spill.vocabulary) - known)

        spill.fill(counted(), SHARD if draft.first else None)
        spill.invert(draft.folder)
        np.save(draft.folder / "lengths.npy", np.array(spill.totals, np.int32))
        draft.facts |= {"words": int(sum(spill.totals)), "postings": sum(spill.distinct)}

    @classmethod
    def merge(cls, segments: Sequence[Counted], draft: Part, recipe: dict[str, Any]) -> None:  # noqa: ARG003
        """Merge postings; no text is read for its words again."""
        places = moved(segments, draft)
        merge([(s.postings, place) for s, place in zip(segments, places, strict=True)], draft.folder, draft.block)
        lengths = np.concatenate([s.lengths[s.living] for s in segments])
        np.save(draft.folder / "lengths.npy", lengths)
        draft.facts |= {"words": int(lengths.sum()), "postings": len(mapped(draft.folder / "docs.npy"))}

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Counted:  # noqa: ARG003
        """A segment."""
        return Counted(folder)

    @classmethod
    def bury(cls, segment: Counted, dead: NDArray[np.int32], folder: Path) -> None:
        """Note how many documents each term has lost."""
        gone = np.zeros(len(segment.docs), bool)
        gone[dead] = True
        lost = segment.postings.among(gone)
        terms, counts = np.unique(np.searchsorted(segment.postings.starts, lost, side="right") - 1, return_counts=True)
        with write(folder / "lost.npy", "wb") as f:
            np.save(f, np.stack([terms, counts]))

    def _open(self) -> None:
        super()._open()
        self._each, recipe = Each(), self.manifest.recipe
        self._words = Words(recipe["stemmer"], recipe["stopwords"])
        self._k1, b = (recipe[name] if own is None else own for name, own in (("k1", self.k1), ("b", self.b)))
        mean = sum(s.words for s in self.segments) / max(sum(map(len, self.segments)), 1)
        for s in self.segments:
            s.weighing = self._k1, b, mean

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """Score the documents that have a word of the query, as far as they may be among the best."""
        return self._each(partial(self._find, k=k), queries)

    def _find(self, query: Query, k: int) -> Iterator[Sequence[Hit]]:
        segments, searched = self.segments, {*self.searched}
        method, n = self.manifest.recipe["method"], sum(map(len, segments))
        gain = self._k1 + 1 if method == "atire" else 1.0
        terms: list[tuple[float, str, list[Term | None]]] = []
        for word, times in Counter(self._words(query.text)).items():
            here = [s.term(word) for s in segments]
            if frequency := sum(t.frequency for t in here if t):
                terms.append((times * gain * IDF[method](frequency, n), word, here))
        terms.sort(key=lambda term: (-term[0], term[1]))
        for i, s in enumerate(segments):
            if s not in searched:
                continue
            asked = [
                Weighted(t.lies, np.float32(weight), weight * t.most)
                for weight, _, here in terms
                if weight and (t := here[i])
            ]
            found, scores = s.scorer.candidates(asked, k, s.allowed(self.where))
            top = best(scores, s.docs.precedence[found], k)
            yield hits(s.docs, found[top], scores[top])


def _unweighable(k1: float, b: float) -> list[str]:
    """What is wrong with the two."""
    faults = [] if math.isfinite(k1) and k1 >= 0 else [f"k1: {k1}; expected 0 or more"]
    return faults if 0 <= b <= 1 else [*faults, f"b: {b}; expected 0 to 1"]
