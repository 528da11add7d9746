"""The collection that is always there: the documentation of the running Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from rankpipe.data import Doc
from rankpipe.datasets import pydocs
from rankpipe.datasets.beir import read_judged
from rankpipe.datasets.dataset import Dataset, Held


class PyDocs:
    """The standard library's docstrings, read from its sources the first time they are wanted and then held."""

    place = "pydocs"
    path = None

    @cached_property
    def held(self) -> Held:
        """The documents."""
        return Held(tuple(pydocs.corpus()), self.place)

    @property
    def count(self) -> int:
        """How many documents this Python has."""
        return self.held.count

    def docs(self) -> Iterator[Doc]:
        """The documents."""
        return self.held.docs()

    def checksum(self) -> str:
        """Theirs; it differs from one Python version to another."""
        return self.held.checksum()


def read_pydocs(split: str) -> Dataset:
    """``pydocs`` with its questions and judgements.

    :raises DataError: If it has no such split.
    """
    queries, qrels, others = read_judged(Path(pydocs.__file__).parent, split)
    return Dataset("pydocs", PyDocs(), queries, qrels, other_queries=others)
