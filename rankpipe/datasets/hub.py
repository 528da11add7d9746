"""Collections on the Hugging Face hub, or in a local folder laid out like one, through their `datasets` library.

The BEIR layout is understood: configurations ``corpus`` and ``queries``; judgements in the configuration ``default`` or
``qrels`` (as MTEB has them) or else in the repository ``ID-qrels`` (as BeIR has them). A repository with one
configuration is a corpus without queries. Documents stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import need
from rankpipe.data import Doc, Query
from rankpipe.datasets.dataset import Dataset, NoSplit, digest
from rankpipe.datasets.facts import collections
from rankpipe.datasets.known import claimed
from rankpipe.datasets.records import doc, identifier, query
from rankpipe.datasets.tables import plain
from rankpipe.datasets.unique import unique
from rankpipe.errors import DataError
from rankpipe.trec import Qrels


@dataclass(frozen=True)
class Table:
    """One configuration and split of a repository; also a corpus, if its rows are documents."""

    id: str
    config: str
    split: str

    @property
    def place(self) -> str:
        """``hf:ID config/split``."""
        return f"hf:{self.id} {self.config}/{self.split}"

    @property
    def path(self) -> None:
        """It is no file of ours."""

    @property
    def count(self) -> int | None:
        """Not known before it has streamed."""
        return None

    def docs(self) -> Iterator[Doc]:
        """Its rows as documents; of their fields dates become text (:func:`~rankpipe.datasets.tables.plain`), and what
        is no JSON (images, bytes) is left out.
        """
        return unique(lambda: ((place, doc(_json(row), place)) for place, row in self.rows()))

    def queries(self) -> Iterator[Query]:
        """Its rows as queries."""
        return unique(lambda: ((place, query(row, place)) for place, row in self.rows()))

    def qrels(self) -> Qrels:
        """Its rows as judgements: ``query-id``, ``corpus-id``, ``score``.

        :raises DataError: If a score is no whole number, or a field is missing.
        """
        qrels: Qrels = {}
        for place, row in self.rows():
            grade = row.get("score")
            if not isinstance(grade, int):
                raise DataError(f"{place}: 'score' is {grade!r}, expected a whole number")
            qrels.setdefault(identifier(row, ("query-id",), place), {})[identifier(row, ("corpus-id",), place)] = grade
        return qrels

    def checksum(self) -> str:
        """:func:`rankpipe.datasets.dataset.digest` of its documents."""
        return digest(self.docs())

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Its rows, each with its place, streamed."""
        with _fetching(self.id):
            table = _library(self.id).load_dataset(self.id, self.config, split=self.split, streaming=True)
            for number, row in enumerate(table, 1):
                yield f"{self.place}, row {number}", row


def read(id: str, split: str) -> Dataset:
    """A repository at one split of its judgements. ``BeIR/NAME`` is checked as the known collection ``beir/NAME``.

    :raises DataError: If it cannot be reached, is laid out otherwise, or has no such split; says what it has.
    """
    with _fetching(id):
        configs = _library(id).get_dataset_config_names(id)
    name = f"hf:{id}/{split}"
    if "corpus" not in configs:
        return Dataset(name, _only(id, _one(f"hf:{id}", "configuration", configs)))
    judged = next((Table(id, c, split) for c in ("default", "qrels") if c in configs), None)
    judged = judged or Table(f"{id}-qrels", "default", split)
    if split not in (splits := _splits(judged.id, judged.config)):
        raise NoSplit(f"hf:{judged.id}", split, splits)
    qrels = judged.qrels()
    every = tuple(_only(id, "queries").queries())
    queries = tuple(q for q in every if q.id in qrels) if len(splits) > 1 else every
    data = Dataset(name, _only(id, "corpus"), queries, qrels, other_queries=len(every) - len(queries))
    known = collections().get(id.replace("BeIR/", "beir/", 1))
    return claimed(data, known, split) if known else data


def _json(row: Mapping[str, Any]) -> dict[str, Any]:
    told = plain(row, lambda *_: None)
    return {name: value for name, value in told.items() if value is not None or row[name] is None}


def _only(id: str, config: str) -> Table:
    return Table(id, config, _one(f"hf:{id} {config}", "split", _splits(id, config)))


def _one(place: str, what: str, names: Iterable[str]) -> str:
    """The one name there is."""
    [name, *others] = names
    if others:
        raise DataError(
            f"{place}: has the {what}s {', '.join([name, *others])}; expected the BEIR layout (corpus, queries), "
            f"or a single {what} of documents"
        )
    return name


def _splits(id: str, config: str) -> list[str]:
    with _fetching(id):
        return list(_library(id).get_dataset_split_names(id, config))


def _library(id: str) -> Any:
    return need("datasets", name=f"hf:{id}", extra="datasets")


@contextmanager
def _fetching(id: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # unreachable or absent; a configuration or file it cannot read
        raise DataError(f"hf:{id}: `datasets` could not fetch or read it: {str(error)[:300]}") from error
