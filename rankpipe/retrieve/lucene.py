"""Lucene by Anserini: BM25, RM3 and fields, in an index that lives. Needs the extra ``java``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Unpack

from rankpipe import java, recipe
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import ArtefactError, DiskError, RecipeError
from rankpipe.java import locked
from rankpipe.progress import notice, track
from rankpipe.retrieve import lucenefields
from rankpipe.retrieve.common import Said, refuse_place
from rankpipe.retrieve.docs import checked
from rankpipe.retrieve.index import Change, Index
from rankpipe.retrieve.lucenedead import Dead, bury
from rankpipe.retrieve.lucenefields import FIRST, key
from rankpipe.retrieve.lucenefiles import Writer, ram_mb, writing
from rankpipe.retrieve.lucenereader import Reader
from rankpipe.retrieve.lucenesearch import Options, Search, Settings, analyzer
from rankpipe.retrieve.memory import ANY, size_bytes
from rankpipe.retrieve.passages import Passages, joined
from rankpipe.retrieve.trial import Trial, Try
from rankpipe.store import Draft, publish
from rankpipe.where import Filter

FIELDS = ("contents", "title", "text")
SHARD = 1 << 16  # documents between two savings of a build
HELD = 256  # bytes of an id in memory
COUNTED = ("empty_texts", "ids_with_white_space")


class Lucene(Index):
    """Finds documents by the words they share with the query, as Anserini and Pyserini do (Yang et al. 2017).

    Scores are Lucene's own: lengths of documents are rounded to one byte. After any changes they are, to a millionth,
    those of an index built from what is left: a search takes off Lucene's statistics what deleted documents add to them
    (:mod:`~rankpipe.retrieve.lucenedead`). These are merged away where segments are small or one document in 16 is
    dead, and at once in an index that is built with ``fields`` or ``rm3``.

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

    kind, format = "lucene", 3

    def __init__(
        self,
        index: Path | str,
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
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        *,
        passages: Said = None,
        memory: str | int | None = None,
        **options: Unpack[Options],
    ) -> Lucene:
        """Index a collection; ``k1``, ``b``, ``rm3`` and the boosts can be others at the search. A build that was
        interrupted goes on after its last whole shard of 65,536 documents.

        :param passages: how documents are cut (:class:`~rankpipe.retrieve.common.Common`).
        :param memory: half of it is Java's, if that does not run yet; a quarter, what Lucene writes out at once.
        :raises DataError: If there is no document, an id comes twice or is too long.
        :raises RecipeError: If an argument is out of its range.
        """
        settings, cut, most = cls.check(**options), Passages.of(passages), size_bytes(memory)
        folder = refuse_place(data, folder, cls.kind)
        java.limit(most // 2)
        words = analyzer(settings)  # first: without Java nothing is begun
        told = {"use": cls.kind, **recipe.defaults(Options), **options, "passages": cut and cut.told}
        with publish(folder, kind=cls.kind, format=cls.format, recipe=told, data=data.data, resume=SHARD) as draft:
            docs = iter(track(data.docs(), f"{cls.kind} index of {data.name}", data.count))
            _mended(draft.folder)
            with writing(draft.folder, words, settings.indexed, cut, memory=most) as writer:
                deque(islice(docs, len(writer)), maxlen=0)  # are there already
                for head in docs:
                    for doc, line in checked(chain([head], islice(docs, SHARD - 1)), {}):
                        writer.put(doc, line, new=True)
                    writer.commit()
            draft.facts = _facts(Reader(draft.folder), cut, most)
        return cls(folder)

    @classmethod
    def trial(cls, recipe: dict[str, Any], memory: int) -> Try:
        """What indexes a few documents, to foretell what more of them take."""
        settings, cut = cls.check(**_options(recipe)), Passages.of(recipe.get("passages"))
        java.limit(memory // 2)
        words = analyzer(settings)

        def tried(docs: Sequence[Doc], folder: Path) -> Trial:
            with writing(folder, words, settings.indexed, cut, memory=memory) as writer:
                for doc, line in checked(docs, {}):
                    writer.put(doc, line, new=True)
            size = sum(f.stat().st_size for f in folder.iterdir())
            return Trial(len(docs), 0, size, fixed_bytes=round(ram_mb(memory) * 2**20) + HELD * SHARD)

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
        self._built = Settings.of(_options(self.manifest.recipe))
        self._cut = Passages.of(self.manifest.recipe.get("passages"))
        self._reader = Reader(self.manifest.path)
        settings, dead = self._built.but(self._given), Dead.of(self.manifest.path, self._reader)
        if settings.rm3 and dead.documents:
            notice(
                f"{self.folder}: of the words that RM3 may take, {dead.documents} deleted documents still decide which "
                "are too frequent; rankpipe index compact removes them"
            )
        self._search = Search(self._reader, settings, dead)

    def __len__(self) -> int:
        return int(self.manifest.facts["documents"])

    def documents(self) -> Iterator[Doc]:
        """All that are alive, in the order in which they came."""
        reader = self._reader
        kept = (reader[place] for place in reader.living())
        return joined(kept) if self._cut else kept

    def _of(self, ids: Sequence[str]) -> Iterator[Doc]:
        """Those documents of these ids that are there and alive."""
        reader = self._reader
        kept = (reader[place] for id in ids for place in reader.places(key(self._cut), id))
        return joined(kept) if self._cut else kept

    @locked
    def having(self, field: str, kind: str | None = None) -> int:
        """How many documents have a field, if asked for of this kind."""
        return self._search.count(lucenefields.having(field, kind, first=self._cut is not None))

    @locked
    def field_names(self) -> Iterator[str]:
        """The names of all fields."""
        return iter([*lucenefields.names(self._reader.java)])

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search what is open now."""
        opened = copy(self)  # which another thread may refresh
        if cut := opened._cut:
            return cut.found(lambda queries, k: [[list(one)] for one in opened._find(queries, k)], batch, opened.k)
        found = opened._find(batch, opened.k)
        return [Ranking.scored(query, hits, opened.k) for query, hits in zip(batch, found, strict=True)]

    def _find(self, queries: Sequence[Query], k: int) -> Iterator[Iterator[Hit]]:
        return (self._search(query.text, k, self.where) for query in queries)

    def there_are(self, ids: Sequence[str]) -> bool:
        """Whether any is there and alive."""
        return bool(self._there_of(ids, self._reader))

    def _delete(self, ids: Sequence[str]) -> Change:
        with self._amending() as draft:
            there = self._there_of(ids, before := Reader(draft.folder))
            with self._writing(draft, before, there) as writer:
                for id in there:
                    writer.delete(id)
        self.refresh()
        return Change(deleted=len(there), absent=tuple(id for id in ids if id not in there))

    def _is_compact(self) -> bool:
        return self._reader.segments <= 1 and not self._reader.segments_with_dead

    def _compact(self) -> None:
        with self._amending(batches=0) as draft, self._writing(draft, Reader(draft.folder), segments=1):
            pass
        self.refresh()

    def _put(self, docs: Iterable[Doc], *, replace: bool) -> Change:
        ids, there = dict[str, None](), dict[str, None]()
        with self._amending() as draft:
            before = Reader(draft.folder)
            with self._writing(draft, before, there) as writer:
                for doc, line in checked(docs, ids):
                    writer.put(doc, line, new=not replace)
                there |= self._there_of(ids, before)
                if there and not replace:
                    raise self._there([*there], len(ids))
        self.refresh()
        return Change(added=len(ids) - len(there), replaced=len(there))

    def _there_of(self, ids: Iterable[str], reader: Reader) -> dict[str, None]:
        """Those of the ids that documents have."""
        return {id: None for id in ids if reader.count(key(self._cut), id)}

    @contextmanager
    def _writing(
        self, draft: Draft, before: Reader, gone: Iterable[str] = (), segments: int | None = None
    ) -> Iterator[Writer]:
        """Change the index.

        :param before: as it is.
        :param gone: the ids of the documents that are dead in the end.
        :param segments: of it in the end, at most.
        """
        memory, words = int(self.manifest.facts.get("memory_bytes", ANY)), analyzer(self._built)
        change = partial(writing, draft.folder, words, self._built.indexed, self._cut, memory=memory)
        clean = bool(segments or self._built.fields or self._built.rm3)
        with change(segments=segments, clean=clean) as writer:
            yield writer
        if not bury(draft.folder, before, gone, key(self._cut), words):
            with change():
                pass
        draft.facts |= _facts(Reader(draft.folder), self._cut, memory)


def _mended(folder: Path) -> None:
    """Take away what an interrupted build has committed, if a byte of it is wrong; this is said."""
    if any(folder.glob("segments_*")):
        try:
            Reader(folder, look=True)
        except (ArtefactError, DiskError, FileNotFoundError):
            notice(f"{folder} was harmed since it was written; the index is made again")
            for file in folder.iterdir():
                file.unlink()


def _options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in recipe.items() if k not in ("use", "passages")}


def _facts(reader: Reader, cut: Passages | None, memory: int) -> dict[str, int]:
    counts = {name: reader.count("odd", name) for name in COUNTED}
    told = {"documents": len(reader), **counts, "dead": reader.dead, "segments": reader.segments}
    told |= {"memory_bytes": memory} if memory < ANY else {}
    return {**told, "documents": reader.count(*FIRST), "passages": len(reader)} if cut else told
