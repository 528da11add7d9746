"""Sentence encoders: texts to vectors, by ONNX or by sentence-transformers, whichever the model's files are for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rankpipe import weights
from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.onnx import OnnxModel, read_json

Vectors = NDArray[np.float32]  # (n, dimension)


class Encoder(Protocol):
    """Turns texts into vectors whose inner product says how near they are."""

    @property
    def name(self) -> str:
        """As the user called it."""
        ...

    @property
    def identity(self) -> str:
        """Which weights exactly."""
        ...

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        ...

    @property
    def truncated(self) -> int:
        """Texts that the last call had to shorten."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        ...

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        ...


def encoder(model: str, max_length: int | None = None) -> Encoder:
    """The encoder of a model: ONNX if its folder has ``model.onnx``, else sentence-transformers (extra ``st``).

    :param model: an alias, a Hugging Face id or a folder; see :func:`rankpipe.weights.resolve`.
    :param max_length: tokens of a text that are read; the model's own limit if None.
    :raises MissingWeights: If the model cannot be had.
    :raises MissingExtra: If it needs sentence-transformers, which is not installed.
    """
    folder = weights.resolve(model)
    kind = OnnxEncoder if (folder / "model.onnx").exists() else TorchEncoder
    return kind(model, folder, max_length)


class OnnxEncoder:
    """An ONNX graph that gives token vectors, pooled here; each text by itself, so that no vector depends on others.

    Pooling, normalisation and prompts come from the table of models, else from the folder's sentence-transformers
    files.

    :raises ModelError: If neither says how to pool.
    """

    def __init__(self, name: str, folder: Path, max_length: int | None = None) -> None:
        known = weights.find(name)
        self.name, self.identity = name, weights.identity(folder)
        self.truncated = 0
        self._model = OnnxModel(folder, max_length or (known.max_length if known else None))
        self._pooling = (known and known.pooling) or _pooling(folder)
        self._normalise = known.normalise if known and known.normalise is not None else _normalises(folder)
        told = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        self._prompts = (known.prompts if known else {}) or told

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self._model.dimension)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        return self._encode(texts, ("query",))

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        return self._encode(texts, ("document", "passage"))

    def _encode(self, texts: Sequence[str], roles: tuple[str, ...]) -> Vectors:
        prompt = next((self._prompts[r] for r in roles if self._prompts.get(r)), "")
        vectors = np.empty((len(texts), self.dimension), np.float32)
        self.truncated = 0
        for i, row in enumerate(self._model.run([prompt + text for text in texts])):
            vectors[i] = row.values[0] if self._pooling == "cls" else row.values.mean(axis=0)
            self.truncated += row.cut
        if self._normalise:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


class TorchEncoder:
    """Any sentence-transformers model. Batches are sorted by length; single precision unless the CPU is fast in bf16.

    Loaded at construction: its dimension is known only then.
    """

    def __init__(self, name: str, folder: Path, max_length: int | None = None) -> None:
        library = need("sentence_transformers", name=f"the encoder {name}", extra="st")
        self.name, self.identity = name, weights.identity(folder)
        self.truncated = 0
        with weights.quiet():
            self._model: Any = library.SentenceTransformer(str(folder), model_kwargs={"dtype": _dtype()})
        if max_length is not None:
            self._model.max_seq_length = max_length

    @cached_property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self._model.get_embedding_dimension())

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, (n, dimension)."""
        return self._encode(texts, self._model.encode_query)

    def encode_docs(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, (n, dimension)."""
        return self._encode(texts, self._model.encode_document)

    def _encode(self, texts: Sequence[str], call: Any) -> Vectors:
        lengths = self._model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
        self.truncated = sum(len(tokens) > self._model.max_seq_length for tokens in lengths)
        made = call(list(texts), batch_size=16, show_progress_bar=False, convert_to_tensor=True)
        return np.asarray(made.float().cpu().numpy(), np.float32)


def _dtype() -> str:
    """bf16 on a GPU and on CPUs with instructions for it (twice as fast there); fp32 elsewhere (five times faster)."""
    torch = need("torch", name="sentence-transformers", extra="st")
    return "bfloat16" if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else "float32"


def _pooling(folder: Path) -> Literal["cls", "mean"]:
    told = read_json(folder / "1_Pooling" / "config.json")
    if told.get("pooling_mode_cls_token"):
        return "cls"
    if told.get("pooling_mode_mean_tokens"):
        return "mean"
    raise ModelError(f"{folder}: nothing says how its token vectors are pooled; expected 1_Pooling/config.json")


def _normalises(folder: Path) -> bool:
    modules = folder / "modules.json"
    return modules.exists() and "sentence_transformers.models.Normalize" in modules.read_text("utf-8")
