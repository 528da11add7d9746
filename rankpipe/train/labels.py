"""Who says how good a document is: judgements, a reranker, or what one said before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, pstdev
from typing import Any, ClassVar, Protocol

from rankpipe import store
from rankpipe.data import Ranking
from rankpipe.datasets import read_requests
from rankpipe.disk import sha256
from rankpipe.errors import DataError, RecipeError
from rankpipe.stage import Reranker
from rankpipe.trec import read_run

TAUGHT = "labels"  # the kind of artefact that a teacher makes
FILE = "labels.trec"

Said = Mapping[str, float]  # of one query: document to label


class Labels(Protocol):
    """Labels documents."""

    @property
    def checksum(self) -> str:
        """Of what it goes by that no recipe says: a file's."""
        ...

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:
        """The labels of each ranking's documents; what has none is left out of lists.

        :param grades: the judgements of each ranking's query.
        """
        ...


@dataclass(frozen=True)
class Judged:
    """The grades of the collection; what is not judged is not relevant, 0."""

    checksum: ClassVar[str] = ""

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:
        """Each document's grade."""
        return [
            {h.doc.id: float(of_query.get(h.doc.id, 0)) for h in r.hits}
            for r, of_query in zip(rankings, grades, strict=True)
        ]


@dataclass(frozen=True)
class Teacher:
    """The scores of a reranker: a cross-encoder's logits; of a listwise model, which scores nothing, 1 / rank.

    It reads all documents, whatever its ``depth``: what lies below that has scores that say nothing.

    :param stage: the reranker.
    :param standardise: of each query the scores less their mean, divided by their standard deviation: of a size that
        a student's can have, as ``margin-mse`` and ``kl`` want it. Above 0 is then what is better than the mean.
    :raises RecipeError: If it is none.
    """

    stage: Reranker
    standardise: bool = False

    checksum: ClassVar[str] = "whole"  # lists made before were labelled down to its depth only

    def __post_init__(self) -> None:
        if not isinstance(self.stage, Reranker):
            raise RecipeError([f"stage: {self.stage!r} is no reranker; for example {{use: cross-encoder}}"])

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:  # noqa: ARG002
        """What it makes of each ranking.

        :raises RecipeError: If the reranker has a depth that cannot be changed.
        """
        made: list[Said] = [{h.doc.id: h.score for h in r.hits} for r in self._whole.through(rankings, "teacher")]
        return [*map(standardised, made)] if self.standardise else made

    @cached_property
    def _whole(self) -> Reranker:
        return self.stage.whole()


@dataclass(frozen=True)
class Recorded:
    """What a teacher said before: the folder that ``rankpipe teach`` made; or a TREC run, or the requests of RankLLM
    (``.jsonl``), whose scores are the labels.

    :param path: the folder or the file.
    :param standardise: as of :class:`Teacher`; of the documents that are asked about.
    """

    path: Path
    standardise: bool = False

    @property
    def checksum(self) -> str:
        """The record's."""
        return sha256(self._file)

    def of(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[Said]:  # noqa: ARG002
        """What is on record of each ranking's documents.

        :raises DataError: If there is nothing of any of the queries.
        """
        found = [self._said.get(r.query.id, {}) for r in rankings]
        if rankings and not any(found):
            raise DataError(
                f"{self.path}: has no labels for {rankings[0].query.id!r} nor any other of {len(found)} queries"
            )
        made: list[Said] = [
            {h.doc.id: said[h.doc.id] for h in r.hits if h.doc.id in said}
            for r, said in zip(rankings, found, strict=True)
        ]
        return [*map(standardised, made)] if self.standardise else made

    @cached_property
    def _file(self) -> Path:
        if not self.path.exists():
            cure = f"make it with: rankpipe teach RUN --data DATA --model MODEL --out {self.path}"
            raise DataError(f"{self.path}: no such file; {cure}")
        return store.open_artefact(self.path, kind=TAUGHT).path / FILE if self.path.is_dir() else self.path

    @cached_property
    def _said(self) -> dict[str, Any]:
        if ".jsonl" in self._file.suffixes:
            return {r.query.id: {h.doc.id: h.score for h in r.hits} for r in read_requests(self._file)}
        return read_run(self._file).run


def standardised(said: Said) -> Said:
    """Labels less their mean, divided by their standard deviation; all 0 if they are the same."""
    if not said:
        return said
    middle = mean(said.values())
    deviation = pstdev(said.values(), middle) or 1.0
    return {doc: (label - middle) / deviation for doc, label in said.items()}
