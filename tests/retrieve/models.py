"""Models of words that need no weights: one for sparse retrieval, one for late interaction; a word is a token."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rankpipe.colbert import Read
from rankpipe.splade import Weighed

LONG = 50  # words; what is longer counts as cut


class Weights:
    """A word weighs the more, the oftener it is there, and brings a second one with it."""

    identity: ClassVar[str] = "weights-1"
    encoded: ClassVar[list[str]] = []  # every document text that any of them was given
    vocabulary: ClassVar[list[str]] = [f"term{i:05}" for i in range(10_007)]

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length = max_length

    def queries(self, texts: Sequence[str]) -> list[Weighed]:
        return [self._weighed(text) for text in texts]

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        self.encoded.extend(texts)
        return [self._weighed(text) for text in texts]

    def _weighed(self, text: str) -> Weighed:
        made = np.zeros(len(self.vocabulary), np.float32)
        for word in text.split():
            number = zlib.crc32(word.encode())
            made[number % 10_007] += 0.1 + number % 977 / 977
            made[number // 7 % 10_007] += 0.01
        words = np.flatnonzero(made).astype(np.int32)
        return Weighed(words, np.log1p(made[words]), len(text.split()) > LONG)


class Varied(Weights):
    """A word weighs more in some documents than in others, so that hardly two have the same score."""

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        factors = [np.float32(1 + zlib.crc32(text.encode()) % 9973 / 9973) for text in texts]
        return [one._replace(weights=one.weights * f) for one, f in zip(super().docs(texts), factors, strict=True)]


class Odd(Weights):
    """Weighs nothing where it says "bad", and less than nothing where it says "worse"."""

    def _weighed(self, text: str) -> Weighed:
        made = super()._weighed(text)
        factor = np.float32(np.nan if "bad" in text else -1 if "worse" in text else 1)
        return made._replace(weights=made.weights * factor)


class Stopped(Weights):
    """Is interrupted in its third call of all."""

    calls: ClassVar[int] = 0

    def docs(self, texts: Sequence[str]) -> list[Weighed]:
        Stopped.calls += 1
        if Stopped.calls == 3:
            raise KeyboardInterrupt
        return super().docs(texts)


@cache
def direction(word: str) -> NDArray[np.float32]:
    """A vector of 10 dimensions, of length 1, drawn for a word."""
    made = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(10)
    return (made / np.linalg.norm(made)).astype(np.float32)


class Directions:
    """A vector for each word."""

    identity: ClassVar[str] = "directions-1"
    encoded: ClassVar[list[str]] = []  # every document text that any of them was given

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length = max_length

    def query(self, text: str) -> Read:
        return self._read(text)

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        for text in texts:
            self.encoded.append(text)
            yield self._read(text)

    def _read(self, text: str) -> Read:
        words = text.split()
        vectors = np.array([direction(w) for w in words], np.float32).reshape(-1, 10)
        return Read(vectors, len(words), len(words) > LONG)


class Awry(Directions):
    """Makes vectors that are longer where a text says "bad"."""

    def _read(self, text: str) -> Read:
        made = super()._read(text)
        return made._replace(vectors=made.vectors * (1.1 if "bad" in text else 1))


class Broken(Directions):
    """Is interrupted at the thirtieth document of all."""

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        for read in super().docs(texts):
            if len(self.encoded) == 30:
                raise KeyboardInterrupt
            yield read
