"""What part of the nearest documents a search finds: of those that comparing all of them would find, by their vectors
as a model made them.

The queries are pieces of documents of the index, which are not to find these themselves. They are encoded as questions,
and are about as far from documents; where nothing can be encoded, they are documents, which are nearer to each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.disk import write
from rankpipe.retrieve import embed
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.embed import Embedding
from rankpipe.retrieve.encode import Encoder
from rankpipe.retrieve.grown import SEEN, Grown, Places
from rankpipe.retrieve.nearest import Exact, Field, Found, Near
from rankpipe.retrieve.segment import Segment
from rankpipe.retrieve.tokens import Tokens, maxsim
from rankpipe.retrieve.vectors import Vectors

AT = 10, 100  # nearest
QUERIES = 256  # that recall is measured with, at most
EACH = 16  # documents for each query that has to be encoded, which takes no time to speak of then
WORDS, LETTERS = 8, 80  # of a document, in a query; at most, for some languages put no space between words
ASKED = "asked.npz"  # in a segment: what it was asked, for those that it will be part of
FEW = 32  # queries at least; of token vectors at most, and of each so many of these
WORTH = 1000  # documents; of fewer nothing is said of how they are kept
OF_DOCUMENTS = {"recall_of": "documents"}  # a fact of a segment that was not asked pieces of them
OF_FIRST = {"recall_of": "pieces of the first documents"}  # where vectors pass by, which queries have to be there for
ROUNDING = 1e-6  # of scores, relative


class Asked(NamedTuple):
    """Queries, and for each of them the place that does not count, its own; below 0, if that is gone."""

    own: Places
    queries: Vectors

    @classmethod
    def of(cls, way: Embedding, own: Places, docs: Iterable[Doc]) -> Asked:
        """Pieces of some documents, as questions."""
        texts = pieces(doc.contents for doc in docs)
        there = [i for i, text in enumerate(texts) if text] or [0]
        return cls(own[there], way.queries([texts[i] for i in there]))

    @classmethod
    def drawn(cls, way: Embedding, docs: Docs) -> Asked:
        """Pieces of documents of a segment, as questions."""
        return cls.of(way, own := for_pieces(len(docs)), docs.each(own.tolist()))

    @classmethod
    def moved(cls, segments: Sequence[Segment], places: Sequence[Places]) -> Asked | None:
        """Of what segments were asked that are merged, as much of each as it has of the documents; None if one of them
        was asked nothing.

        :param places: of each one's documents in the new one.
        """
        own, queries, documents = list[Places](), list[Vectors](), sum(map(len, segments))
        for s, place in zip(segments, places, strict=True):
            if not len(s):
                continue
            if not (s.folder / ASKED).exists():
                return None
            with np.load(s.folder / ASKED) as told:
                some = drawn(len(told["own"]), max(round(pieces_of(documents) * len(s) / documents), 1))
                own.append(np.where(told["own"] < 0, -1, place[told["own"]])[some])
                queries.append(told["queries"][some])
        return cls(np.concatenate(own), np.concatenate(queries)) if own else None

    def keep(self, folder: Path) -> None:
        """Be there when the segment is merged."""
        with write(folder / ASKED, "wb") as f:
            np.savez(f, own=self.own, queries=self.queries)


class Truth:
    """Which documents are nearest, found while the vectors of all pass by on their way to where they are kept in less.

    :param own: for each query the place that does not count, its own.
    :param asked: the vectors of the queries, (vectors, dimension), if they are to be kept with the rest.
    :param lengths: how many of them each query has.
    """

    def __init__(self, own: Places, asked: Vectors | None = None, lengths: Places | None = None) -> None:
        self.own, self.documents = own, 0
        self.asked = np.empty((0, 0), np.float32) if asked is None else asked
        self.lengths = np.ones(len(own), np.intp) if lengths is None else lengths
        self._near = [Near(max(AT) + 1, 0.0) for _ in own]

    @classmethod
    def kept(cls, folder: Path, documents: int) -> Truth | None:
        """As :meth:`keep` has left it when so many documents had passed; None if that is not there, or harmed."""
        try:
            with open(folder / f"{SEEN}{documents}.npz", "rb") as f, np.load(f) as told:
                made = cls(told["own"], told["asked"], told["lengths"])
                ends = np.cumsum(told["near"])[:-1]
                near = zip(*(np.split(told[name], ends) for name in ("places", "scores")), strict=True)
        except (OSError, ValueError, KeyError, BadZipFile):
            return None
        made.documents = documents
        for one, (places, scores) in zip(made._near, near, strict=True):
            one.add(places, scores)
        return made

    def keep(self, folder: Path, documents: int) -> None:
        """Be there for a build that goes on after so many documents, or after those of the last time.

        :param documents: that there are in the folder next; nothing is kept if not all of them were seen.
        """
        if self.documents != documents:
            return
        near = np.array([len(one.places) for one in self._near])
        places, scores = (np.concatenate([getattr(one, name) for one in self._near]) for name in ("places", "rough"))
        with write(folder / f"{SEEN}{documents}.npz", "wb") as f:
            np.savez(f, own=self.own, asked=self.asked, lengths=self.lengths, near=near, places=places, scores=scores)
        for old in _all_kept(folder)[:-2]:
            old.unlink()

    def see(self, places: Places, scores: Vectors) -> None:
        """Some more documents.

        :param scores: exact ones, (queries, documents).
        """
        for near, told in zip(self._near, scores, strict=True):
            some = np.flatnonzero(told >= near.edge)
            near.add(places[some], told[some])
        self.documents += len(places)

    def measured(self, search: Callable[[int], Sequence[Found]], documents: int) -> dict[str, float]:
        """The recall of a search, as an index says it; nothing, if these are few or not all were seen.

        :param search: finds so many for each query, with scores of its own.
        """
        if not WORTH <= self.documents == documents:
            return {}
        truth = []
        for near in self._near:
            order = np.lexsort((near.places, -near.rough))
            truth.append((near.places[order], near.rough[order]))
        return measured(lambda k: map(_rescored, search(k), truth), truth, self.own)


def _once(grown: Grown, truth: Truth | None, search: Callable[[Truth, int], Sequence[Found]]) -> dict[str, float]:
    """The recall of a segment, which is measured once and noted in its folder, so that a build that is killed
    afterwards has it still.

    :param truth: None if nothing was seen since the build went on.
    :param search: of the queries in it, for so many each.
    """
    documents = grown.documents
    if grown.recall is None:
        truth = truth or Truth.kept(grown.folder, documents)
        grown.note_recall(truth.measured(partial(search, truth), documents) if truth else {})
    for old in _all_kept(grown.folder):
        old.unlink()
    return grown.recall or {}


def _all_kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{SEEN}*.npz"), key=lambda path: int(path.stem.removeprefix(SEEN)))


class Watched(Embedding):
    """Makes rows of vectors, and looks at these before they are rounded.

    :param folder: of the segment.
    """

    def __init__(self, encode: Encoder, recipe: dict[str, Any], folder: Path) -> None:
        super().__init__(encode, recipe)
        self._folder = folder
        self._truth: Truth | None = None

    def made(self, places: Places, docs: Sequence[Doc]) -> Vectors:
        """The vectors of documents, which are looked at."""
        if self._truth is None:
            self._truth = Truth.kept(self._folder, int(places[0])) or self._asked(places, docs)
        made = super().made(places, docs)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused afterwards
            self._truth.see(places, self._truth.asked @ made.T)
        return made

    def _asked(self, places: Places, docs: Sequence[Doc]) -> Truth:
        own = for_pieces(len(docs))
        return Truth(*Asked.of(self, places[own], [docs[i] for i in own.tolist()]))

    def keep(self, documents: int) -> None:
        """Before so many documents are kept."""
        if self._truth:
            self._truth.keep(self._folder, documents)

    def recall(self, grown: Grown, field: Field) -> dict[str, Any]:
        """How many of the nearest are found among the rows."""
        told = _once(grown, self._truth, lambda truth, k: Exact(field).search(truth.asked, k))
        return told | OF_FIRST if told and grown.documents > embed.SHARD else told


class WatchedTokens:
    """Looks at token vectors before they are compressed.

    :param truth: with the first vectors of some documents.
    """

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self._asked, self._begins = truth.asked.T, np.cumsum([0, *truth.lengths[:-1]])

    def see(self, places: Places, vectors: Sequence[Vectors]) -> None:
        """Some more documents, as the vectors of each."""
        lengths = np.array([*map(len, vectors)])
        scores = np.full((len(vectors), len(self.truth.own)), -np.inf, np.float32)
        if lengths.any():
            ends = np.cumsum([0, *lengths[lengths > 0]])
            scores[lengths > 0] = maxsim(np.concatenate(vectors) @ self._asked, ends, self._begins)
        self.truth.see(places, scores.T)


def of_tokens(grown: Grown, truth: Truth | None, segment: Tokens) -> dict[str, float]:
    """How many of the nearest are found in a segment, if all are compared."""

    def search(truth: Truth, k: int) -> Sequence[Found]:
        queries = np.split(truth.asked, np.cumsum(truth.lengths)[:-1])
        return segment.search(queries, k, None, 1, None)

    return _once(grown, truth, search)


def pieces(texts: Iterable[str]) -> list[str]:
    """Of each text some words that follow one another."""
    chance, made = random.Random(1), list[str]()
    for text in texts:
        words = text.split()
        start = chance.randint(0, max(len(words) - WORDS, 0))
        made.append(" ".join(words[start : start + WORDS])[:LETTERS])
    return made


def for_pieces(documents: int) -> Places:
    """Places of the documents of which pieces are queries, rising."""
    return drawn(documents, pieces_of(documents))


def pieces_of(documents: int) -> int:
    """Of how many of them pieces are queries, at most."""
    return min(max(documents // EACH, FEW), QUERIES)


def drawn(documents: int, queries: int = QUERIES) -> NDArray[np.intp]:
    """Places of some documents, rising, for queries."""
    return np.sort(np.random.default_rng(1).choice(documents, min(queries, documents), replace=False))


def measured(
    search: Callable[[int], Iterable[Found]], truth: Sequence[Found], own: NDArray[np.intp]
) -> dict[str, float]:
    """The recall of a search at 10 and at 100.

    :param search: finds so many for each query, with the scores of ``truth``.
    :param truth: what is nearest, best first; one more than counts, for the query itself.
    :param own: for each query a place that does not count.
    """
    return {f"recall_at_{k}": round(recall(search(k + 1), truth, own, k), 4) for k in AT}


def recall(found: Iterable[Found], truth: Sequence[Found], own: NDArray[np.intp], k: int) -> float:
    """The share of the ``k`` nearest that was found; one as near as the last of them, but for rounding, is as good."""
    hits = sought = 0
    for (places, scores), (nearest, exact), self_ in zip(found, truth, own.tolist(), strict=True):
        wanted = exact[nearest != self_][:k]
        last = wanted[-1:] - ROUNDING * np.abs(wanted[-1:])
        hits += int((scores[places != self_][:k] >= last).sum())
        sought += len(wanted)
    return hits / max(sought, 1)


def _rescored(found: Found, truth: Found) -> Found:
    """What was found, with the scores of the truth; of what is not among that, with the least there is."""
    places, known = found[0], dict(zip(*(column.tolist() for column in truth), strict=True))
    return places, np.array([known.get(place, -np.inf) for place in places.tolist()], np.float32)
