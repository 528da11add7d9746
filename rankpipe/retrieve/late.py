"""Late interaction retrieval: a vector for each token of all documents, whole or compressed, that lives (ColBERT)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from rankpipe import weights
from rankpipe.colbert import TokenEncoder, token_encoder
from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.progress import track
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.docs import Docs, write_docs
from rankpipe.retrieve.encoded import Encoded, Model, identity
from rankpipe.retrieve.grown import Grown, Known, cut_texts, grow, hashed, hashes_of, shards
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.parts import Part, moved, seal
from rankpipe.retrieve.reads import SAMPLE, SHARD, Reader, Sample, inherited, refuse
from rankpipe.retrieve.recall import Truth, of_tokens
from rankpipe.retrieve.residuals import Codec
from rankpipe.retrieve.segment import mean_recall
from rankpipe.retrieve.strings import forget, mapped
from rankpipe.retrieve.tokens import TokenRows, Tokens, invert, packed
from rankpipe.where import Filter

COPIED = 512  # copied at once
WHOLE = 16  # bits
LEAST = 1 << 16  # vectors; a segment of fewer keeps them whole, for they are too few to learn centroids from
OUTGROWN = 4  # centroids are learned anew for so many times the vectors that they were learned for
CODED = 9  # bytes of a compressed vector: its centroid, and where it is in the postings of that
SAMPLED = "sample"  # where the vectors are that centroids are learned from


class ColBERT(Encoded[TokenEncoder]):
    """Finds documents that have, for each token of the query, a token near to it (Khattab, Zaharia 2020).

    The score is the sum over the query's tokens of the largest cosine with one of the document's; it compares within a
    query, and does not depend on what else is in the index. An empty query has no hits.

    All documents are compared, which is exact but for how vectors are kept; with ``candidates``, only those that
    centroids propose, which are compared exactly. Segments of less than 65,536 vectors keep them whole and are always
    searched as a whole, as are no more documents of a segment than ``candidates`` that meet ``where``.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param candidates: documents of a segment that are compared with a query; None for all.
    :param probes: centroids near each token of the query whose documents are thought of; more find more.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :raises ArtefactError: If there is no whole index of this kind in the folder.
    :raises RecipeError: If a number is below 1, or ``candidates`` are wanted of an index that has no centroids.
    """

    kind = "colbert"
    asks = TokenEncoder
    counts = (*Encoded.counts, "tokens")
    ways = (*Encoded.ways, "bits")

    def __init__(
        self,
        index: Path | str,
        k: int = 1000,
        candidates: int | None = None,
        probes: int = 4,
        where: Filter | str | None = None,
    ) -> None:
        if candidates is not None and candidates < 1:
            raise RecipeError([f"candidates: {candidates}; expected 1 or more"])
        if probes < 1:
            raise RecipeError([f"probes: {probes}; expected 1 or more"])
        super().__init__(index, k, where)
        self.candidates, self.probes = candidates, probes
        if candidates and self.manifest.recipe["bits"] == WHOLE:
            raise RecipeError([f"candidates: {index} keeps vectors whole and has no centroids; build it with bits=4"])

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        *,
        model: str = "colbert-small",
        max_length: int | None = None,
        bits: Literal[2, 4, 16] = 4,
        **common: Unpack[Common],
    ) -> ColBERT:
        """Encode a collection's tokens. An interrupted build goes on after its last whole shard, and one over an
        older index of the same model takes the vectors of unchanged texts from that; compressed ones, if that has most.

        :param model: an encoder of tokens: an alias, a Hugging Face id or a folder
            (:func:`rankpipe.colbert.token_encoder`), or anybody's as ``package.module:Class``, made with
            ``max_length``.
        :param max_length: tokens of a text that are read; the model's own limit by default.
        :param bits: of each number: 16 keeps vectors whole, in half precision; 4 or 2 as the nearest of some centroids
            and what is left (see :mod:`rankpipe.retrieve.residuals`).
        :raises DataError: If there is no document, or an id comes twice.
        :raises ModelError: If a vector is not of length 1.
        """
        cls.check(model=model, max_length=max_length, bits=bits)
        recipe = {"use": cls.kind, "model": model, "max_length": max_length, "bits": bits}
        return cls.make(data, folder, recipe, **common)

    @staticmethod
    def check(*, model: str, max_length: int | None, bits: int) -> None:  # noqa: ARG004  the model knows them
        """Refuse arguments that are out of their range.

        :raises RecipeError: Says which.
        """
        if bits not in (2, 4, WHOLE):
            raise RecipeError([f"bits: {bits}; expected 2, 4 or {WHOLE}"])

    @staticmethod
    def needs(*, model: str, **_: Any) -> None:
        """Refuse a model that cannot run here.

        :raises MissingExtra: If it needs sentence-transformers, which is not installed.
        """
        weights.require_runner(model, "late interaction model")

    @classmethod
    def opened(cls, model: str, max_length: int | None) -> TokenEncoder:
        """A model of that name."""
        return token_encoder(model, max_length)

    @classmethod
    def encode(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], model: Model[TokenEncoder]) -> None:
        """Keep documents, learn from some, then keep the token vectors of all."""
        hashes = hashed(write_docs(docs, draft))
        kept, way = Docs(draft.folder), cls.way(recipe, model.identity)
        grown, known = Grown(draft.folder, way), Known(draft.older(), way, TokenRows)
        reader, sampled = Reader(recipe["model"], model.encoder), draft.folder / SAMPLED
        left = range(grown.documents, len(kept))
        if left and recipe["bits"] < WHOLE:
            codec = Codec.of(draft.folder) if grown.documents else inherited(known, hashes)
            if codec is None or sampled.exists():
                sample = Sample(sampled, way, kept, known, reader)
                codec = codec or (sample.learned(recipe["bits"]) if sample.tokens >= LEAST else None)
                if codec and draft.first:
                    reader.watch(Truth.kept(draft.folder, grown.documents) or sample.truth())
            reader.keep(codec, draft.folder)
            if codec:
                seal(draft, "codec.npz")
        reused = reader.takes(known).count(hashes)
        if left and sampled.exists():
            known.add(sampled)
        places = track(left, f"{recipe['model']}: token vectors", len(left))
        grow(
            shards(kept, places, grown.documents, SHARD),
            grown,
            known,
            reader,
            before=partial(reader.seen, draft.folder),
        )
        shutil.rmtree(sampled, ignore_errors=True)
        _finish(draft, model.identity)
        draft.facts |= {"reused_vectors": reused} if reused else {}
        if draft.first and (draft.folder / "codec.npz").exists():
            draft.facts |= of_tokens(grown, reader.truth, Tokens(draft.folder, passing=True))

    @classmethod
    def size(cls, folder: Path, recipe: dict[str, Any]) -> int:
        """Bytes of a small segment, as they would count in a large one, that is compressed."""
        vectors: NDArray[Any] = mapped(folder / "vectors.npy")
        coded = vectors.nbytes * recipe["bits"] // WHOLE + (CODED * len(vectors) if recipe["bits"] < WHOLE else 0)
        return super().size(folder, recipe) - int(vectors.nbytes) + int(coded)

    @classmethod
    def merge(cls, segments: Sequence[Tokens], draft: Part, recipe: dict[str, Any]) -> None:
        """Copy vectors as they are kept; where centroids have to be others, compress them again."""
        moved(segments, draft)
        made_by = identity(segments)
        codec = _codec(segments, draft.folder, recipe["bits"])
        if codec:
            codec.save(draft.folder)
        grown = Grown(draft.folder, cls.way(recipe, made_by))
        for s in segments:
            hashes = hashes_of(s)
            same = codec.like(s.codec) if codec else s.codec is None
            for docs in _shards(s.living):
                rows, _ = s.rows(docs)
                kept = {n: c[rows] for n, c in s.columns.items()} if same else packed(s.vectors(rows), codec)
                grown.append({"lengths": s.lengths[docs], "cut": s.cut[docs], "hashes": hashes[docs]}, kept)
                forget(*s.columns.values())
        _finish(draft, made_by)
        if codec and all(codec.like(s.codec) for s in segments):
            draft.facts |= mean_recall(segments)  # vectors were copied

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Tokens:  # noqa: ARG003
        """A segment."""
        return Tokens(folder)

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """Encode the queries, and compare all of them with a segment at a time."""
        encoder, made = self.model.encoder, list[list[Sequence[Hit]]]([] for _ in queries)
        reads = {i: encoder.query(query.text) for i, query in enumerate(queries) if query.text.strip()}
        refuse([f"query {queries[i].id!r}" for i in reads], [*reads.values()], self.manifest.recipe["model"])
        asked = {i: one.vectors for i, one in reads.items() if len(one.vectors)}
        for s in self.searched if asked else ():
            found = s.search([*asked.values()], k, self.candidates, self.probes, s.allowed(self.where))
            for i, one in zip(asked, found, strict=True):
                made[i].append(hits(s.docs, *one))
        return made


def _codec(segments: Sequence[Tokens], folder: Path, bits: int) -> Codec | None:
    """How to compress the vectors of several segments: as in the largest of them, or else as is learned from them."""
    known = max((s for s in segments if s.codec), key=len, default=None)
    tokens = sum(int(s.lengths[s.living].sum()) for s in segments)
    if known and known.codec and tokens <= OUTGROWN * known.codec.tokens:
        return known.codec
    if bits == WHOLE or tokens < LEAST:
        return None
    documents, grown = sum(map(len, segments)), Grown(folder / SAMPLED, "")
    for s in segments:
        some = ceil(SAMPLE * documents**0.5 * len(s) / documents)
        chosen = np.random.default_rng(0).permutation(s.living)[:some]
        for docs in _shards(np.sort(chosen)):
            grown.append({"lengths": s.lengths[docs]}, packed(s.vectors(s.rows(docs)[0]), None))
            forget(*s.columns.values())
    codec = Codec.learn(mapped(folder / SAMPLED / "vectors.npy"), tokens, bits)
    shutil.rmtree(folder / SAMPLED)
    return codec


def _shards(docs: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    return (docs[start : start + COPIED] for start in range(0, len(docs), COPIED))


def _finish(draft: Part, made_by: str) -> None:
    if (draft.folder / "codec.npz").exists():
        invert(draft.folder, draft.block)
    tokens = int(mapped(draft.folder / "lengths.npy").sum())
    draft.facts |= {"identity": made_by, "truncated_texts": cut_texts(draft.folder), "tokens": tokens}
