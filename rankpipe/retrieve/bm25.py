"""BM25 over words: an inverted index made in bounded memory, scored by bm25s from a memory map."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.progress import track
from rankpipe.retrieve.docs import Docs, best, write_docs
from rankpipe.retrieve.postings import Spill
from rankpipe.retrieve.words import Words
from rankpipe.stage import Retriever
from rankpipe.store import Draft, open_artefact, publish

# idf of a term from its document frequency and the number of documents (Kamphuis et al. 2020, table 1)
IDF: dict[str, Callable[[Any, int], Any]] = {
    "lucene": lambda df, n: np.log(1 + (n - df + 0.5) / (df + 0.5)),
    "robertson": lambda df, n: np.log(np.maximum((n - df + 0.5) / (df + 0.5), 1)),  # never negative, as in bm25s
    "atire": lambda df, n: np.log(n / df),
}


class BM25(Retriever):
    """Finds documents by the words they share with the query (Robertson et al. 1994; Kamphuis et al. 2020).

    Only documents with a score above 0 are hits: a query without a known word has none.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :raises ArtefactError: If there is no whole BM25 index in the folder.
    """

    def __init__(self, index: Path, k: int = 1000) -> None:
        import bm25s

        if k < 1:
            raise RecipeError([f"k: {k} hits; expected 1 or more"])
        self.k, self.manifest = k, open_artefact(index, kind="bm25")
        recipe, path = self.manifest.recipe, self.manifest.path
        self.docs = Docs(path)
        self._words = Words(recipe["stemmer"], recipe["stopwords"])
        self._scorer = bm25s.BM25.load(path / "bm25s", mmap=True, show_progress=False)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        stemmer: str = "english",
        stopwords: str = "english",
        method: Literal["lucene", "robertson", "atire"] = "lucene",
    ) -> BM25:
        """Index a collection; texts and postings are never in memory as a whole, the vocabulary is.

        :param k1: how fast repeated words stop counting; 0.9 is Anserini's.
        :param b: how much long documents are held back, 0 to 1; 0.4 is Anserini's.
        :param stemmer: see :class:`rankpipe.retrieve.words.Words`; also ``stopwords``.
        :param method: the variant (Kamphuis et al. 2020): Lucene's exact one, Robertson's (idf at least 0), ATIRE's.
        :raises DataError: If there is no document, or an id comes twice.
        :raises RecipeError: If an argument is out of its range.
        """
        words = cls.check(k1=k1, b=b, stemmer=stemmer, stopwords=stopwords, method=method)
        recipe = {"use": "bm25", "k1": k1, "b": b, "stemmer": stemmer, "stopwords": stopwords, "method": method}
        with publish(folder, kind="bm25", recipe=recipe, data=data.data) as draft:
            vocabulary: dict[str, int] = {}
            spill = Spill(draft.folder / "spill.bin")
            spill.fill(_counted(data, draft, words, vocabulary))
            _invert(spill, vocabulary, draft, k1=k1, b=b, method=method)
        return cls(folder)

    @staticmethod
    def check(*, k1: float, b: float, stemmer: str, stopwords: str, method: str) -> Words:
        """The words that such an index has.

        :raises RecipeError: If an argument is out of its range; says all faults.
        """
        faults = []
        if not (math.isfinite(k1) and k1 >= 0):
            faults.append(f"k1: {k1}; expected 0 or more")
        if not 0 <= b <= 1:
            faults.append(f"b: {b}; expected 0 to 1")
        if method not in IDF:
            faults.append(f"method: {method!r} is not one of {', '.join(IDF)}")
        try:
            words = Words(stemmer, stopwords)
        except RecipeError as error:
            faults += error.faults
        if faults:
            raise RecipeError(faults)
        return words

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Score every document that has a word of the query."""
        return [self._search(query) for query in batch]

    def _search(self, query: Query) -> Ranking:
        known = self._scorer.vocab_dict
        terms = [known[word] for word in self._words(query.text) if word in known]
        if not terms:
            return Ranking(query)
        scores: NDArray[np.float32] = self._scorer.get_scores_from_ids(terms)  # (N,)
        found = np.flatnonzero(scores > 0)
        top = found[best(scores[found], self.docs.precedence[found], self.k)]
        return Ranking(query, self.docs.hits(top, scores[top]))


def _counted(data: Dataset, draft: Draft, words: Words, vocabulary: dict[str, int]) -> Iterator[dict[int, int]]:
    """How often each term is in each document; new words are given the next number in ``vocabulary``."""
    for doc in track(write_docs(data.docs(), draft), f"BM25 index of {data.name}", data.count):
        counts = Counter(words(doc.contents))
        yield {vocabulary.setdefault(word, len(vocabulary)): count for word, count in counts.items()}


def _invert(spill: Spill, vocabulary: dict[str, int], draft: Draft, *, k1: float, b: float, method: str) -> None:
    """Weigh the postings, and keep them as bm25s does."""
    import bm25s

    lengths = np.array(spill.lengths, np.float64)  # (documents,)
    frequencies = spill.frequencies(len(vocabulary))  # (terms,)
    idf = IDF[method](frequencies, len(lengths))
    saturation = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))  # (documents,)

    def weigh(terms: NDArray[np.int64], docs: NDArray[np.int64], counts: NDArray[np.int32]) -> NDArray[np.float32]:
        gain = k1 + 1 if method == "atire" else 1.0
        weights: NDArray[np.float32] = (idf[terms] * gain * counts / (counts + saturation[docs])).astype(np.float32)
        return weights

    made = spill.invert(frequencies, weigh, draft.folder)
    scorer = bm25s.BM25(k1=k1, b=b, method=method)
    scorer.scores = {"data": made.weights, "indices": made.docs, "indptr": made.starts, "num_docs": len(lengths)}
    scorer.vocab_dict, scorer.nonoccurrence_array = vocabulary, None
    scorer.save(draft.folder / "bm25s", show_progress=False)
    for scratch in ("spill.bin", "docs.npy", "weights.npy"):
        (draft.folder / scratch).unlink()
    draft.facts |= {"terms": len(vocabulary), "words": int(lengths.sum()), "postings": len(made.docs)}
