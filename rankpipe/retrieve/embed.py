"""From documents to rows of vectors on the disk: shard after shard, and no text that was encoded before.

Beside its vector each document has a row in ``hashes.npy`` (N, 2), a digest of what was encoded, and in ``cut.npy``
(N,), whether the encoder had to shorten it. ``embedded.json`` says how far it got, and by what.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.disk import write
from rankpipe.errors import ModelError, RecipeError
from rankpipe.provenance import digest
from rankpipe.retrieve.encode import Encoder, unit
from rankpipe.retrieve.memory import DOC
from rankpipe.retrieve.parts import Part
from rankpipe.retrieve.strings import mapped
from rankpipe.retrieve.vectors import STORES, Columns, Single, Vectors, append

SHARD = 4096  # documents encoded between two savings; sorted by length within it
COPIED = 1 << 14  # rows copied at once
BESIDE = ("hashes", "cut")

Piece = tuple[NDArray[np.intp], Columns]  # rows of a shard, and which of its documents they are of


@dataclass
class Saved:
    """What of a segment's vectors is on the disk for sure."""

    way: str  # how they were made; a digest
    rows: int = 0
    longest: float = 0.0  # length of the longest vector, at least

    @classmethod
    def of(cls, folder: Path) -> Saved:
        """As it was kept; nothing, if nothing was."""
        path = folder / "embedded.json"
        return cls(**json.loads(path.read_text("utf-8"))) if path.exists() else cls("")

    def keep(self, folder: Path) -> None:
        """Write it down."""
        with write(folder / "embedded.json") as f:
            json.dump(asdict(self), f)


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
        """The vectors of questions, (n, dimension)."""
        return self._shortened(self.encode.encode_queries(texts))

    def rows(self, docs: Sequence[Doc]) -> Columns:
        """What is kept of documents.

        :raises ModelError: If a vector is not finite, or not as it is kept.
        """
        vectors = self._shortened(self.encode.encode_docs([doc.contents for doc in docs]))
        with np.errstate(over="ignore", invalid="ignore"):
            made = self.store.pack(vectors)
        finite = np.isfinite(vectors).all(axis=1) & np.isfinite(made["vectors"]).all(axis=1)
        if not finite.all():
            bad, name = docs[int(np.argmin(finite))], self.encode.name
            raise ModelError(f"{name}: the vector of document {bad.id!r} is not finite; try another number format")
        return {**made, "hashes": _hashes(docs), "cut": np.array(self.encode.cut, bool)}

    def _shortened(self, vectors: Vectors) -> Vectors:
        """Their first dimensions, made one long again (Kusupati et al. 2022, Matryoshka representations)."""
        vectors = unit(vectors[:, : self.dimension]) if self._short else vectors
        return np.ascontiguousarray(vectors, np.float32)


def embed(docs: Iterable[Doc], way: Embedding, draft: Part) -> None:
    """Append shard after shard, passing over those that an interrupted build has saved."""
    saved = Saved.of(draft.folder)
    if saved.way != way.way:
        saved = Saved(way.way)
    known, seconds, encoded, reused = Known(draft.older(), way), 0.0, 0, 0
    for first, part in _shards(docs, draft.memory // 16, 4 * way.dimension):
        if first + len(part) <= saved.rows:
            continue
        pieces = list(known.of(part))
        unknown = np.ones(len(part), bool)
        for places, _ in pieces:
            unknown[places] = False
        if len(fresh := np.flatnonzero(unknown)):
            start = perf_counter()
            pieces.append((fresh, way.rows([part[i] for i in fresh])))
            seconds += perf_counter() - start
        append(draft.folder, first, _joined(pieces))
        saved.rows, saved.longest = first + len(part), max(saved.longest, _longest(way.store, draft.folder, first))
        saved.keep(draft.folder)
        encoded, reused = encoded + len(fresh), reused + len(part) - len(fresh)
    note(draft, way.facts)
    if encoded:
        draft.facts["documents_per_second"] = round(encoded / seconds, 1)
    if reused:
        draft.facts["reused_vectors"] = reused


def note(draft: Part, facts: dict[str, Any]) -> None:
    """Note what is known of a segment's vectors: :attr:`Embedding.facts`, and how many of its texts were shortened."""
    cut: NDArray[Any] = mapped(draft.folder / "cut.npy")
    draft.facts |= {**facts, "metric": "inner product", "truncated_texts": int(cut.sum())}


def copy(segments: Iterable[tuple[Path, NDArray[np.intp]]], store: type[Single], folder: Path) -> None:
    """Rows of some segments, one after the other, to a new one.

    :param segments: the folder of each, and the places of its rows.
    """
    merged = Saved("")
    for old, places in segments:
        columns = {name: mapped(old / f"{name}.npy") for name in (*store.files, *BESIDE)}
        for start in range(0, len(places), COPIED):
            some = places[start : start + COPIED]
            append(folder, merged.rows, {name: column[some] for name, column in columns.items()})
            merged.rows += len(some)
        saved = Saved.of(old)
        merged.way, merged.longest = saved.way, max(merged.longest, saved.longest)
    merged.keep(folder)


class Known:
    """Rows that there are already, in segments whose vectors were made in the same way; by what was encoded."""

    def __init__(self, folders: Iterable[Path], way: Embedding) -> None:
        self._segments: list[tuple[Columns, NDArray[np.intp]]] = []
        for folder in folders:
            if Saved.of(folder).way == way.way:
                columns = {name: mapped(folder / f"{name}.npy") for name in (*way.store.files, *BESIDE)}
                self._segments.append((columns, np.argsort(columns["hashes"][:, 0])))

    def of(self, docs: Sequence[Doc]) -> Iterator[Piece]:
        """Those of these documents that are there."""
        hashes, sought = _hashes(docs), np.arange(len(docs))
        for columns, order in self._segments:
            if not len(sought):
                return
            at = np.searchsorted(columns["hashes"][:, 0], hashes[sought, 0], sorter=order)
            places = order[np.minimum(at, len(order) - 1)]
            same = (columns["hashes"][places] == hashes[sought]).all(axis=1)
            if same.any():
                yield sought[same], {name: column[places[same]] for name, column in columns.items()}
            sought = sought[~same]


def _hashes(docs: Sequence[Doc]) -> NDArray[np.uint64]:
    """Digests of what is encoded, (n, 2)."""
    told = (blake2b(doc.contents.encode(errors="surrogatepass"), digest_size=16).digest() for doc in docs)
    return np.frombuffer(b"".join(told), np.uint64).reshape(-1, 2)


def _joined(pieces: Sequence[Piece]) -> Columns:
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    return {name: np.concatenate([rows[name] for _, rows in pieces])[order] for name in pieces[0][1]}


def _longest(store: type[Single], folder: Path, first: int) -> float:
    """The length of the longest vector from a row on, rounded up."""
    rows = store(folder).rows(slice(first, None))
    return float(np.linalg.norm(rows, axis=1).max()) * (1 + 1e-6)


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
