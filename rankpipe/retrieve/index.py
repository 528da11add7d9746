"""What every index can do: documents are added to it, replaced in it and deleted from it, while others search it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from rankpipe.data import Doc
from rankpipe.errors import DataError, RecipeError
from rankpipe.stage import Retriever
from rankpipe.store import Draft, amend, open_artefact, read_manifest


@dataclass(frozen=True)
class Change:
    """What a batch of changes did."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    absent: tuple[str, ...] = ()  # ids that were to be deleted, and were not there


class Index(Retriever):
    """An index in a folder that lives: one writer at a time, readers at any time.

    An opened index stays what it was when it was opened, whatever is written meanwhile; :meth:`refresh` opens what is
    there now, and so does every change made through it.

    :param index: a folder made by ``build``.
    :param k: hits a query, at most.
    :raises ArtefactError: If there is no whole index of this kind in the folder.
    """

    kind: ClassVar[str]
    format: ClassVar[int] = 1  # of the files; what another version of rankpipe wrote may be of another

    def __init__(self, index: Path, k: int = 1000) -> None:
        if k < 1:
            raise RecipeError([f"k: {k} hits; expected 1 or more"])
        self.folder, self.k = Path(index), k
        self.refresh()

    def refresh(self) -> Self:
        """Open what is there now."""
        while True:
            self.manifest = open_artefact(self.folder, kind=self.kind, format=self.format)
            try:
                self._open()
                return self
            except FileNotFoundError:
                if read_manifest(self.folder).build == self.manifest.build:
                    raise

    @abstractmethod
    def _open(self) -> None:
        """Open what the manifest names.

        :raises FileNotFoundError: If it is gone, because a writer has replaced it meanwhile.
        """

    @abstractmethod
    def __len__(self) -> int:
        """How many documents are alive."""

    @abstractmethod
    def documents(self) -> Iterator[Doc]:
        """All that are alive."""

    @abstractmethod
    def add(self, docs: Iterable[Doc]) -> Change:
        """Add documents.

        :raises DataError: If an id is there already, or comes twice; nothing is added.
        """

    @abstractmethod
    def update(self, docs: Iterable[Doc]) -> Change:
        """Add documents; those whose ids are there take the place of the old ones.

        :raises DataError: If an id comes twice; nothing is changed.
        """

    @abstractmethod
    def delete(self, ids: Iterable[str]) -> Change:
        """Delete documents by their ids; says which were not there."""

    @abstractmethod
    def compact(self) -> Change:
        """Free the room of what is dead; search becomes as fast as it can be."""

    def _there(self, there: Sequence[str], documents: int) -> DataError:
        """The refusal to add documents of which some are there."""
        return DataError(
            f"{self.folder}: {len(there)} of {documents} documents are there already ({', '.join(there[:3])}...); "
            "nothing was added. To replace them: rankpipe index update"
        )

    @contextmanager
    def _amending(self) -> Iterator[Draft]:
        """Change the files of the index: all that the block does, or nothing."""
        with amend(self.folder, kind=self.kind, format=self.format) as (self.manifest, draft):
            yield draft
            draft.facts["batches"] = self.manifest.facts.get("batches", 0) + 1
