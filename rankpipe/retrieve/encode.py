"""Sentence encoders: texts to vectors, by ONNX or by sentence-transformers, whichever the model's files are for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from rankpipe import st, weights
from rankpipe.catalog import near, require
from rankpipe.device import Dtype, default_device, native_dtype
from rankpipe.errors import ModelError
from rankpipe.onnx import OnnxModel, read_json
from rankpipe.progress import notice, track, working
from rankpipe.retrieve.probe import fastest
from rankpipe.retrieve.streams import Role, Streams, fits

Vectors = NDArray[np.float32]  # (n, dimension)
Pooling = Literal["cls", "mean"]  # the first token's vector, or the mean of all
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
Backend = Literal["onnx", "torch-float32", "torch-bfloat16", "torch-float16"]  # what computes, and in which numbers
BACKENDS: tuple[Backend, ...] = get_args(Backend)
BATCH = 16  # texts a batch of sentence-transformers; of like lengths, so little is padded
WHOLE = "model.onnx"  # what a graph is called that is the model's only one, or the one that others were made of
LOG = logging.getLogger(__name__)


class Encoder(Protocol):
    """Turns texts into vectors whose inner product says how near they are."""

    @property
    def name(self) -> str:
        """As the user called it."""
        ...

    @property
    def identity(self) -> str:
        """Which weights exactly, and what else says which numbers come out."""
        ...

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        ...

    @property
    def cut(self) -> Sequence[bool]:
        """Which of its texts the last call had to shorten."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        ...

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        ...


class Said(NamedTuple):
    """What the caller says of a model's use. None: as its files say, or else the table of models."""

    pooling: Pooling | None = None
    query_prompt: str | None = None
    doc_prompt: str | None = None


OWN = Said()  # everything as the files say


def encoder(
    model: str, max_length: int | None = None, backend: Backend | str = "auto", said: Said = OWN
) -> OnnxEncoder | TorchEncoder:
    """The encoder of a model, run by ONNX Runtime or by sentence-transformers (extra ``st``).

    A folder with ``model.onnx`` is run by ONNX Runtime; one with ``onnx/model.onnx`` too, if it has no weights for
    torch or sentence-transformers is not installed. A quantised one for this processor, by the names of transformers.js
    and sentence-transformers (``onnx/model_quantized.onnx``, ``onnx/model_qint8_avx512_vnni.onnx``), is tried beside
    the others, or taken if there is nothing else.

    :param model: an alias, a Hugging Face id or a folder; see :func:`rankpipe.weights.resolve`.
    :param max_length: tokens of a text that are read; the model's own limit if None.
    :param backend: what computes. "auto": on a CPU the fastest of those that the model has files for and whose vectors
        are those of single precision but for rounding (:func:`rankpipe.retrieve.probe.fastest` tries them for two
        seconds); on a GPU torch, in bfloat16 if it can. Also the name of an ONNX graph in the model's folder.
    :param said: pooling and prompts, where they are not those of the model's files.
    :raises MissingWeights: If the model cannot be had.
    :raises MissingExtra: If it needs sentence-transformers, which is not installed.
    :raises ModelError: If the model cannot read ``max_length`` tokens or be had by ``backend``, or its files do not say
        how to use it.
    """
    if said.pooling not in (None, *POOLINGS):
        raise ModelError(f"{model}: pooling is {said.pooling!r}; expected {' or '.join(POOLINGS)}")
    folder = weights.resolve(model)
    if backend not in ("auto", *BACKENDS, *(graphs := weights.graphs(folder))):
        raise ModelError(f"{model}: no backend {backend!r}{near(backend, [*BACKENDS, *graphs])}")

    def loaded(by: str) -> OnnxEncoder | TorchEncoder:
        with working(f"loading {model}, {by}"):
            if by not in DTYPES:
                return OnnxEncoder(model, folder, max_length, said, None if by == "onnx" else by)
            if weights.graph(folder) and not weights.whole(folder):
                raise ModelError(f"{model}: has an ONNX graph only, no weights for torch; leave out backend={by!r}")
            return TorchEncoder(model, folder, max_length, DTYPES[by], said)

    ways = [backend] if backend != "auto" else possible(folder)
    made = {ways[0]: loaded(ways[0])}
    if len(ways) == 1:
        return _told(model, made[ways[0]])
    for way in ways[1:]:
        try:
            made[way] = loaded(way)
        except ModelError as error:
            LOG.warning("%s is not tried by %s: %s", model, way, error)
    with working(f"trying {model} by {', '.join(made)}"):
        chosen, tried = fastest(made)
    LOG.info("%s is computed by %s; tried: %s", model, chosen, tried)
    made[chosen].facts["probe"] = {way: one._asdict() for way, one in tried.items()}
    return _told(model, made[chosen])


def possible(folder: Path) -> list[str]:
    """What could run a folder's model here, the most exact first."""
    eight, graph = weights.quantised(folder), weights.graph(folder)
    whole = ["onnx"] if graph and graph.name == WHOLE else []
    also = [*whole, *([eight] if eight else [])]
    if weights.by_onnx(folder):
        return also or ["onnx"]  # in eight bits for another processor
    if (device := default_device()) != "cpu":
        return [NAMES[native_dtype(device)]]
    return ["torch-float32", "torch-bfloat16", *also]


def _told(model: str, made: OnnxEncoder | TorchEncoder) -> OnnxEncoder | TorchEncoder:
    """Say which file was taken, if it is not the one that anybody would think of."""
    if (backend := made.facts["backend"]) not in BACKENDS:
        notice(f"{model} is computed by {backend}")
    return made


class OnnxEncoder:
    """An ONNX graph that gives token vectors, pooled here; each text by itself, so that no vector depends on others.

    :raises ModelError: If the graph gives no token vectors, or nothing says how to pool them.
    """

    def __init__(
        self, name: str, folder: Path, max_length: int | None = None, said: Said = OWN, graph: str | None = None
    ) -> None:
        known = weights.find(name)
        self.name, self.identity = name, weights.identity(folder)
        self._model = OnnxModel(folder, max_length, name=graph)
        self.facts: dict[str, Any] = {"backend": "onnx"}
        if (file := self._model.file).name != WHOLE:
            self.facts["backend"] = file.relative_to(folder).as_posix()
            self.identity += f" {self.facts['backend']}"
        self.cut: list[bool] = []
        self._pooling, self._normalise = top(folder, known, said.pooling)
        own = read_json(folder / "config_sentence_transformers.json").get("prompts", {})
        self._prompts = prompts(own, known, said)
        [row] = self._model.run(["a"])
        if row.values.ndim != 2:
            raise ModelError(f"{folder}: its graph gives no vector for each token; is it an encoder?")
        self.dimension = row.values.shape[1]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        return self._encode(texts, self._prompts.query)

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        return self._encode(texts, self._prompts.document)

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        self.cut = []
        rows = track(self._model.run([prompt + text for text in texts]), f"vectors of {self.name}", len(texts))
        for i, row in enumerate(rows):
            vectors[i] = row.values[0] if self._pooling == "cls" else row.values.mean(axis=0)
            self.cut.append(row.cut)
        return unit(vectors) if self._normalise else vectors


class TorchEncoder:
    """Any sentence-transformers model: on a GPU, if there is one, as its own ``encode`` runs it; on a CPU by
    :class:`~rankpipe.retrieve.streams.Streams`, if its modules are known.
    """

    def __init__(
        self, name: str, folder: Path, max_length: int | None = None, dtype: Dtype = "float32", said: Said = OWN
    ) -> None:
        require("sentence_transformers", name=f"the encoder {name}", extra="st")
        backend = NAMES[dtype]
        self.name, self.identity = name, f"{weights.identity(folder)} {backend}"
        self.facts: dict[str, Any] = {"backend": backend}
        self.cut: list[bool] = []
        self._model: Any = st.load("SentenceTransformer", folder, dtype, max_length)
        if said.pooling:
            _pool(name, self._model, said.pooling)
        self._normalise = type(self._model[-1]).__name__ == "Normalize"
        own = prompts(self._model.prompts, weights.find(name), said)
        self._query, self._document = Role("query", own.query), Role("document", own.document)
        self._streams = Streams(self._model) if fits(self._model, (self._query, self._document)) else None
        self.dimension = int(self._model.get_embedding_dimension())

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        return self._encode(texts, self._query)

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        return self._encode(texts, self._document)

    def _encode(self, texts: Sequence[str], role: Role) -> Vectors:
        if not texts:
            self.cut = []
            return np.empty((0, self.dimension), np.float32)
        vectors = self._by_streams(self._streams, texts, role) if self._streams else self._by_batches(texts, role)
        return unit(vectors) if self._normalise else vectors  # again: bfloat16 leaves lengths of .996 to 1.004

    def _by_streams(self, streams: Streams, texts: Sequence[str], role: Role) -> Vectors:
        vectors, self.cut = np.empty((len(texts), self.dimension), np.float32), [False] * len(texts)
        for made in track(streams.run(texts, role), f"vectors of {self.name}", len(texts)):
            vectors[made.place], self.cut[made.place] = made.vector, made.cut
        return vectors

    def _by_batches(self, texts: Sequence[str], role: Role) -> Vectors:
        told = st.measured(self._model, [role.prompt + text for text in texts])
        self.cut = told.cut
        bare = [text[len(role.prompt) :] for text in told.texts]
        encode = self._model.encode_query if role.task == "query" else self._model.encode_document
        made = encode(bare, prompt=role.prompt, batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)
        vectors: Vectors = made.float().cpu().numpy()
        return vectors


NAMES: dict[Dtype, Backend] = {"float32": "torch-float32", "bfloat16": "torch-bfloat16", "float16": "torch-float16"}
DTYPES: dict[Backend, Dtype] = {backend: dtype for dtype, backend in NAMES.items()}


def _pool(name: str, model: Any, pooling: Pooling) -> None:
    """Put another pooling into a sentence-transformers model."""
    places = [i for i, module in enumerate(model) if type(module).__name__ == "Pooling"]
    if not places:
        raise ModelError(f"{name}: does no pooling of its own; leave out pooling={pooling}")
    own = model[places[0]]
    model[places[0]] = type(own)(own.embedding_dimension, pooling, include_prompt=own.include_prompt)


def unit(vectors: Vectors) -> Vectors:
    """Each vector made one long; one of zeros stays."""
    made: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return made


class Prompts(NamedTuple):
    """What is put before a text."""

    query: str
    document: str


def prompts(own: dict[str, str], known: weights.Model | None, said: Said = OWN) -> Prompts:
    """What the caller says; else the model's own, as sentence-transformers chooses among them; else the table's."""
    has = {role: prompt for role, prompt in own.items() if prompt}
    table = known.prompts if known else {}
    query = has.get("query") or table.get("query", "")
    document = next((has[role] for role in ("document", "passage", "corpus") if role in has), None)
    document = document or table.get("document", "")
    return Prompts(
        query if said.query_prompt is None else said.query_prompt,
        document if said.doc_prompt is None else said.doc_prompt,
    )


def top(folder: Path, known: weights.Model | None, said: Pooling | None = None) -> tuple[str, bool]:
    """How token vectors become one, "cls" or "mean" (as ``said``), and whether its length is then made 1."""
    modules = {module["type"].rsplit(".")[-1] for module in read_json(folder / "modules.json", list)}
    if strange := modules - {"Transformer", "Pooling", "Normalize"}:
        raise ModelError(f"{folder}: modules.json has {min(strange)}, which its ONNX graph leaves out")
    told = read_json(folder / "1_Pooling" / "config.json")
    older = {"cls": told.get("pooling_mode_cls_token"), "mean": told.get("pooling_mode_mean_tokens")}
    own = told.get("pooling_mode") or next((mode for mode, on in older.items() if on), known and known.pooling)
    pooling = said or own
    if pooling is None:
        raise ModelError(f"{folder}: no 1_Pooling/config.json says how it pools; give pooling=cls or pooling=mean")
    if pooling not in POOLINGS:
        raise ModelError(f"{folder}: 1_Pooling/config.json says pooling is {pooling}; only cls and mean are done here")
    return pooling, "Normalize" in modules or bool(known and known.normalise)
