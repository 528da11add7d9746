"""From documents to rows of vectors on the disk: shard after shard (:mod:`rankpipe.retrieve.grown`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.errors import ModelError, RecipeError
from rankpipe.provenance import digest
from rankpipe.retrieve.encode import Encoder, unit
from rankpipe.retrieve.grown import NOTE, Grown, Known, Places, Rows, cut_texts, grow, noted
from rankpipe.retrieve.memory import DOC
from rankpipe.retrieve.parts import Part
from rankpipe.retrieve.strings import forget, mapped
from rankpipe.retrieve.vectors import STORES, Columns, Single, Vectors

SHARD = 4096  # documents encoded between two savings; sorted by length within it
COPIED = 1 << 14  # rows copied at once
LONG = 60  # characters of a query that an error says
BESIDE = ("hashes", "cut")


class Embedding:
    """How texts become vectors, and vectors rows.

    :param encode: makes vectors.
    :param recipe: of the index: how they are kept, and how many of their dimensions.
    :raises RecipeError: If they have not so many.
    """

    def __init__(self, encode: Encoder, recipe: dict[str, Any]) -> None:
        self.encode, self.store = encode, STORES[recipe["store"]]
        self.dimension: int = recipe.get("dimension") or encode.dimension
        if self.dimension > encode.dimension:
            raise RecipeError([f"dimension: {self.dimension}; the vectors of {encode.name} have {encode.dimension}"])
        self._short = recipe.get("dimension") is not None
        told = {k: recipe.get(k) for k in ("model", "max_length", "store", "dimension")}
        told["pooling"] = (recipe.get("model_options") or {}).get("pooling")
        prompt = (recipe.get("prompts") or {}).get("document")  # that of queries makes no vector that is kept
        self.way = digest({**told, "prompt": prompt, "identity": encode.identity})
        self.facts = {"model": encode.name, "identity": encode.identity, "dimension": self.dimension,
                      "store": recipe["store"]}  # fmt: skip

    def queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension).

        :raises ModelError: If one is not finite.
        """
        vectors = self._shortened(self.encode.encode_queries(texts), len(texts))
        if not (finite := np.isfinite(vectors).all(axis=1)).all():
            raise self._not_finite(f"query {texts[int(np.argmin(finite))][:LONG]!r}")
        return vectors

    def made(self, places: Places, docs: Sequence[Doc]) -> Vectors:  # noqa: ARG002  for others who look at them
        """The vectors of documents, (n, dimension).

        :param places: of the documents in the segment.
        """
        made = self._shortened(self.encode.encode_docs([doc.contents for doc in docs]), len(docs))
        if len(self.encode.cut) != len(docs):
            raise ModelError(f"{self.encode.name}: its cut has {len(self.encode.cut)} values for {len(docs)} documents")
        return made

    def keep(self, documents: int) -> None:
        """Before there are so many documents on the disk: nothing; for others who look at them."""

    def fresh(self, places: Places, docs: Sequence[Doc]) -> Rows:
        """What is kept of documents.

        :raises ModelError: If a vector is not finite, or not as it is kept.
        """
        vectors = self.made(places, docs)
        with np.errstate(over="ignore", invalid="ignore"):
            made = self.store.pack(vectors)
        finite = np.isfinite(vectors).all(axis=1) & np.isfinite(made["vectors"]).all(axis=1)
        if not finite.all():
            raise self._not_finite(f"document {docs[int(np.argmin(finite))].id!r}")
        return {**made, "cut": np.array(self.encode.cut, bool)}, {}

    def taken(self, places: Places, segment: Columns, there: Places) -> Rows:  # noqa: ARG002  it needs no places
        """What an older segment keeps."""
        taken = {name: segment[name][there] for name in (*self.store.files, "cut")}
        forget(*segment.values())
        return taken, {}

    def _not_finite(self, what: str) -> ModelError:
        return ModelError(f"{self.encode.name}: the vector of {what} is not finite; try another number format")

    def _shortened(self, vectors: Vectors, texts: int) -> Vectors:
        """Their first dimensions, made one long again (Kusupati et al. 2022, Matryoshka representations).

        :raises ModelError: If they are not one for each text, with as many dimensions as the encoder says.
        """
        if np.shape(vectors) != (wanted := (texts, self.encode.dimension)):
            raise ModelError(f"{self.encode.name}: gave numbers of shape {np.shape(vectors)}, expected {wanted}")
        vectors = unit(vectors[:, : self.dimension]) if self._short else vectors
        return np.ascontiguousarray(vectors, np.float32)


def embed(docs: Iterable[Doc], way: Embedding, draft: Part) -> Grown:
    """Append shard after shard, passing over those that an interrupted build has saved."""
    grown = Grown(draft.folder, way.way)
    known = Known(draft.older(), way.way, lambda folder: columns(folder, way.store))
    shards = _shards(docs, draft.memory // 16, 4 * way.dimension)
    work = grow(shards, grown, known, way, lambda rows: {"longest": _longest(rows)}, way.keep)
    note(draft, way.facts)
    if work.encoded:
        draft.facts["documents_per_second"] = round(work.encoded / work.seconds, 1)
    if work.reused:
        draft.facts["reused_vectors"] = work.reused
    return grown


def note(draft: Part, facts: dict[str, Any]) -> None:
    """Note what is known of a segment's vectors: :attr:`Embedding.facts`, and how many of its texts were shortened."""
    draft.facts |= {**facts, "metric": "inner product", "truncated_texts": cut_texts(draft.folder)}


def copy(segments: Sequence[tuple[Path, NDArray[np.intp]]], store: type[Single], folder: Path) -> None:
    """Rows of some segments, one after the other, to a new one.

    :param segments: the folder of each, and the places of its rows.
    """
    grown = Grown(folder, next(noted(old)["way"] for old, _ in segments))
    for old, places in segments:
        told, kept = noted(old), columns(old, store)
        for start in range(0, len(places), COPIED):
            some = places[start : start + COPIED]
            grown.append({name: column[some] for name, column in kept.items()}, longest=told["longest"])
            forget(*kept.values())


def columns(folder: Path, store: type[Single]) -> Columns:
    """What a segment has of each document."""
    return {name: mapped(folder / f"{name}.npy") for name in (*store.files, *BESIDE)}


def longest(folder: Path) -> float:
    """The length of the longest vector of a segment, at least.

    :raises FileNotFoundError: If it is gone.
    """
    if not (told := noted(folder)):
        raise FileNotFoundError(folder / NOTE)
    return float(told["longest"])


def _longest(rows: Columns) -> float:
    """The length of the longest vector, rounded up."""
    lengths = np.linalg.norm(rows["vectors"].astype(np.float32), axis=1) * rows.get("scales", 1)
    return float(lengths.max()) * (1 + 1e-6)


def _shards(docs: Iterable[Doc], most: int, row: int) -> Iterator[tuple[int, list[Doc]]]:
    """Shards of documents, each with the place of its first one.

    :param most: bytes of texts and rows in one, about.
    """
    first, part, held = 0, list[Doc](), 0
    for doc in docs:
        part.append(doc)
        held += len(doc.text) + DOC + row
        if len(part) == SHARD or held > most:
            yield first, part
            first, part, held = first + len(part), [], 0
    if part:
        yield first, part
