"""Dense retrieval: documents and queries as vectors of one sentence encoder, compared by inner product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from rankpipe import weights
from rankpipe.catalog import near
from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.retrieve import approximate, building, embed
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.docs import write_docs
from rankpipe.retrieve.embedded import Embedded, index
from rankpipe.retrieve.encode import Encoder, Said, encoder
from rankpipe.retrieve.encoded import Encoded, Model
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.parts import Part, moved
from rankpipe.retrieve.recall import Asked, Watched
from rankpipe.retrieve.segment import mean_recall
from rankpipe.retrieve.strings import mapped
from rankpipe.retrieve.vectors import STORES, Store
from rankpipe.where import Filter

PROMPTS = ("query", "document")
OPTIONS = ("pooling", "backend")
ROUNDED = ("int8", "binary")  # stores that may put another document first than the model would
KEPT = ("model", "identity", "dimension", "store", "backend", "probe")  # facts of a merged segment


class Dense(Encoded[Encoder]):
    """Finds documents whose vectors are near the query's (Karpukhin et al. 2020, DPR); higher scores are nearer.

    The score is the inner product, which is the cosine for models that normalise. An empty query has no hits. The
    model is loaded at the first search or addition. A search is exact unless the index was built with a ``factory`` or
    a ``recall``; its scores are those of an index that was built of the same documents at once, to the last bit,
    but for what torch's rounding makes of a text in other company (decision 20).

    On macOS, FAISS and torch each bring an OpenMP and may crash in one process (facebookresearch/faiss#2317); exact
    search needs no FAISS.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param device: where FAISS searches: "cpu", "cuda" (with faiss-gpu) or "cuda:1"; where the index was built, if None.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :param efSearch: how thorough HNSW is: documents that it keeps in view, never fewer than it is to find; by default
        what the build has found to be enough for its ``recall``.
    :param nprobe: how thorough IVF is: lists that it looks at; by default likewise.
    :raises ArtefactError: If there is no whole dense index in the folder.
    :raises RecipeError: If the index has no such setting, or the number is below 1.
    """

    kind = "dense"
    asks = Encoder

    def __init__(
        self,
        index: Path | str,
        k: int = 1000,
        device: str | None = None,
        where: Filter | str | None = None,
        efSearch: int | None = None,
        nprobe: int | None = None,
    ) -> None:
        self.device, self.efSearch, self.nprobe = device, efSearch, nprobe
        super().__init__(index, k, where)
        if self.part is None and (faults := approximate.unturnable([s.nearest for s in self.segments], self._knobs)):
            raise RecipeError(faults)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        /,
        *,
        model: str = "bge-small",
        max_length: int | None = None,
        model_options: dict[str, str] | None = None,
        prompts: dict[str, str] | None = None,
        store: Store = "float32",
        dimension: int | None = None,
        factory: str = "exact",
        recall: float | None = None,
        train: int = 200_000,
        device: str = "cpu",
        **common: Unpack[Common],
    ) -> Dense:
        """Encode a collection and index the vectors. An interrupted build goes on after its last whole shard, and one
        over an older index of the same encoder takes the vectors of unchanged texts from that.

        :param model: an encoder: an alias, a Hugging Face id or a folder (:func:`rankpipe.retrieve.encode.encoder`), or
            anybody's as ``package.module:Class``, made with ``max_length``.
        :param max_length: tokens of a text that are read; the model's own limit by default.
        :param model_options: "pooling" of token vectors into one, "cls" or "mean", as the model's files say by default;
            "backend", "onnx", "torch-float32", "torch-bfloat16", "torch-float16" or the name of a quantised graph in
            the model's folder, by default the fastest here (:func:`rankpipe.retrieve.encode.encoder`). The index keeps
            it: searches and additions use the same.
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
            "model": model, "max_length": max_length, "model_options": model_options, "prompts": prompts,
            "store": store, "dimension": dimension, "factory": factory, "recall": recall, "train": train,
            "device": device,
        }  # fmt: skip
        cls.check(**options)
        approximate.gpu(device)
        return cls.make(data, folder, {"use": "dense", **options}, **common)

    @staticmethod
    def check(
        *,
        model_options: dict[str, str] | None,
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
        faults += [f"model_options: no {k!r}{near(k, [*OPTIONS])}" for k in model_options or () if k not in OPTIONS]
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

    @staticmethod
    def needs(*, model: str, **_: Any) -> None:
        """Refuse a model that cannot run here.

        :raises MissingExtra: If it needs sentence-transformers, which is not installed.
        """
        weights.require_runner(model, "encoder")

    @classmethod
    def opened(cls, model: str, max_length: int | None) -> Encoder:
        """The encoder of this name."""
        return encoder(model, max_length)

    @classmethod
    def load(cls, recipe: dict[str, Any]) -> Model[Encoder]:
        """The encoder of a recipe, with its pooling and prompts."""
        options, prompts = recipe.get("model_options") or {}, recipe.get("prompts") or {}
        if ":" in (model := recipe["model"]):
            given = [option for option in ("model_options", "prompts") if recipe.get(option)]
            if given:
                raise RecipeError([f"{option}: {model} is told max_length only; leave it out" for option in given])
            return super().load(recipe)
        said = Said(options.get("pooling"), prompts.get("query"), prompts.get("document"))
        made = encoder(model, recipe["max_length"], options.get("backend", "auto"), said)
        return Model(made, made.identity, made.facts)

    @classmethod
    def undecided(cls, recipe: dict[str, Any]) -> bool:
        """Whether no backend is named; anybody's encoder has none."""
        return ":" not in recipe["model"] and (recipe.get("model_options") or {}).get("backend", "auto") == "auto"

    @classmethod
    def settled(cls, recipe: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        """The recipe, with the backend that was chosen."""
        chosen = {"backend": backend} if (backend := facts.get("backend")) else {}  # anybody's encoder has none
        return {**recipe, "model_options": {**(recipe.get("model_options") or {}), **chosen}}

    @classmethod
    def encode(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any], model: Model[Encoder]) -> None:
        """Encode what is new, and have FAISS index it, if it is for FAISS."""
        watched = draft.first and recipe["store"] in ROUNDED and not approximate.asked_for(recipe)
        way = (partial(Watched, folder=draft.folder) if watched else embed.Embedding)(model.encoder, recipe)
        if approximate.asked_for(recipe):
            building.prepare(draft, recipe["factory"], way.dimension, recipe["train"], recipe["device"])
        grown = embed.embed(write_docs(docs, draft), way, draft)
        draft.facts |= model.facts
        index(draft, recipe, partial(Asked.drawn, way))
        if isinstance(way, Watched):
            draft.facts |= way.recall(grown, cls.segment(draft.folder, recipe).field)

    @classmethod
    def size(cls, folder: Path, recipe: dict[str, Any]) -> int:
        """Bytes of a small segment, as they would count in a large one, that FAISS holds a copy of, too."""
        documents, dimension = mapped(folder / "vectors.npy").shape
        copied = documents * approximate.row_bytes(dimension) if approximate.asked_for(recipe) else 0
        return super().size(folder, recipe) + copied

    @classmethod
    def merge(cls, segments: Sequence[Embedded], draft: Part, recipe: dict[str, Any]) -> None:
        """Copy vectors; nothing is encoded again."""
        places = moved(segments, draft)
        embed.copy([(s.folder, s.living) for s in segments], STORES[recipe["store"]], draft.folder)
        told = {k: v for s in segments for k, v in s.facts.items()}
        embed.note(draft, {k: told[k] for k in KEPT if k in told})
        if recipe["store"] in ROUNDED and not approximate.asked_for(recipe):
            draft.facts |= mean_recall(segments)  # rows are copied, and all are compared
        index(draft, recipe, lambda _: Asked.moved(segments, places))

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Embedded:
        """A segment."""
        return Embedded(folder, recipe["store"], recipe["device"], approximate.asked_for(recipe))

    def _opened(self, folder: Path) -> list[Embedded]:
        segments: list[Embedded] = super()._opened(folder)
        for s in segments:
            s.device, s.knobs = self.device or s.device, self._knobs
        return segments

    @property
    def _knobs(self) -> dict[str, int]:
        given = {"efSearch": self.efSearch, "nprobe": self.nprobe}
        return {knob: value for knob, value in given.items() if value is not None}

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """Encode the queries together, and look up the nearest documents of each segment."""
        asked = [query.text for query in queries if query.text.strip()]
        if not asked or not self.searched:
            return [()] * len(queries)
        vectors = embed.Embedding(self.model.encoder, self.manifest.recipe).queries(asked)
        found = [(s.docs, iter(s.among(self.where, k).search(vectors, k))) for s in self.searched]
        return [[hits(docs, *next(own)) for docs, own in found] if q.text.strip() else () for q in queries]
