"""Learned sparse retrieval: an inverted index of the words that a model weighs and adds (SPLADE), that lives."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from rankpipe.builds import SUMS
from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.errors import ModelError, RecipeError
from rankpipe.progress import track
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.docs import Docs, best, write_docs
from rankpipe.retrieve.encoded import Encoded, Model, identity
from rankpipe.retrieve.grown import Grown, Known, Places, Rows, cut_texts, grow, hashed, hashes_of, shards
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.parts import Part, moved, seal
from rankpipe.retrieve.postings import FILES, Postings, Spill, merge, turned
from rankpipe.retrieve.segment import Segment
from rankpipe.retrieve.strings import forget, forgetting, mapped
from rankpipe.retrieve.topk import Each, Scorer, Weighted
from rankpipe.retrieve.vectors import Columns, spans
from rankpipe.splade import SparseEncoder, Weighed, require_libraries, sparse_encoder

SHARD = 256  # documents encoded between two savings
WORTH = 1 << 20  # postings that are read in the time in which a text is weighed, about
OLDER = "older"  # where rows of older segments are meanwhile


class Impacts(Segment):
    """Postings with weights."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.postings = Postings(folder)
        self.cut: NDArray[np.bool_] = mapped(folder / "cut.npy")  # (documents,) whether its text was too long
        self.scorer = Scorer(self.postings.docs, self.postings.values, len(self.docs))

    def weighted(self, word: str, weight: np.float32) -> Weighted | None:
        """The word, to be searched for; None if no document has it."""
        if (term := self.postings.terms.find(word)) is None:
            return None
        top = float(weight * np.float32(self.postings.tops[term]))  # products rise with their factors, rounded or not
        return Weighted(self.postings.of(term), weight, top)


class SparseIndex(Encoded[SparseEncoder]):
    """Finds documents by the words they share with the query, both weighed and expanded by a model.

    The score is the inner product of the weights, summed in an order that the query alone decides: a document has the
    same score whatever else is in the index. An empty query has no hits. Torch models weigh a text a little (in the
    last bits) by what else is in its batch; merging copies weights as they are.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :raises ArtefactError: If there is no whole sparse index in the folder.
    """

    kind = "sparse"
    asks = SparseEncoder
    counts = (*Encoded.counts, "postings")
    ways = (*Encoded.ways, "steps")

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        *,
        model: str = "splade-tiny",
        max_length: int | None = None,
        steps: int | None = None,
        **common: Unpack[Common],
    ) -> SparseIndex:
        """Weigh a collection's words and index them. An interrupted build goes on after its last whole shard, and
        one over an older index of the same model takes the weights of unchanged texts from that.

        :param model: a sparse encoder: an alias, a Hugging Face id or a folder
            (:func:`rankpipe.splade.sparse_encoder`), or anybody's as ``package.module:Class``, made with
            ``max_length``.
        :param max_length: tokens of a text that are read; the model's own limit by default.
        :param steps: keep documents' weights as whole numbers of this fraction of 1, a byte or two instead of four;
            100 is Anserini's. What rounds to 0 is left out.
        :raises DataError: If there is no document, or an id comes twice.
        :raises ModelError: If a weight is not finite, or not above 0.
        """
        cls.check(model=model, max_length=max_length, steps=steps)
        recipe = {"use": cls.kind, "model": model, "max_length": max_length, "steps": steps}
        return cls.make(data, folder, recipe, **common)

    @staticmethod
    def check(*, model: str, max_length: int | None, steps: int | None) -> None:  # noqa: ARG004  the model knows them
        """Refuse arguments that are out of their range.

        :raises RecipeError: Says which.
        """
        if steps is not None and steps < 1:
            raise RecipeError([f"steps: {steps}; expected 1 or more"])

    @staticmethod
    def needs(*, model: str, **_: Any) -> None:
        """Refuse a model that cannot run here.

        :raises MissingExtra: If torch or transformers is not installed.
        """
        require_libraries(model)

    @classmethod
    def opened(cls, model: str, max_length: int | None) -> SparseEncoder:
        """A model of that name."""
        return sparse_encoder(model, max_length)

    @classmethod
    def encode(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], model: Model[SparseEncoder]) -> None:
        """Weigh words shard by shard, then turn them over."""
        hashes = hashed(write_docs(docs, draft))
        kept, way = Docs(draft.folder), cls.way(recipe, model.identity)
        grown, known = Grown(draft.folder, way), Known(draft.older(), way, Impacts)
        weigher = Weigher(recipe, model.encoder, known, hashes[grown.documents :], draft)
        left = range(grown.documents, len(kept))
        places = track(left, f"{recipe['model']}: weights", len(left))
        reused = known.count(hashes)
        grow(shards(kept, places, grown.documents, SHARD), grown, known, weigher)
        if "words" in grown:  # else an interrupted build has come so far
            (draft.folder / SUMS).unlink(missing_ok=True)
            _invert(draft.folder, model.encoder.vocabulary, draft.block)
            seal(draft, *FILES)
        grown.drop("lengths", "weights", "words")
        shutil.rmtree(draft.folder / OLDER, ignore_errors=True)
        cls._note(draft, model.identity)
        draft.facts |= {"reused_vectors": reused} if reused else {}

    @classmethod
    def merge(cls, segments: Sequence[Impacts], draft: Part, recipe: dict[str, Any]) -> None:
        """Merge postings; nothing is encoded again."""
        places = moved(segments, draft)
        merge([(s.postings, place) for s, place in zip(segments, places, strict=True)], draft.folder, draft.block)
        grown = Grown(draft.folder, cls.way(recipe, made_by := identity(segments)))
        for s in segments:
            grown.append({"cut": s.cut[s.living], "hashes": hashes_of(s)[s.living]})
        cls._note(draft, made_by)

    @staticmethod
    def _note(draft: Part, made_by: str) -> None:
        postings = len(mapped(draft.folder / "docs.npy"))
        draft.facts |= {"identity": made_by, "truncated_texts": cut_texts(draft.folder), "postings": postings}

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Impacts:  # noqa: ARG003
        """A segment."""
        return Impacts(folder)

    def _open(self) -> None:
        super()._open()
        self._each = Each()

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """Weigh the queries' words together; then score the documents that have one of them, as far as they may win."""
        if not (asked := [query for query in queries if query.text.strip()]):
            return [()] * len(queries)
        weighed = self.model.encoder.queries([query.text for query in asked])
        refuse([f"query {query.id!r}" for query in asked], weighed, self.model.encoder, self.manifest.recipe["model"])
        found = self._each(partial(self._find, k=k), weighed)
        return [next(found) if query.text.strip() else () for query in queries]

    def _find(self, query: Weighed, k: int) -> Iterator[Sequence[Hit]]:
        vocabulary, steps = self.model.encoder.vocabulary, np.float32(self.manifest.recipe["steps"] or 1)
        words = sorted(
            ((w / steps, vocabulary[i]) for i, w in zip(query.words.tolist(), query.weights, strict=True)),
            key=lambda word: (-word[0], word[1]),
        )
        for s in self.searched:
            terms = [term for weight, word in words if (term := s.weighted(word, weight))]
            found, scores = s.scorer.candidates(terms, k, s.allowed(self.where))
            top = best(scores, s.docs.precedence[found], k)
            yield hits(s.docs, found[top], scores[top])


class Weigher:
    """Makes what is kept of documents until all are weighed: their words by number, and the weights of these.

    Postings have no documents. Of an older segment those of documents that come again are first turned into rows, in
    one pass over all of them, if enough come to be worth it.

    :param hashes: of the documents.
    """

    def __init__(
        self, recipe: dict[str, Any], encoder: SparseEncoder, known: Known[Impacts], hashes: Any, draft: Part
    ) -> None:
        self._model, self._steps, self._encoder = recipe["model"], recipe["steps"], encoder
        self._turned = dict[Impacts, tuple[NDArray[np.intp], Postings, NDArray[np.int32]]]()
        numbers = {word: i for i, word in enumerate(encoder.vocabulary)}
        worth = {s for _, s, places in known.of(hashes) if len(places) * WORTH >= len(s.postings.docs)}
        known.only(worth.__contains__)
        for i, (_, s, places) in enumerate(known.of(hashes)):
            words = np.array([numbers[term] for term in s.postings.terms], np.int32)
            (folder := draft.folder / OLDER / str(i)).mkdir(parents=True, exist_ok=True)
            places = np.unique(places)
            self._turned[s] = places, turned(s.postings, places, len(s.docs), folder, draft.block), words

    def fresh(self, places: Places, docs: Sequence[Doc]) -> Rows:  # noqa: ARG002  it needs no places
        """What is kept of documents.

        :raises ModelError: As :func:`refuse`.
        """
        weighed = self._encoder.docs([doc.contents for doc in docs])
        refuse([f"document {doc.id!r}" for doc in docs], weighed, self._encoder, self._model)
        return _columns(weighed, self._steps)

    def taken(self, places: Places, segment: Impacts, there: Places) -> Rows:  # noqa: ARG002  it needs no places
        """What is kept of documents of an older segment."""
        known, rows, words = self._turned[segment]
        at = np.searchsorted(known, there)
        lengths = np.diff(rows.starts)[at]
        where = spans(rows.starts[at], lengths)
        weights = rows.values[where].astype(np.float32 if self._steps is None else np.int32)
        documents = {"lengths": lengths.astype(np.int32), "cut": segment.cut[there]}
        found = words[rows.docs[where]]
        forget(rows.docs, rows.values)
        return documents, {"words": found, "weights": weights}


def refuse(texts: Sequence[str], weighed: Sequence[Weighed], encoder: SparseEncoder, model: str) -> None:
    """Refuse weights that are none.

    :raises ModelError: If they are not one :class:`~rankpipe.splade.Weighed` for each text, of words of the vocabulary,
        each once; or a weight is not finite, or not above 0. Says of which text.
    """
    if len(weighed) != len(texts):
        raise ModelError(f"{model}: weighed {len(weighed)} texts, expected {len(texts)}")
    words = len(encoder.vocabulary)
    for text, one in zip(texts, weighed, strict=True):
        if not isinstance(one, Weighed):
            raise ModelError(f"{model}: gave a {type(one).__name__} for {text}, expected a rankpipe.splade.Weighed")
        told = np.unique(one.words)
        if not np.shape(told) == np.shape(one.words) == np.shape(one.weights):
            raise ModelError(f"{model}: {text} has not one weight for each word, and each word once")
        if len(told) and not (told.dtype.kind in "iu" and 0 <= told[0] <= told[-1] < words):
            raise ModelError(f"{model}: {text} has words that are not numbers of its vocabulary, 0 to {words - 1}")
        if not (np.isfinite(one.weights) & (one.weights > 0)).all():
            raise ModelError(f"{model}: {text} has a weight that is not finite, or not above 0")


def _columns(weighed: Sequence[Weighed], steps: int | None) -> tuple[Columns, Columns]:
    """What is kept of documents until all are weighed."""
    words, weights, lengths = [], [], []
    for one in weighed:
        kept = one.weights if steps is None else np.rint(one.weights * steps).astype(np.int32)
        words.append(one.words[kept > 0])
        weights.append(kept[kept > 0])
        lengths.append(len(words[-1]))
    cut = np.array([one.cut for one in weighed])
    rows = {"words": np.concatenate(words), "weights": np.concatenate(weights)}
    return {"lengths": np.array(lengths, np.int32), "cut": cut}, rows


def _invert(folder: Path, vocabulary: Sequence[str], block: int) -> None:
    """Turn the columns of documents into postings."""
    lengths, words, weights = (mapped(folder / f"{name}.npy") for name in ("lengths", "words", "weights"))
    spill = Spill(folder / "spill.bin", weights.dtype, block)
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    spill.fill(
        dict(zip((vocabulary[i] for i in words[a:b].tolist()), weights[a:b].tolist(), strict=True))
        for a, b in forgetting(pairwise([0, *ends]), words, weights)
    )
    spill.invert(folder)
