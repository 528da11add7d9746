"""A run somebody else made, as a retriever."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from rankpipe.data import Query, Ranking
from rankpipe.datasets import Dataset, open_dataset, rankings
from rankpipe.errors import DataError
from rankpipe.stage import Retriever
from rankpipe.trec import read_run


class RunFile(Retriever):
    """Gives each query the hits that a TREC run file has for it, with their texts from the collection.

    :param data: the collection that has the texts.
    :param path: the run; a relative path is looked up in the collection's folder first.
    :param k: hits a query, at most.
    :raises DataError: If a line is malformed, or the collection lacks a document of the run.
    """

    def __init__(self, data: str, path: str, k: int = 1000) -> None:
        self.data, self.path, self.k = data, path, k

    @property
    def name(self) -> str:
        """``Run(file)``."""
        return f"Run({Path(self.path).name})"

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Look each query up; one that the run lacks has no hits."""
        found = [self._rankings.get(q.id) for q in batch]
        return [Ranking(q, r.hits[: self.k]) if r else Ranking(q) for q, r in zip(batch, found, strict=True)]

    @cached_property
    def _rankings(self) -> dict[str, Ranking]:
        data = open_dataset(self.data)
        return {r.query.id: r for r in rankings(read_run(self._file(data)).run, data)}

    def _file(self, data: Dataset) -> Path:
        folder = data.corpus.path.parent if data.corpus and data.corpus.path else Path()
        places = [folder / self.path, Path(self.path)]
        for place in places:
            if place.exists():
                return place
        raise DataError(f"{self.path}: no such run; looked for {' and '.join(map(str, places))}")
