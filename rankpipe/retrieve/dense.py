"""Dense retrieval: documents and queries as vectors of one sentence encoder, compared by inner product."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np

from rankpipe.catalog import find
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.disk import write
from rankpipe.errors import ArtefactError, ModelError, RecipeError
from rankpipe.progress import track
from rankpipe.retrieve.docs import Docs, write_docs
from rankpipe.retrieve.encode import Encoder, Pooling, Said, encoder
from rankpipe.retrieve.nearest import Exact, Faiss, Nearest, Vectors
from rankpipe.stage import Retriever
from rankpipe.store import Draft, open_artefact, publish


class Dense(Retriever):
    """Finds documents whose vectors are near the query's (Karpukhin et al. 2020, DPR); higher scores are nearer.

    The score is the inner product, which is the cosine for models that normalise. An empty query has no hits. The
    model is loaded at the first search. On macOS, FAISS and torch each bring an OpenMP and may crash in one process
    (facebookresearch/faiss#2317): build with ``factory="exact"`` there, which needs no FAISS.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :raises ArtefactError: If there is no whole dense index in the folder.
    """

    def __init__(self, index: Path, k: int = 1000) -> None:
        if k < 1:
            raise RecipeError([f"k: {k} hits; expected 1 or more"])
        self.k, self.manifest = k, open_artefact(index, kind="dense")
        self.docs = Docs(self.manifest.path)
        self._nearest: Nearest = (Exact if self.manifest.recipe["factory"] == "exact" else Faiss)(self.manifest.path)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path,
        *,
        model: str = "bge-small",
        max_length: int | None = None,
        pooling: Pooling | None = None,
        query_prompt: str | None = None,
        doc_prompt: str | None = None,
        factory: str = "Flat",
        shard: int = 4096,
    ) -> Dense:
        """Encode a collection and index the vectors. An interrupted build goes on after its last whole shard.

        :param model: a name, Hugging Face id or folder (see :func:`rankpipe.retrieve.encode.encoder`), or anybody's
            encoder as ``package.module:Class``, made with ``max_length``.
        :param max_length: tokens of a text that are read; the model's own limit by default.
        :param pooling: of token vectors into one, "cls" or "mean"; as the model's files say by default.
        :param query_prompt: put before a question; the model's own by default.
        :param doc_prompt: put before a document; the model's own by default.
        :param factory: "exact" (a memory map, no FAISS), or any index FAISS can make: "Flat", "HNSW32", "IVF256,PQ48".
            FAISS holds its index in memory while building: documents x dimension x 4 bytes for "Flat".
        :param shard: documents encoded between two savings; sorted by length within it.
        :raises DataError: If there is no document, or an id comes twice.
        :raises ModelError: If a vector is not finite.
        :raises RecipeError: If FAISS cannot make such an index.
        """
        if shard < 1:
            raise RecipeError([f"shard: {shard} documents; expected 1 or more"])
        said = Said(pooling, query_prompt, doc_prompt)
        options = {"model": model, "max_length": max_length, **said._asdict(), "factory": factory, "shard": shard}
        with publish(folder, kind="dense", recipe={"use": "dense", **options}, data=data.data, resume=True) as draft:
            encode = _encoder(model, max_length, said)
            docs = track(write_docs(data.docs(), draft), f"dense index of {data.name}", data.count)
            _encode_all(docs, encode, draft, shard)
            if factory != "exact" and not (draft.folder / "faiss.index").exists():
                Faiss.build(draft.folder, factory)
            if factory != "exact":
                (draft.folder / "vectors.npy").unlink(missing_ok=True)
        return cls(folder)

    @cached_property
    def encoder(self) -> Encoder:
        """The model that made the index.

        :raises ArtefactError: If the model's files are no longer those the index was made with.
        """
        recipe, facts = self.manifest.recipe, self.manifest.facts
        said = Said(*(recipe.get(option) for option in Said._fields))
        made = _encoder(recipe["model"], recipe["max_length"], said)
        if made.identity != facts["identity"]:
            raise ArtefactError(
                f"{self.manifest.folder}: its vectors are of {facts['identity']}, but {recipe['model']!r} is now "
                f"{made.identity}; build it again, or bring that model back"
            )
        return made

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Encode the queries together, and look up the nearest documents."""
        asked = [query for query in batch if query.text.strip()]
        if not asked:
            return [Ranking(query) for query in batch]
        vectors = self.encoder.encode_queries([query.text for query in asked])  # (Q, dimension)
        found = iter(self._nearest.search(vectors, self.k, self.docs.precedence))
        return [Ranking(query, self.docs.hits(*next(found)) if query.text.strip() else ()) for query in batch]


def _encoder(model: str, max_length: int | None, said: Said) -> Encoder:
    if ":" in model:
        if given := [option for option, value in said._asdict().items() if value is not None]:
            raise RecipeError([f"{option}: {model} is told max_length only; leave it out" for option in given])
        named: Encoder = find(model)(max_length=max_length)
        return named
    return encoder(model, max_length, said=said)


@dataclass
class Saved:
    """What of ``vectors.npy`` is on the disk for sure, and by which model; kept beside it in ``encoded.json``."""

    identity: str
    rows: int = 0
    truncated: int = 0

    @classmethod
    def of(cls, folder: Path, identity: str) -> Saved:
        """As an interrupted build left it; nothing, if another model had made it."""
        path = folder / "encoded.json"
        saved = cls(**json.loads(path.read_text("utf-8"))) if path.exists() else cls(identity)
        return saved if saved.identity == identity else cls(identity)

    def keep(self, folder: Path) -> None:
        """Write it down."""
        with write(folder / "encoded.json") as f:
            json.dump(asdict(self), f)


def _encode_all(docs: Iterable[Doc], encode: Encoder, draft: Draft, shard: int) -> None:
    """Append shard after shard to ``vectors.npy``, passing over those that an interrupted build has saved."""
    saved = Saved.of(draft.folder, encode.identity)
    before, seconds = saved.rows, 0.0
    if not before:
        (draft.folder / "faiss.index").unlink(missing_ok=True)
    for first, part in _shards(docs, shard):
        if first + len(part) > saved.rows:
            start = perf_counter()
            made = _vectors(part, encode)
            saved.truncated += encode.truncated
            _append(draft.folder / "vectors.npy", first, made)
            saved.rows = first + len(part)
            saved.keep(draft.folder)
            seconds += perf_counter() - start
    draft.facts |= {
        "model": encode.name, "identity": encode.identity, "dimension": encode.dimension, "dtype": "float32",
        "metric": "inner product", "truncated_texts": saved.truncated,
    }  # fmt: skip
    if saved.rows > before:
        draft.facts["documents_per_second"] = round((saved.rows - before) / seconds, 1)


def _shards(docs: Iterable[Doc], size: int) -> Iterator[tuple[int, list[Doc]]]:
    stream, first = iter(docs), 0
    while part := list(islice(stream, size)):
        yield first, part
        first += len(part)


def _vectors(docs: Sequence[Doc], encode: Encoder) -> Vectors:
    vectors = np.ascontiguousarray(encode.encode_docs([doc.contents for doc in docs]), np.float32)
    if not (finite := np.isfinite(vectors).all(axis=1)).all():
        bad = docs[int(np.argmin(finite))]
        raise ModelError(f"{encode.name}: the vector of document {bad.id!r} is not finite; try another number format")
    return vectors


def _append(path: Path, row: int, vectors: Vectors) -> None:
    """Write ``vectors`` at ``row``, dropping what an interrupted write left there. The file is whole after each."""
    with open(path, "r+b" if row else "wb") as f:
        header = {"descr": "<f4", "fortran_order": False, "shape": (row + len(vectors), vectors.shape[1])}
        np.lib.format.write_array_header_1_0(f, header)  # leaves room for any number of rows
        f.seek(f.tell() + row * vectors.shape[1] * 4)
        f.truncate()
        f.write(vectors.astype("<f4", copy=False).tobytes())
        f.flush()
        os.fsync(f.fileno())
