"""Late interaction models: one vector for each token of a text (ColBERT, Khattab, Zaharia 2020)."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rankpipe import st, weights
from rankpipe.errors import ModelError
from rankpipe.onnx import OnnxModel, Row, Tokens, fitting

Vectors = NDArray[np.float32]  # (tokens, dimension), each of length 1
QUERY_TOKENS = 32  # what a shorter query is filled up to with [MASK]; what the models were trained with
SHARD = 64  # passages that sentence-transformers encodes between two looks at their scores
BATCH = 16


class Read(NamedTuple):
    """What the model made of one text."""

    vectors: Vectors
    tokens: int  # read
    cut: bool  # whether the text was too long, and shortened


class TokenEncoder(Protocol):
    """Turns texts into one vector a token."""

    def query(self, text: str) -> Read:
        """A question."""
        ...

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        """Passages, one after the other."""
        ...


def token_encoder(model: str, max_length: int | None = None) -> TokenEncoder:
    """The encoder of a model: by ONNX Runtime if it has ``model.onnx``, else by sentence-transformers (extra ``st``).

    The ONNX graph of ``colbert-small`` ends before the published model's projection to 96 dimensions, so that vectors
    have 384; the published way to make them (a marker after [CLS], queries filled up to 32 tokens with [MASK] that no
    other token sees, no punctuation in passages, length 1) is still the best of those we tried (docs/log.md). Unlike
    PyLate, which cuts a query after 32 tokens, we read longer ones whole.

    :param model: an alias, a Hugging Face id or a folder: ONNX, or any that sentence-transformers opens as a
        MultiVectorEncoder (PyLate's, ColBERTv2), which does all that in its own way.
    :param max_length: tokens of a passage that are read; the model's own limit if None.
    :raises MissingWeights: If it cannot be had.
    :raises ModelError: If it is no late interaction model, or cannot read ``max_length`` tokens.
    """
    folder = weights.resolve(model)
    if (folder / "model.onnx").exists():
        return OnnxTokens(folder, _markers(model), max_length)
    return TorchTokens(folder, max_length)


class Markers(NamedTuple):
    """The tokens that tell a query from a document."""

    query: str
    document: str


class OnnxTokens:
    """An ONNX graph that gives token vectors; each text by itself, so that no vector depends on others."""

    def __init__(self, folder: Path, markers: Markers, max_length: int | None = None) -> None:
        self._model = OnnxModel(folder, fitting(folder, max_length) - 1)  # the marker is one more
        self._query, self._document = (self._model.token(marker) for marker in markers)
        self._mask = self._model.token("[MASK]")
        self._skipped = [self._model.token(mark) for mark in string.punctuation]

    def query(self, text: str) -> Read:
        """A question, with its marker, filled up with [MASK]."""
        [row] = self._model.run([text], self._asked)
        return Read(_unit(row.values), row.tokens, row.cut)

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        """Passages, with their marker; punctuation is read and gives context, but has no vector."""
        for row in self._model.run(texts, lambda tokens: _marked(tokens, self._document)):
            yield Read(_unit(self._kept(row)), row.tokens, row.cut)

    def _asked(self, tokens: Tokens) -> Tokens:
        marked = _marked(tokens, self._query)
        more = max(QUERY_TOKENS - len(marked.ids), 0)
        ids, types = [*marked.ids, *[self._mask] * more], [*marked.types, *[0] * more]
        return Tokens(ids, types, [*marked.seen, *[0] * more], marked.cut)

    def _kept(self, row: Row) -> Vectors:
        kept: Vectors = row.values[~np.isin(row.ids, self._skipped)]
        return kept


class TorchTokens:
    """A MultiVectorEncoder of sentence-transformers, on the GPU if there is one; in single precision."""

    def __init__(self, folder: Path, max_length: int | None = None) -> None:
        self._model = st.load("MultiVectorEncoder", folder, "float32", max_length)
        self._prompt = next(
            (p for role in ("document", "passage", "corpus") if (p := self._model.prompts.get(role))), ""
        )
        text = self._model[0]
        own = None if max_length else text.document_length
        self._model.max_seq_length = min((n for n in (own, self._model.max_seq_length) if n), default=None)
        text.document_length = self._model.max_seq_length

    def query(self, text: str) -> Read:
        """A question; what the model's files say is put around it."""
        [vectors] = self._model.encode_query([text], convert_to_numpy=True, show_progress_bar=False)
        return Read(vectors, len(vectors), False)

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        """Passages, a shard at a time; within it sorted by length."""
        for start in range(0, len(texts), SHARD):
            told = st.measured(self._model, [self._prompt + text for text in texts[start : start + SHARD]])
            bare = [text[len(self._prompt) :] for text in told.texts]
            made = self._model.encode_document(
                bare, prompt=self._prompt, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False
            )
            yield from (Read(*one) for one in zip(made, told.tokens, told.cut, strict=True))


def _markers(model: str) -> Markers:
    known = weights.find(model)
    if not known or not {"query", "document"} <= known.prompts.keys():
        raise ModelError(
            f"{model}: nothing says which tokens mark its queries and its documents, so it is probably no late "
            "interaction model; in ONNX only colbert-small is known, others need sentence-transformers' own files"
        )
    return Markers(known.prompts["query"], known.prompts["document"])


def _marked(tokens: Tokens, marker: int) -> Tokens:
    """With the marker after [CLS]."""
    first, *rest = tokens.ids
    return replace(tokens, ids=[first, marker, *rest], types=[0, *tokens.types], seen=[1, *tokens.seen])


def _unit(vectors: Vectors) -> Vectors:
    made: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return made
