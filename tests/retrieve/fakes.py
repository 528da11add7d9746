"""Encoders that need no weights: a text is how often each of a few kinds of word is in it, so scores are whole."""

from __future__ import annotations

import os
import resource
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets.dataset import Held
from rankpipe.stage import Retriever


class Hashed:
    """Counts of hashed words, in 16 dimensions. Texts of more than 50 words count as truncated."""

    name, identity, dimension = "hashed", "hashed-1", 16
    encoded: ClassVar[list[str]] = []  # every document text that any of them was given
    made: ClassVar[int] = 0

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length, self.cut = max_length, list[bool]()
        Hashed.made += 1

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._vector(text) for text in texts], np.float32)

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        Hashed.encoded += texts
        self.cut = [len(text.split()) > 50 for text in texts]
        return np.array([self._vector(text) for text in texts], np.float32)

    def _vector(self, text: str) -> list[int] | NDArray[np.float32]:
        kinds = [zlib.crc32(word.encode()) % self.dimension for word in text.lower().split()]
        return [kinds.count(i) for i in range(self.dimension)]


class Drawn(Hashed):
    """The sum of a vector drawn for each word, one long: numbers as real encoders make them, that round."""

    name, identity, dimension = "drawn", "drawn-1", 24

    def _vector(self, text: str) -> NDArray[np.float32]:
        words = [np.random.default_rng(zlib.crc32(w.encode())).standard_normal(24) for w in text.lower().split()]
        made = sum(words, np.zeros(24))
        return (made / max(float(np.linalg.norm(made)), 1e-9)).astype(np.float32)


class Aside(Drawn):
    """Questions lie elsewhere than documents, and far from them."""

    identity = "aside-1"

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_queries([" ".join(f"asked-{word}" for word in text.split()) for text in texts])


class Sociable(Drawn):
    """Makes vectors that depend on what else it is given."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_docs(texts) * np.float32(1 + zlib.crc32(" ".join(texts).encode()) % 97 / 97)


class Slow(Hashed):
    """Takes a while for each call."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(0.02)
        return super().encode_docs(texts)


class Torn(Hashed):
    """Is interrupted in its third call of all."""

    calls: ClassVar[int] = 0

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        Torn.calls += 1
        if Torn.calls == 3:
            raise KeyboardInterrupt
        return super().encode_docs(texts)


class Broken(Hashed):
    """Makes vectors that are no numbers of those texts that say "bad"."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().encode_docs(texts)
        vectors[["bad" in text for text in texts]] = np.nan
        return vectors


class Loud(Hashed):
    """Makes numbers too large for half precision."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_docs(texts) + np.float32(1e5)


class Listed(Retriever):
    """Finds what it is told to: query id -> document id -> score."""

    def __init__(self, lists: dict[str, dict[str, float]], title: str = "") -> None:
        self.lists, self.title = lists, title

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        return [
            Ranking.scored(q, [Hit(Doc(d, f"text of {d}", self.title), s) for d, s in self.lists.get(q.id, {}).items()])
            for q in batch
        ]


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """The kernel refuses longer files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """The kernel opens so many more files only, until the process asks for others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Interrupted(Held):
    """A corpus that is interrupted before a document.

    :param at: its number, from 0 on.
    """

    at: int = 29

    def docs(self) -> Iterator[Doc]:
        for i, doc in enumerate(super().docs()):
            if i == self.at:
                raise KeyboardInterrupt
            yield doc


@dataclass(frozen=True)
class Deadly(Held):
    """Kills the process that reads it at its 160th document, at once as the system does."""

    def docs(self) -> Iterator[Doc]:
        for i, doc in enumerate(super().docs()):
            if i == 160:
                os.kill(os.getpid(), signal.SIGKILL)
            yield doc
