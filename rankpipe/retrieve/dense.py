"""Dense retrieval: documents and queries as vectors of one sentence encoder, compared by inner product."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rankpipe.catalog import near
from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.retrieve import approximate, embed
from rankpipe.retrieve.docs import write_docs
from rankpipe.retrieve.encode import OWN, Encoder, Pooling, Said, encoder
from rankpipe.retrieve.encoded import Encoded, Model
from rankpipe.retrieve.living import Segment
from rankpipe.retrieve.nearest import Exact, Field, Nearest
from rankpipe.retrieve.parts import Part, moved
from rankpipe.retrieve.vectors import STORES, Store

LEAST = 10_000  # documents; a segment that came later and has fewer is searched exactly, which is as fast
PROMPTS = ("query", "document")


class Embedded(Segment):
    """Documents and their vectors."""

    def __init__(self, folder: Path, store: str, device: str) -> None:
        super().__init__(folder)
        self.store, self.device = store, device

    @cached_property
    def field(self) -> Field:
        """What is searched."""
        longest = embed.Saved.of(self.folder).longest
        return Field(STORES[self.store](self.folder), longest, self.docs.precedence, self.alive)

    @cached_property
    def nearest(self) -> Nearest:
        """How it is searched: by FAISS if it has an index."""
        if (self.folder / "faiss.json").exists():
            return approximate.Faiss.opened(self.field, self.folder, self.device)
        return Exact(self.field)


class Dense(Encoded[Encoder]):
    """Finds documents whose vectors are near the query's (Karpukhin et al. 2020, DPR); higher scores are nearer.

    The score is the inner product, which is the cosine for models that normalise. An empty query has no hits. The
    model is loaded at the first search or addition. A search is exact unless the index was built with a ``factory`` or
    a ``recall``; its scores are those of an index that was built of the same documents at once, to the last bit.

    On macOS, FAISS and torch each bring an OpenMP and may crash in one process (facebookresearch/faiss#2317); exact
    search needs no FAISS.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param device: where FAISS searches: "cpu", "cuda" (with faiss-gpu) or "cuda:1"; where the index was built, if None.
    :raises ArtefactError: If there is no whole dense index in the folder.
    """

    kind = "dense"
    reuses = True

    def __init__(self, index: Path, k: int = 1000, device: str | None = None) -> None:
        self.device = device
        super().__init__(index, k)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path,
        /,
        *,
        model: str = "bge-small",
        max_length: int | None = None,
        pooling: Pooling | None = None,
        prompts: dict[str, str] | None = None,
        store: Store = "float32",
        dimension: int | None = None,
        factory: str = "exact",
        recall: float | None = None,
        train: int = 200_000,
        device: str = "cpu",
    ) -> Dense:
        """Encode a collection and index the vectors. An interrupted build goes on after its last whole shard, and one
        over an older index of the same encoder takes the vectors of unchanged texts from that.

        :param model: a name, Hugging Face id or folder (see :func:`rankpipe.retrieve.encode.encoder`), or anybody's
            encoder as ``package.module:Class``, made with ``max_length``.
        :param max_length: tokens of a text that are read; the model's own limit by default.
        :param pooling: of token vectors into one, "cls" or "mean"; as the model's files say by default.
        :param prompts: what is put before a "query" and a "document"; the model's own by default.
        :param store: how numbers are kept: "float32", "float16", "int8", or "binary", which is searched by signs and
            scored by int8.
        :param dimension: how many dimensions are kept, the first ones, for models that are trained for that; all by
            default.
        :param factory: "exact" (a memory map, no FAISS), or any index FAISS can make: "Flat", "HNSW32", "IVF256,PQ48".
            Segments of under 10,000 documents that are added later are searched exactly.
        :param recall: the share of the ten nearest documents that FAISS is to find, by which its efSearch or nprobe is
            set; 0.95 by default. With ``factory="exact"``, and 10,000 documents or more, a factory is picked for it.
        :param train: documents that FAISS trains on, at most.
        :param device: where FAISS trains, builds and searches; "cuda" with faiss-gpu.
        :raises DataError: If there is no document, or an id comes twice.
        :raises ModelError: If a vector is not finite.
        :raises RecipeError: If an argument is out of its range, or FAISS cannot make such an index.
        :raises MissingExtra: If ``device`` is a GPU, and FAISS is the one for CPUs.
        """
        options: dict[str, Any] = {
            "model": model, "max_length": max_length, "pooling": pooling, "prompts": prompts, "store": store,
            "dimension": dimension, "factory": factory, "recall": recall, "train": train, "device": device,
        }  # fmt: skip
        cls.check(**options)
        approximate.gpu(device)
        return cls.make(data, folder, {"use": "dense", **options}, resume=True)

    @staticmethod
    def check(
        *,
        prompts: dict[str, str] | None,
        store: str,
        dimension: int | None,
        recall: float | None,
        train: int,
        **_: Any,
    ) -> None:
        """Refuse arguments that are out of their range.

        :raises RecipeError: Says all faults.
        """
        faults = [f"prompts: no {role!r}{near(role, [*PROMPTS])}" for role in prompts or () if role not in PROMPTS]
        if store not in STORES:
            faults.append(f"store: {store!r} is not one of {', '.join(STORES)}")
        if dimension is not None and dimension < 1:
            faults.append(f"dimension: {dimension}; expected 1 or more")
        if recall is not None and not 0 < recall <= 1:
            faults.append(f"recall: {recall}; expected more than 0, at most 1")
        if train < 1:
            faults.append(f"train: {train} documents; expected 1 or more")
        if faults:
            raise RecipeError(faults)

    @classmethod
    def opened(cls, model: str, max_length: int | None) -> Encoder:
        """The encoder of this name."""
        return encoder(model, max_length)

    @classmethod
    def load(cls, recipe: dict[str, Any]) -> Model[Encoder]:
        """The encoder of a recipe, with its pooling and prompts."""
        prompts = recipe.get("prompts") or {}
        said = Said(recipe.get("pooling"), prompts.get("query"), prompts.get("document"))
        if said == OWN:
            return super().load(recipe)
        if ":" in (model := recipe["model"]):
            given = [option for option in ("pooling", "prompts") if recipe.get(option)]
            raise RecipeError([f"{option}: {model} is told max_length only; leave it out" for option in given])
        made = encoder(model, recipe["max_length"], said=said)
        return Model(made, made.identity)

    @classmethod
    def encode(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], model: Model[Encoder]) -> None:
        """Encode what is new, and have FAISS index it, if it is for FAISS."""
        way = embed.Embedding(model.encoder, recipe)
        if embed.Saved.of(draft.folder).way != way.way:
            (draft.folder / "faiss.json").unlink(missing_ok=True)
        embed.embed(write_docs(docs, draft), way, draft)
        _index(draft, recipe)

    @classmethod
    def merge(cls, segments: Sequence[Embedded], draft: Part, recipe: dict[str, Any]) -> None:
        """Copy vectors; nothing is encoded again."""
        moved(segments, draft)
        embed.copy([(s.folder, s.living) for s in segments], STORES[recipe["store"]], draft.folder)
        told = json.loads((segments[-1].folder / "facts.json").read_text("utf-8"))
        embed.note(draft, {k: told[k] for k in ("model", "identity", "dimension", "store")})
        _index(draft, recipe)

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Embedded:
        """A segment."""
        return Embedded(folder, recipe["store"], recipe["device"])

    def _open(self) -> None:
        super()._open()
        for s in self.segments:
            s.device = self.device or s.device

    def find(self, queries: Sequence[Query]) -> Iterable[Iterable[Sequence[Hit]]]:
        """Encode the queries together, and look up the nearest documents of each segment."""
        asked = [query.text for query in queries if query.text.strip()]
        if not asked or not self.searched:
            return [()] * len(queries)
        vectors = embed.Embedding(self.model.encoder, self.manifest.recipe).queries(asked)
        found = [(s.docs, iter(s.nearest.search(vectors, self.k))) for s in self.searched]
        return [[docs.hits(*next(own)) for docs, own in found] if q.text.strip() else () for q in queries]


def _index(draft: Part, recipe: dict[str, Any]) -> None:
    """Have FAISS index a segment, if it is one for FAISS."""
    large = draft.facts["documents"] >= LEAST
    if recipe["factory"] == "exact":
        wanted = large and recipe.get("recall") is not None
    else:
        wanted = large or draft.first
    told = draft.folder / "faiss.json"
    if wanted and not told.exists():
        field = Embedded(draft.folder, recipe["store"], recipe["device"]).field
        how: dict[str, Any] = {k: recipe.get(k) for k in ("factory", "recall", "train", "device")}
        approximate.build(field, draft.folder, **how)
    if wanted:
        draft.facts |= json.loads(told.read_text("utf-8"))
