"""What every index can do: documents are added to it, replaced in it and deleted from it, while others search it."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import ClassVar, Self

from rankpipe.catalog import near
from rankpipe.data import Doc
from rankpipe.datasets.dataset import only_docs
from rankpipe.errors import ArtefactError, DataError, several
from rankpipe.retrieve.fields import OTHER, SECTIONS
from rankpipe.stage import FILTERS, Retriever
from rankpipe.store import Draft, amend, open_artefact, read_manifest, tidy
from rankpipe.where import KINDS, Filter

OBJECT = "object"
Names = Callable[[], list[str]]


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

    A filter takes nothing from a search but what does not meet it: the hits are the ``k`` best of those documents that
    do, and a score is what it is without a filter, by statistics of all documents.

    :param index: a folder made by ``build``.
    :param k: hits a query, at most.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :raises ArtefactError: If there is no whole index of this kind in the folder.
    :raises RecipeError: If ``where`` is no condition, or indexes of this kind cannot filter.
    """

    kind: ClassVar[str]
    format: ClassVar[int] = 1  # of the files; what another version of rankpipe wrote may be of another
    shared: ClassVar[tuple[str, ...]] = ()  # files of a segment that a search of any other reads, too
    part: Sequence[str] | None = None  # the names of the segments that are opened and searched, if not all
    where: Filter | None = None

    def __init__(self, index: Path | str, k: int = 1000, where: Filter | str | None = None) -> None:
        self.refuse_hits(k)
        self.folder, self.k = Path(index), k
        self.refresh()
        if where is not None:
            self.where = self.filtered(where).where

    def filtered(self, where: Filter | str) -> Self:
        """The same index, finding only documents that meet a condition, too; what is open is shared."""
        if self.kind not in FILTERS:  # somebody's own kind, whose search may know nothing of it
            return super().filtered(where)
        made, where = copy(self), Filter.of(where)
        made.where = where if self.where is None else self.where & where
        return made

    def told(self, where: Filter | str) -> list[str]:
        """What is odd about a condition on this index: fields that no document has, or that are of another kind than
        what they are compared with.
        """
        said, names = list[str](), self._names()
        for leaf in dict.fromkeys(Filter.of(where).leaves):
            if not (kinds := self._kinds(leaf.field, names)):
                said += self.lacking([leaf.field])
            elif leaf.values:
                compared = {KINDS[type(value)] for value in leaf.values}
                for kind, n in kinds.items():
                    if kind == OBJECT:
                        inner = ", ".join(self._inner(leaf.field, names))
                        said.append(f"{leaf.field!r} is an object, compare what is in it: {inner}")
                    elif kind not in compared:
                        which = several(n, "document, which does", "documents, which do")
                        said.append(f"{leaf.field!r} is a {kind} in {which} not meet {leaf}")
        return said

    def lacking(self, fields: Sequence[str]) -> list[str]:
        """Of some fields, those that no document has, each in a sentence."""
        lost = [name for name in fields if not self.having(name)]
        return [f"no document has a field {name!r}{near(name, [*{*self.field_names()} - {name}])}" for name in lost]

    @property
    def known_fields(self) -> dict[str, dict[str, int]]:
        """Of each field: how many documents have it ("documents"), and how many of them a text, a number, ... in it; an
        object, whose fields are there by dotted names.
        """
        told, names = {}, self._names()
        for name in names():
            if documents := self.having(name):
                told[name] = {"documents": documents, **self._kinds(name, names)}
        return told

    def _names(self) -> Names:
        """The names of all fields, which are read and sorted once, and only if they are asked for."""
        return cache(lambda: sorted({*self.field_names()}))

    def _kinds(self, field: str, names: Names) -> dict[str, int]:
        """How many documents have a value of each kind in a field; one that has fields itself is called an object."""
        kinds = {kind: n for kind in SECTIONS if (n := self.having(field, kind))}
        if OTHER in kinds and any(self._inner(field, names)):
            kinds[OBJECT] = kinds.pop(OTHER)
        return kinds

    def _inner(self, field: str, names: Names) -> Iterator[str]:
        """The names of the fields in the object that a field is, in their order."""
        first, last = (bisect_left(names(), field + sign) for sign in "./")  # "/" comes after "."
        return filter(self.having, names()[first:last])

    @abstractmethod
    def having(self, field: str, kind: str | None = None) -> int:
        """How many documents have a field, if asked for of this kind (:data:`~rankpipe.retrieve.fields.SECTIONS`)."""

    @abstractmethod
    def field_names(self) -> Iterator[str]:
        """The names of all fields; one may come twice, and, of dead documents, until they are gone."""

    def refresh(self) -> Self:
        """Open what is there now; if that cannot be opened, this stays what it was."""
        opened, before = copy(self), dict(vars(self))
        opened._open_newest()
        vars(self).update(vars(opened))
        del before  # only now, that all of it is replaced: what ends with it may let other threads run
        return self

    def _open_newest(self) -> None:
        while True:
            self.manifest = open_artefact(self.folder, kind=self.kind, format=self.format, read=self._reads)
            try:
                self._open()
            except (FileNotFoundError, ArtefactError):  # Lucene calls a file that has gone a damage of the one before
                if read_manifest(self.folder).build == self.manifest.build:
                    raise
            else:
                if read_manifest(self.folder).build == self.manifest.build:  # nothing was removed while it was opened
                    return

    def _reads(self, name: str) -> bool:
        """Whether a search reads a file, by its name in the index."""
        segment, _, file = name.partition("/")
        return self.part is None or segment in self.part or file in self.shared

    @abstractmethod
    def _open(self) -> None:
        """Open what the manifest names, all of it: files that a search opened later might have been removed by then.

        :raises FileNotFoundError: If it is gone, because a writer has replaced it meanwhile.
        """

    @abstractmethod
    def __len__(self) -> int:
        """How many documents are alive."""

    @abstractmethod
    def documents(self) -> Iterator[Doc]:
        """All that are alive."""

    def get(self, ids: Iterable[str]) -> list[Doc]:
        """The documents of these ids, each once, in their order; one alone is one id.

        :raises DataError: If one is not there; says which.
        """
        named = self._named(ids)
        found = {doc.id: doc for doc in self._of(named)}
        if lost := [id for id in named if id not in found]:
            some = ", ".join(map(repr, lost[:3])) + ("..." if len(lost) > 3 else "")
            raise DataError(f"{self.folder}: {several(len(lost), 'document')} of {len(named)} not there: {some}")
        return [found[id] for id in named]

    @abstractmethod
    def _of(self, ids: Sequence[str]) -> Iterator[Doc]:
        """Those documents of these ids that are there and alive."""

    def add(self, docs: Iterable[Doc]) -> Change:
        """Add documents. If there are none, nothing changes.

        :raises DataError: If an id is there already, or comes twice; nothing is added.
        """
        return self._put_any(docs, replace=False)

    def update(self, docs: Iterable[Doc]) -> Change:
        """Add documents; those whose ids are there take the place of the old ones. If there are none, nothing changes.

        :raises DataError: If an id comes twice; nothing is changed.
        """
        return self._put_any(docs, replace=True)

    def _put_any(self, docs: Iterable[Doc], *, replace: bool) -> Change:
        given = only_docs(docs)
        for first in given:
            return self._put(chain([first], given), replace=replace)
        self.refresh()
        return Change()

    @abstractmethod
    def _put(self, docs: Iterable[Doc], *, replace: bool) -> Change:
        """Add documents, of which there are some.

        :param replace: whether they take the place of those whose ids they have.
        """

    def delete(self, ids: Iterable[str]) -> Change:
        """Delete documents by their ids; says which were not there. If none is, nothing changes."""
        doomed = self._named(ids)
        if self.refresh().there_are(doomed):
            return self._delete(doomed)
        return Change(absent=tuple(doomed))

    @abstractmethod
    def there_are(self, ids: Sequence[str]) -> bool:
        """Whether any of the documents is there."""

    @abstractmethod
    def _delete(self, ids: Sequence[str]) -> Change:
        """Delete documents, of which some are there."""

    def compact(self) -> Change:
        """Make one segment of all, or as few as memory allows, without what is dead: it takes the least room, and is
        searched as fast as it can be. No document changes, so that this is not counted as a batch; if it is so already,
        nothing is written. What killed writers left is removed.
        """
        if self.refresh()._is_compact():
            tidy(self.folder)
        else:
            self._compact()
        return Change()

    @abstractmethod
    def _is_compact(self) -> bool:
        """Whether it is so already."""

    @abstractmethod
    def _compact(self) -> None:
        """Make it so."""

    @staticmethod
    def _named(ids: Iterable[str]) -> list[str]:
        """Each id once, in their order; one alone is one id.

        :raises DataError: If one is no text.
        """
        if not isinstance(ids, Iterable):
            raise DataError(f"ids: a {type(ids).__name__}, expected a list of str")
        named = [ids] if isinstance(ids, str) else [*dict.fromkeys(ids)]
        for odd in (id for id in named if not isinstance(id, str)):
            raise DataError(f"the id {odd!r} is a {type(odd).__name__}, expected a str")
        return named

    def _there(self, there: Sequence[str], documents: int) -> DataError:
        """The refusal to add documents of which some are there."""
        return DataError(
            f"{self.folder}: {len(there)} of {documents} documents are there already ({', '.join(there[:3])}...); "
            "nothing was added. To replace them: rankpipe index update"
        )

    @contextmanager
    def _amending(self, batches: int = 1) -> Iterator[Draft]:
        """Change the files of the index: all that the block does, or nothing. It begins with what is there now, by the
        recipe and the model that made it.

        :param batches: as how many of them this counts.
        """
        with amend(self.folder, kind=self.kind, format=self.format) as (manifest, draft):
            if manifest.build != self.manifest.build:
                self.refresh()
            yield draft
            if made := manifest.facts.get("batches", 0) + batches:
                draft.facts["batches"] = made
