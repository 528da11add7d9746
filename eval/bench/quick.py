"""Encoders that are quick, for ``index.py``: a whole model would take hours to encode what is indexed there.

All are made of a model's input embeddings and of how rare its tokens are, so that what is found is sensible.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import corpora
import numpy as np
from numpy.typing import NDArray

from rankpipe import weights
from rankpipe.colbert import Read
from rankpipe.retrieve.encode import unit
from rankpipe.splade import Weighed

MODEL = "minilm"
SEEN = 5_000  # documents whose words are counted
TOKENS = 256  # of a text that are read
WIDTH = 96  # of a token's vector, as colbert-small publishes it
KEPT = "QUICK_KEPT"  # a variable of the environment: the folder where what takes long to count is kept


class Quick:
    """A model's tokenizer, its input embeddings, and the weight of each of its tokens."""

    name, a = "quick", 1e-3

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length = max_length or TOKENS

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(weights.resolve(MODEL) / "tokenizer.json"))
        made.no_padding()
        made.enable_truncation(self.max_length)
        return made

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        """Of each token, (tokens, dimension)."""
        from safetensors import safe_open

        with safe_open(weights.resolve(MODEL) / "model.safetensors", "numpy") as f:
            made: NDArray[np.float32] = f.get_tensor("embeddings.word_embeddings.weight")
        return made

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        if (kept := Path(os.environ[KEPT], "weights.npy")).exists():
            return np.asarray(np.load(kept), np.float32)
        np.save(kept, made := self._counted())
        return made

    def _counted(self) -> NDArray[np.float32]:
        """Rare tokens count more (SIF, Arora et al. 2017, a = 0.001, without the common component), (tokens,)."""
        seen = Counter(i for e in self._read([*islice(corpora.texts(), SEEN)], special=True) for i in e.ids)
        times = np.array([seen[i] for i in range(len(self._embeddings))], np.float32)
        return np.asarray(self.a / (self.a + times / times.sum()), np.float32)

    @cached_property
    def identity(self) -> str:
        """The model's weights, and how they are used."""
        return f"{weights.identity(weights.resolve(MODEL))} {self.name} {self.a}"

    @classmethod
    @contextmanager
    def counted(cls) -> Iterator[None]:
        """Inside, also in processes begun there, tokens have been counted: building does not."""
        with TemporaryDirectory() as kept:
            os.environ[KEPT] = kept
            assert len(cls()._weights)
            yield

    def _read(self, texts: Sequence[str], special: bool = False) -> Any:
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)


class Vectors(Quick):
    """The mean of a text's embeddings."""

    name = "static"

    def __init__(self, max_length: int | None = None) -> None:
        super().__init__(max_length)
        self.cut = list[bool]()

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        """What each token adds, (tokens, dimension)."""
        return self._embeddings * self._weights[:, None]

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self._rows.shape[1])

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of length 1, (n, dimension)."""
        told = self._read(texts)
        self.cut = [bool(e.overflowing) for e in told]
        return unit(np.stack([self._rows[e.ids].sum(axis=0) if e.ids else self._rows[0] for e in told]))

    encode_queries = encode_docs


class Words(Quick):
    """A text's own tokens, weighed by how often they come and how rare they are; none are added."""

    name = "quick words"

    @cached_property
    def vocabulary(self) -> Sequence[str]:
        """All tokens."""
        return [self._tokenizer.id_to_token(i) for i in range(self._tokenizer.get_vocab_size())]

    def docs(self, texts: Sequence[str]) -> Sequence[Weighed]:
        """Passages."""
        return [self._weighed(e) for e in self._read(texts)]

    queries = docs

    def _weighed(self, told: Any) -> Weighed:
        words, times = np.unique(np.array(told.ids, np.int32), return_counts=True)
        return Weighed(words, np.log1p(times).astype(np.float32) * self._weights[words], bool(told.overflowing))


class Tokens(Quick):
    """The embedding of each token, turned to fewer numbers by chance."""

    name = "quick tokens"

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        """Of length 1, (tokens, WIDTH)."""
        chance = np.random.default_rng(0).normal(size=(self._embeddings.shape[1], WIDTH)).astype(np.float32)
        return unit(self._embeddings @ chance)

    def query(self, text: str) -> Read:
        """A question."""
        return next(self.docs([text]))

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        """Passages."""
        for told in self._read(texts, special=True):
            yield Read(self._rows[told.ids], len(told.ids), bool(told.overflowing))
