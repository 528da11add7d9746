"""Corpora in files that stream: JSON lines, packed or not, Parquet, and folders of such files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from rankpipe.catalog import need
from rankpipe.data import Doc
from rankpipe.datasets.beir import open_corpus
from rankpipe.datasets.records import Jsonl, doc
from rankpipe.datasets.tables import plain
from rankpipe.datasets.unique import unique
from rankpipe.disk import sha256
from rankpipe.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
ROWS = 256  # of Parquet, in memory at once; and whatever page of each column they lie in


@dataclass(frozen=True)
class Parquet:
    """A corpus in one Parquet file (extra ``datasets``). Columns that no document has are its fields; dates become text
    (:func:`~rankpipe.datasets.tables.plain`).
    """

    path: Path

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def count(self) -> int:
        """Its rows, as it says."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def docs(self) -> Iterator[Doc]:
        """Its documents."""
        return unique(self.placed)

    def placed(self) -> Iterator[tuple[str, Doc]]:
        """Its documents, each with its file and row.

        :raises DataError: If a row is no document, or has what JSON has nothing for; names its column.
        """
        with self._opened() as file:
            number = 0
            for batch in file.iter_batches(ROWS):
                for row in batch.to_pylist():
                    number += 1
                    place = f"{self.path}: row {number}"
                    yield place, doc(plain(row, partial(_refuse, place)), place)

    def checksum(self) -> str:
        """The sha256 of the file."""
        return sha256(self.path)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        parquet = need("pyarrow.parquet", name=str(self.path), extra="datasets")
        try:
            with parquet.ParquetFile(self.path, pre_buffer=False) as file:
                yield file
        except (OSError, need("pyarrow", name=str(self.path), extra="datasets").ArrowException) as error:
            raise DataError(f"{self.path}: cannot be read as Parquet: {error}") from None


def _refuse(place: str, column: str, value: Any) -> NoReturn:
    raise DataError(
        f"{place}: the column {column!r} has {type(value).__name__}, which JSON has nothing for; leave the column out, "
        "or make it text or numbers"
    )


@dataclass(frozen=True)
class Files:
    """A corpus in several files, in the order of their names."""

    folder: Path
    parts: tuple[Jsonl | Parquet, ...]

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def path(self) -> None:
        """It is no single file."""

    @property
    def count(self) -> int:
        """All that are in its files."""
        return sum(part.count for part in self.parts)

    def docs(self) -> Iterator[Doc]:
        """The documents of one file after the other."""
        return unique(lambda: chain.from_iterable(part.placed() for part in self.parts))

    def checksum(self) -> str:
        """The sha256 of those of its files."""
        return hashlib.sha256(" ".join(part.checksum() for part in self.parts).encode()).hexdigest()


def opened(path: Path) -> Jsonl | Parquet:
    """A corpus file, its first record checked.

    :raises DataError: If it is missing, empty, or begins with no document.
    :raises MissingExtra: If it is Parquet, and pyarrow is not installed.
    """
    if path.suffix != ".parquet":
        return open_corpus(path)
    made = Parquet(path)
    for _ in made.placed():
        return made
    raise DataError(f"{path}: no documents in it")


def inside(folder: Path) -> tuple[Jsonl | Parquet, ...]:
    """The corpus files of a folder; none if it is laid out as BEIR's, or has no such files.

    :raises DataError: If one of them is empty, or begins with no document.
    """
    if any((folder / name).exists() for name in ("corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "qrels")):
        return ()
    return tuple(opened(path) for path in sorted(folder.iterdir()) if path.name.endswith(ENDINGS))
