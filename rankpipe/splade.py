"""Learned sparse models: a text as weighted words of a vocabulary (SPLADE, Formal et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankpipe import st, weights
from rankpipe.catalog import need, require
from rankpipe.device import default_device
from rankpipe.lm.local import in_batches, loaded, whole
from rankpipe.onnx import fitting

T = TypeVar("T")
Row = tuple[NDArray[np.int32], NDArray[np.float32]]  # places in the vocabulary, rising, and weights above 0: (n,) each
BATCH_TOKENS = 2048  # computed at once, of 30,522 logits each: 250 MB
BATCH = 16  # texts a batch of sentence-transformers


class Weighed(NamedTuple):
    """What a model made of one text."""

    words: NDArray[np.int32]  # (n,) places in the vocabulary
    weights: NDArray[np.float32]  # (n,) of these words, none of them 0
    cut: bool  # whether the text was too long, and shortened


class SparseEncoder(Protocol):
    """Turns texts into weighted words; the inner product of two texts' weights says how near they are."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """All words, each of them once."""
        ...

    def queries(self, texts: Sequence[str]) -> Sequence[Weighed]:
        """Questions."""
        ...

    def docs(self, texts: Sequence[str]) -> Sequence[Weighed]:
        """Passages."""
        ...


def require_libraries(model: str) -> None:
    """Refuse a model whose libraries are not installed; anybody's own (``package.module:Class``) is taken as it is.

    :raises MissingExtra: If torch or transformers is not.
    """
    for module in ("torch", "transformers") if ":" not in model else ():
        require(module, name=f"the sparse model {model}", extra="lm")


def sparse_encoder(model: str, max_length: int | None = None) -> SparseEncoder:
    """The encoder of a model: a SparseEncoder of sentence-transformers (extra ``st``) if its files are for one.

    :param model: an alias, a Hugging Face id or a folder: with ``modules.json`` any SparseEncoder, those whose queries
        need no model among them; else a masked language model that encodes queries and passages alike.
    :param max_length: tokens of a text that are read; the model's own limit if None.
    :raises MissingWeights: If it cannot be had.
    :raises MissingExtra: If torch, or what it needs beside, is not installed.
    :raises ModelError: If it is no such model, or cannot read ``max_length`` tokens.
    """
    folder = weights.resolve(model)
    if (folder / "modules.json").exists():
        return TorchSparse(folder, max_length)
    return Splade(model, folder, max_length)


class Splade:
    """A masked language model that gives every text a weight for each word of its vocabulary."""

    def __init__(self, name: str, folder: Path, max_length: int | None = None) -> None:
        transformers = need("transformers", name="this sparse model", extra="lm")
        self.name, self.max_seq_length = name, fitting(folder, max_length)
        self.tokenizer = loaded(transformers.AutoTokenizer, folder, local_files_only=True)
        model = whole(transformers.AutoModelForMaskedLM, folder, dtype="float32")
        self._model = model.to(default_device()).eval()

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens."""
        return _names(self.tokenizer, self._model.config.vocab_size)

    def queries(self, texts: Sequence[str]) -> list[Weighed]:
        """Questions."""
        return self.docs(texts)

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        """Passages, those of like length together."""
        told = st.measured(self, texts)
        rows = self.run(told, lambda _, vectors: [_row(vector) for vector in vectors.cpu().numpy()])
        return [Weighed(*row, cut) for row, cut in zip(rows, told.cut, strict=True)]

    def run(self, told: st.Measured[str], use: Callable[[Sequence[int], Any], list[T]]) -> list[T]:
        """What ``use`` makes of each text's weights; it is given a batch's positions and (texts, vocabulary)."""
        ids = self.tokenizer(told.texts, truncation=True, max_length=self.max_seq_length)["input_ids"]
        return in_batches(
            ids, lambda places: use(places, self._weights([ids[i] for i in places])), BATCH_TOKENS, self.name
        )

    def _weights(self, ids: Sequence[Sequence[int]]) -> Any:
        given = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._model.device)
        logits = self._model(**given).logits  # (B, T, vocabulary)
        unseen = given["attention_mask"][:, :, None] == 0
        return logits.masked_fill_(unseen, 0.0).amax(1).relu_().log1p_()  # the logarithm rises: as well last


class TorchSparse:
    """A SparseEncoder of sentence-transformers, on the GPU if there is one; in single precision."""

    def __init__(self, folder: Path, max_length: int | None = None) -> None:
        self._model = st.load("SparseEncoder", folder, "float32", max_length)
        self._prompt = next(
            (p for role in ("document", "passage", "corpus") if (p := self._model.prompts.get(role))), ""
        )

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens, or the numbers of the model's own dimensions."""
        made = self._model.encode_document("a", show_progress_bar=False)  # before it, the model may not know its size
        return _names(self._model.tokenizer, int(made.shape[-1]))

    def queries(self, texts: Sequence[str]) -> list[Weighed]:
        """Questions; what the model's files say is put before them."""
        return [Weighed(*row, False) for row in self._rows(self._model.encode_query, texts)]

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        """Passages."""
        told = st.measured(self._model, [self._prompt + text for text in texts])
        rows = self._rows(self._model.encode_document, [t[len(self._prompt) :] for t in told.texts], self._prompt)
        return [Weighed(*row, cut) for row, cut in zip(rows, told.cut, strict=True)]

    def _rows(self, encode: Callable[..., Any], texts: Sequence[str], prompt: str | None = None) -> list[Row]:
        if not texts:
            return []
        made = encode(list(texts), prompt=prompt, batch_size=BATCH, show_progress_bar=False, save_to_cpu=True)
        made = made.coalesce()  # (texts, vocabulary), sparse
        owner, words = made.indices().numpy()
        weights = made.values().float().numpy()
        ends = np.searchsorted(owner, np.arange(len(texts) + 1)).tolist()
        return [(words[a:b].astype(np.int32), weights[a:b]) for a, b in pairwise(ends)]


def _row(vector: NDArray[np.float32]) -> Row:
    """What is not 0 of (vocabulary,)."""
    words = np.flatnonzero(vector).astype(np.int32)
    return words, vector[words]


def _names(tokenizer: Any, size: int) -> list[str]:
    """The tokens, as far as there are any; a number for every other place of the vocabulary.

    :param size: of the vocabulary; where it is smaller than the tokenizer's, it is not one of tokens.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(size))) if size >= len(tokenizer) else [None] * size
    return [f"#{i}" if token is None else token for i, token in enumerate(tokens)]
