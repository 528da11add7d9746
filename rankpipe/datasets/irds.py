"""Collections of ir_datasets (MacAvaney et al. 2021), which fetches and keeps them itself (``IR_DATASETS_HOME``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rankpipe.catalog import installed, need
from rankpipe.data import Doc
from rankpipe.datasets.dataset import Dataset, digest
from rankpipe.datasets.records import asked
from rankpipe.datasets.unique import unique
from rankpipe.errors import DataError
from rankpipe.trec import Qrels

SHORT = 1000  # characters


def ids() -> list[str]:
    """Every id that ir_datasets lists; none if it is not installed."""
    return list(_library("ir_datasets").registry) if installed("ir_datasets") else []


def has(id: str, *, prefixed: bool) -> bool:
    """Whether ir_datasets has a collection of this id.

    :param prefixed: whether it was asked for as ``irds:ID``.
    :raises MissingExtra: If it was, and ir_datasets is not installed.
    """
    if not prefixed and not installed("ir_datasets"):
        return False
    try:
        _library(id).load(id)
    except KeyError:
        return False
    return True


@dataclass(frozen=True)
class IrdsCorpus:
    """The documents of one of its collections."""

    id: str

    @property
    def place(self) -> str:
        """``irds:ID``."""
        return f"irds:{self.id}"

    @property
    def path(self) -> None:
        """It is no file of ours."""

    @property
    def count(self) -> int | None:
        """What ir_datasets says, where it knows."""
        return self._source.docs_metadata().get("count")  # type: ignore[no-any-return]

    def docs(self) -> Iterator[Doc]:
        """Its documents: title and text where it has such fields, else what it calls their default text. Other values
        of up to :data:`SHORT` characters are their fields; longer ones, lists and bytes are left out.
        """
        return unique(self._placed)

    def checksum(self) -> str:
        """:func:`rankpipe.datasets.dataset.digest`."""
        return digest(self.docs())

    @property
    def _source(self) -> Any:
        return _library(self.id).load(self.id)

    def _placed(self) -> Iterator[tuple[str, Doc]]:
        with _fetching(self.id):
            for number, record in enumerate(self._source.docs_iter(), 1):
                place = f"{self.place}, document {number}"
                whole = hasattr(record, "text")
                text = record.text if whole else record.default_text()
                if not isinstance(text, str):
                    raise DataError(f"{place} ({record.doc_id}): its text is {text!r}, expected a string")
                title = (getattr(record, "title", "") or "") if whole else ""
                read = ("doc_id", "text", "title") if whole else ("doc_id",)
                yield place, Doc(record.doc_id, text, title, _fields(record, read))


def read(id: str) -> Dataset:
    """The collection of this id, with its queries and judgements if it has them.

    :raises DataError: If it has no documents, or it is not on this machine and cannot be fetched.
    """
    source = _library(id).load(id)
    if not source.has_docs():
        raise DataError(f"irds:{id}: has no documents of its own; name one of its parts")
    qrels: Qrels = {}
    with _fetching(id):
        if source.has_qrels():
            for judged in source.qrels_iter():
                qrels.setdefault(judged.query_id, {})[judged.doc_id] = judged.relevance
        topics = list(source.queries_iter()) if source.has_queries() else []
    queries = tuple(asked(q.query_id, q.default_text(), f"irds:{id}") for q in topics)
    return Dataset(id, IrdsCorpus(id), queries, qrels)


def _fields(record: Any, read: Sequence[str]) -> dict[str, Any]:
    plain = {n: v for n, v in record._asdict().items() if n not in read and isinstance(v, str | int | float)}
    return {name: value for name, value in plain.items() if len(str(value)) <= SHORT}


def _library(id: str) -> Any:
    return need("ir_datasets", name=f"irds:{id}", extra="datasets")


@contextmanager
def _fetching(id: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # what requests, and its own download and hash checks, raise
        raise DataError(f"irds:{id}: ir_datasets could not fetch or read it: {str(error)[:300]}") from error
