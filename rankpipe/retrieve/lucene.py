"""Lucene by Anserini: BM25, RM3 and fields, in an index that lives. Needs the extra ``java``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from rankpipe import java, recipe
from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import RecipeError
from rankpipe.progress import track
from rankpipe.retrieve import lucenefields
from rankpipe.retrieve.docs import checked
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.lucenefiles import LOCK, RAM_MB, Reader, Writer, writing
from rankpipe.retrieve.lucenesearch import Options, Search, Settings, analyzer
from rankpipe.retrieve.memory import ID
from rankpipe.retrieve.trial import Trial, Try
from rankpipe.store import Draft, publish
from rankpipe.where import Filter

FIELDS = ("contents", "title", "text")
SHARD = 1 << 16  # documents between two savings of a build
HELD = 160  # bytes of an id in memory, beside its letters
COUNTED = ("empty_texts", "ids_with_white_space")


class Lucene(Index):
    """Finds documents by the words they share with the query, as Anserini and Pyserini do (Yang et al. 2017).

    Scores are Lucene's own: lengths of documents are rounded to one byte. They are those of an index built from what is
    left after any changes, for deleted documents are merged away at once; a batch that deletes or replaces documents
    rewrites the segments they were in.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most.
    :param k1: how fast repeated words stop counting; as built by default.
    :param b: how much long documents are held back, 0 to 1; as built by default.
    :param rm3: expand queries by words of what they find first: yes, no, or Anserini's ``fb_terms``, ``fb_docs`` and
        ``original_query_weight``; as built by default.
    :param fields: those that are searched, of the indexed ones, each with its boost; as built by default.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``. RM3 reads what is found
        without it.
    :raises ArtefactError: If there is no whole Lucene index in the folder.
    :raises MissingExtra: If Pyserini or Java is not there.
    :raises RecipeError: If a number is out of its range.
    """

    kind, format = "lucene", 2

    def __init__(
        self,
        index: Path,
        k: int = 1000,
        *,
        k1: float | None = None,
        b: float | None = None,
        rm3: bool | dict[str, Any] | None = None,
        fields: dict[str, float] | None = None,
        where: Filter | str | None = None,
    ) -> None:
        given = {"k1": k1, "b": b, "rm3": rm3, "fields": fields}
        self._given = {name: value for name, value in given.items() if value is not None}
        super().__init__(index, k, where)

    @classmethod
    def build(cls, data: Dataset, folder: Path, **options: Unpack[Options]) -> Lucene:
        """Index a collection; ``k1``, ``b``, ``rm3`` and the boosts can be others at the search. A build that was
        interrupted goes on after its last whole shard of 65,536 documents.

        :raises DataError: If there is no document, an id comes twice or is too long.
        :raises RecipeError: If an argument is out of its range.
        """
        settings = cls.check(**options)
        words = analyzer(settings)  # first: without Java nothing is begun
        told = {"use": cls.kind, **recipe.defaults(Options), **options}
        with publish(folder, kind=cls.kind, format=cls.format, recipe=told, data=data.data, resume=SHARD) as draft:
            docs = track(data.docs(), f"{cls.kind} index of {data.name}", data.count)
            with writing(draft.folder, words, settings.indexed) as writer:
                done = len(writer)
                for number, (doc, line) in enumerate(checked(docs, {}), 1):
                    if number > done:
                        writer.put(doc, line, new=True)
                        if number % SHARD == 0:
                            writer.commit()
            draft.facts = _facts(Reader(draft.folder))
        return cls(folder)

    @classmethod
    def trial(cls, recipe: dict[str, Any], memory: int) -> Try:  # noqa: ARG003  Java's is what it is
        """What indexes a few documents, to foretell what more of them take."""
        settings = cls.check(**{k: v for k, v in recipe.items() if k != "use"})
        words = analyzer(settings)

        def tried(docs: Sequence[Doc], folder: Path) -> Trial:
            with writing(folder, words, settings.indexed) as writer:
                for doc, line in checked(docs, {}):
                    writer.put(doc, line, new=True)
            held = sum(HELD + ID * len(doc.id) for doc in docs)
            return Trial(
                len(docs), held, sum(f.stat().st_size for f in folder.iterdir()), fixed_bytes=round(RAM_MB * 2**20)
            )

        return tried

    @staticmethod
    def check(**options: Any) -> Settings:
        """The settings of such an index.

        :raises RecipeError: If an argument is out of its range; says all faults.
        """
        settings = Settings.of(options)
        if unknown := {*settings.fields} - {*FIELDS}:
            raise RecipeError([f"fields: {', '.join(sorted(unknown))}; there are {', '.join(FIELDS)}"])
        return settings

    @staticmethod
    def needs(**_: Any) -> None:
        """Refuse it where it cannot run.

        :raises MissingExtra: If Pyserini is not installed, or there is no Java.
        """
        java.needed()

    def _open(self) -> None:
        self._built = Settings.of({k: v for k, v in self.manifest.recipe.items() if k != "use"})
        self._reader = Reader(self.manifest.path)
        self._search = Search(self._reader, self._built.but(self._given))

    def __len__(self) -> int:
        return len(self._reader)

    def documents(self) -> Iterator[Doc]:
        """All that are alive, in the order in which they came."""
        reader = self._reader
        return (reader[place] for place in range(len(reader)))

    def having(self, field: str, kind: str | None = None) -> int:
        """How many documents have a field, if asked for of this kind."""
        with LOCK:
            return self._search.count(lucenefields.having(field, kind))

    def field_names(self) -> Iterator[str]:
        """The names of all fields."""
        with LOCK:
            return iter([*lucenefields.names(self._reader.java)])

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search."""
        found = (self._search(query.text, self.k, self.where) for query in batch)
        return [Ranking.scored(query, hits, self.k) for query, hits in zip(batch, found, strict=True)]

    def add(self, docs: Iterable[Doc]) -> Change:
        """Add documents.

        :raises DataError: If an id is there already, or comes twice; nothing is added.
        """
        return self._put(docs, replace=False)

    def update(self, docs: Iterable[Doc]) -> Change:
        """Add documents; those whose ids are there take the place of the old ones.

        :raises DataError: If an id comes twice; nothing is changed.
        """
        return self._put(docs, replace=True)

    def delete(self, ids: Iterable[str]) -> Change:
        """Delete documents by their ids; says which were not there."""
        doomed = dict.fromkeys(ids)
        with self._amending() as draft:
            there = _there(doomed, Reader(draft.folder))
            with self._writing(draft) as writer:
                for id in there:
                    writer.delete(id)
        self.refresh()
        return Change(deleted=len(there), absent=tuple(id for id in doomed if id not in there))

    def compact(self) -> Change:
        """Make one segment of all."""
        with self._amending() as draft, self._writing(draft, segments=1):
            pass
        self.refresh()
        return Change()

    def _put(self, docs: Iterable[Doc], *, replace: bool) -> Change:
        ids = dict[str, None]()
        with self._amending() as draft:
            before = Reader(draft.folder)
            with self._writing(draft) as writer:
                for doc, line in checked(docs, ids):
                    writer.put(doc, line, new=not replace)
                there = _there(ids, before)
                if there and not replace:
                    raise self._there([*there], len(ids))
        self.refresh()
        return Change(added=len(ids) - len(there), replaced=len(there))

    @contextmanager
    def _writing(self, draft: Draft, segments: int | None = None) -> Iterator[Writer]:
        with writing(draft.folder, analyzer(self._built), self._built.indexed, segments=segments) as writer:
            yield writer
        draft.facts |= _facts(Reader(draft.folder))


def _there(ids: Iterable[str], reader: Reader) -> dict[str, None]:
    """Those of the ids that documents have."""
    return {id: None for id in ids if reader.count("id", id)}


def _facts(reader: Reader) -> dict[str, int]:
    counts = {name: reader.count("odd", name) for name in COUNTED}
    return {"documents": len(reader), **counts, "dead": 0, "segments": reader.segments}
