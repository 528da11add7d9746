"""Dense, sparse and hybrid retrieval by Milvus: in a file of Milvus Lite beside the documents, or on a server.

The documents are in segments, as those of every index that lives; Milvus has their vectors, under serial numbers that
are never given twice. ``milvus.json`` says which number is the next: what Milvus has from there on is of a batch that
did not happen. So a batch happens when the manifest does, on a server, too; see decision 17.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import ArtefactError, RecipeError
from rankpipe.progress import notice
from rankpipe.retrieve import milvus_options as options
from rankpipe.retrieve.collection import MOST, SERIAL, Collection, reading, server
from rankpipe.retrieve.common import Common
from rankpipe.retrieve.encoded import Loaded
from rankpipe.retrieve.grown import NOTE, cut_texts
from rankpipe.retrieve.index import Change
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.milvus_sending import TOLD, send
from rankpipe.retrieve.numbered import FILE, Numbered, State, among, replaced, writing
from rankpipe.retrieve.parts import Part, moved
from rankpipe.retrieve.rows import Encoders
from rankpipe.retrieve.segment import mean_recall
from rankpipe.retrieve.trial import Try
from rankpipe.store import Draft, read_manifest
from rankpipe.where import Filter


class Milvus(Living):
    """Finds documents by Milvus: by vectors, by weighted words, or by both, which Milvus fuses itself.

    Scores are Milvus' own: inner products (of cosines, or negated squared distances, as the metric is), or what its
    ranker makes of the two lists, each ``k`` long. Which of several equal scores are among the ``k`` is Milvus' choice.
    An empty query has no hits. Documents are kept here as they are, however long.

    :param index: a folder made by :meth:`build`.
    :param k: hits a query, at most; Milvus gives up to 16,384.
    :param weights: of the dense and the sparse scores, which Milvus' WeightedRanker brings to 0..1 (arctangent) and
        adds; without them the lists are fused by ranks (RRFRanker, Cormack et al. 2009).
    :param rank_constant: how flat fusion by ranks is.
    :param search: parameters of the dense index for searching: ``{ef: 200}`` for HNSW (at least ``k`` by default),
        ``{nprobe: 32}`` for IVF_FLAT.
    :param uri: of the server, if it is no longer the one that the index was built on.
    :param where: which documents may be found, as ``year >= 2019 and lang in (en, de)``.
    :raises ArtefactError: If there is no whole milvus index in the folder, or the server lacks documents of it.
    """

    kind, most = "milvus", MOST
    doomed = False  # whether a server still has documents that the last batch deleted
    apart = False  # Milvus has the vectors of all segments together
    counts = (*Living.counts, "truncated_texts")
    needs = staticmethod(options.needs)

    def __init__(
        self,
        index: Path | str,
        k: int = 1000,
        *,
        weights: Sequence[float] | None = None,
        rank_constant: int = 60,
        search: dict[str, Any] | None = None,
        uri: str | None = None,
        where: Filter | str | None = None,
    ) -> None:
        faults = []
        if weights is not None and (len(weights) != 2 or not all(0 <= w <= 1 for w in weights)):
            faults.append(f"weights: {weights}; expected two numbers from 0 to 1, of dense and of sparse")
        if rank_constant < 1:
            faults.append(f"rank_constant: {rank_constant}; expected 1 or more")
        if faults:
            raise RecipeError(faults)
        self.weights, self.rank_constant, self.params, self.uri = weights, rank_constant, search or {}, uri
        super().__init__(index, k, where)

    @classmethod
    def build(
        cls,
        data: Dataset,
        folder: Path | str,
        /,
        *,
        model: str | None = "bge-small",
        sparse: str | None = None,
        max_length: int | None = None,
        metric: str = "IP",
        index: str = "FLAT",
        params: dict[str, Any] | None = None,
        sparse_index: str = "SPARSE_INVERTED_INDEX",
        uri: str | None = None,
        key: str | None = None,
        timeout_s: float = 60.0,
        **common: Unpack[Common],
    ) -> Milvus:
        """Encode a collection and send it to Milvus. An interrupted build goes on after its last whole shard.

        :param model: an encoder: an alias, a Hugging Face id or a folder (:func:`rankpipe.retrieve.encode.encoder`), or
            anybody's as ``package.module:Class``; None for an index of words alone.
        :param sparse: a sparse encoder (:func:`rankpipe.splade.sparse_encoder`); with ``model``, searches are hybrid.
        :param max_length: tokens of a text that are read; the models' own limits by default.
        :param metric: of vectors: "IP" (inner product), "COSINE" or "L2".
        :param index: of vectors: FLAT (exact), HNSW, IVF_FLAT or AUTOINDEX (HNSW in Milvus Lite); on a server any that
            it has.
        :param params: of that index, ``{M: 16, efConstruction: 200}`` or ``{nlist: 128}``.
        :param sparse_index: of words; on a server any that it has.
        :param uri: of a server, ``http://host:19530``; without it Milvus Lite's file is made in the folder.
        :param key: the environment variable that holds the server's token.
        :param timeout_s: how long the server may take for an answer.
        :param common: ``passages``, and for a server ``memory``; Milvus Lite holds all vectors in memory.
        :raises DataError: If there is no document, or an id comes twice.
        :raises ModelError: If a number is not finite, or a weight not above 0.
        :raises RecipeError: If an argument is out of its range.
        :raises ArtefactError: If Milvus refuses.
        """
        given: dict[str, Any] = {
            "model": model, "sparse": sparse, "max_length": max_length, "metric": metric, "index": index,
            "params": params, "sparse_index": sparse_index, "uri": uri, "key": key, "timeout_s": timeout_s,
        }  # fmt: skip
        cls.check(**given)
        options.refuse_limit(common.get("memory"), uri)
        old = replaced(folder, cls.kind, uri)
        made = cls.make(data, folder, {"use": cls.kind, **given}, **common)
        if old:  # now that nothing names it any more
            server(given, old).drop()
        return made

    @staticmethod
    def check(**recipe: Any) -> None:
        """Refuse arguments that are out of their range.

        :raises RecipeError: Says all faults.
        """
        if faults := options.faults(recipe):
            raise RecipeError(faults)

    @classmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        """Send a collection to Milvus."""
        root = draft.folder.parent
        State.of(root).keep(root)
        with writing(root, recipe) as collection:
            if not collection.exists():
                (draft.folder / NOTE).unlink(missing_ok=True)  # a build that goes on begins again
            send(docs, draft, recipe, Encoders.of(recipe), collection)

    def more(self, docs: Iterable[Doc], draft: Part) -> None:
        """Send documents that come to the index."""
        send(docs, draft, self.manifest.recipe, self.encoders, self._written_to)

    @classmethod
    def trial(cls, recipe: dict[str, Any], memory: int) -> Try:
        """In a file, whatever the server is, and with indexes that Milvus Lite has."""
        options.refuse_limit(memory, recipe["uri"])
        return super().trial({**recipe, **options.TRIED}, memory)

    @classmethod
    def size(cls, folder: Path, recipe: dict[str, Any]) -> int:
        """Bytes of a small segment, with Milvus' file beside it."""
        return super().size(folder, recipe) + sum(f.stat().st_size for f in (folder.parent / FILE).rglob("*"))

    @classmethod
    def segment(cls, folder: Path, recipe: dict[str, Any]) -> Numbered:  # noqa: ARG003
        """A segment."""
        return Numbered(folder)

    @classmethod
    def merge(cls, segments: Sequence[Numbered], draft: Part, recipe: dict[str, Any]) -> None:  # noqa: ARG003
        """Put documents together; Milvus has nothing to do with it."""
        moved(segments, draft)
        for name in ("serials", "cut"):
            np.save(draft.folder / f"{name}.npy", np.concatenate([getattr(s, name)[s.living] for s in segments]))
        told = {k: segments[-1].facts[k] for k in TOLD}
        draft.facts |= {**told, **mean_recall(segments), "truncated_texts": cut_texts(draft.folder)}

    @classmethod
    def bury(cls, segment: Numbered, dead: NDArray[np.int32], folder: Path) -> None:
        """Note which serial numbers Milvus is to forget."""
        state, fresh = State.of(folder.parent), np.setdiff1d(dead, segment.dead)
        replace(state, doomed=[*state.doomed, *segment.serials[fresh].tolist()]).keep(folder.parent)

    @contextmanager
    def _amending(self, batches: int = 1) -> Iterator[Draft]:
        """Change documents and vectors. What dies is deleted from a file before the batch happens, from a server after.

        :raises ArtefactError: If a server could not delete them then; the batch has happened nevertheless.
        """
        with super()._amending(batches) as draft:
            before = State.of(draft.folder)
            replace(before, doomed=[]).keep(draft.folder)
            with writing(draft.folder, self._recipe) as self._written_to:
                self._written_to.load()
                if not self._written_to.local:  # what another batch may have left, that was killed
                    self._written_to.delete_from(before.next)
                    self._written_to.delete(before.doomed)
                yield draft
                doomed = State.of(draft.folder).doomed
                if self._written_to.local:
                    self._written_to.delete(doomed)
        if self._recipe["uri"]:
            try:
                server(self._recipe, before.collection).delete(doomed)
            except ArtefactError as error:
                raise ArtefactError(
                    f"{error}. The batch has happened; {len(doomed)} documents that it deleted or replaced are still "
                    "there, and passed over until the next batch deletes them"
                ) from error

    def compact(self) -> Change:
        """Make one segment of the documents, and have a server free the room of dead vectors. Milvus Lite does that by
        itself, where four of its files are of a size.
        """
        done = super().compact()
        if not self.collection.local:
            self.collection.compact()
        return done

    def _is_compact(self) -> bool:
        """Whether it is, and a server has no more than its documents: a batch deletes what one before it has left."""
        return super()._is_compact() and (self.collection.local or self.collection.count(first=0) == self._rows)

    @property
    def _recipe(self) -> dict[str, Any]:
        return {**self.manifest.recipe, **({"uri": self.uri} if self.uri else {})}

    def _open(self) -> None:
        super()._open()
        path, rows = self.manifest.path, self._rows
        self._state = State.of(path)
        if self._recipe["uri"]:
            opened = server(self._recipe, self._state.collection)
            opened.load()
            if (there := self._counted(opened)) < rows:
                raise ArtefactError(f"{opened.where}: {opened.name} has {there} of the {rows} documents of {path}")
        else:
            names = [path / name for name in self.manifest.files if name.startswith(f"{FILE}/")]
            opened = reading(path / FILE, names, self._state.collection)
        self.collection: Collection = opened  # the one before is closed when no filtered index has it any more
        self._encoders = Loaded.since(self, "_encoders", lambda manifest: Encoders.of(manifest.recipe))

    @property
    def _rows(self) -> int:
        return sum(map(len, self.segments))

    def _counted(self, collection: Collection) -> int:
        return collection.count(first=0, end=self._state.next)

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search one state of the index, whatever else happens to it meanwhile. Where a server has lost documents since
        it was opened, for a batch of changes has happened, that is the state that there is now, which is said.
        """
        if self.collection.local:
            return super().run(batch)
        while True:
            opened = copy(self)  # which another thread may refresh
            try:
                opened.doomed = opened._counted(opened.collection) > opened._rows
                found = super(Milvus, opened).run(batch)
                if opened._counted(opened.collection) >= opened._rows:
                    return found
            except ArtefactError:  # a build may have taken the whole collection away
                if read_manifest(self.folder).build == opened.manifest.build:
                    raise
            notice(f"{self.folder} was changed since it was opened; it is opened again, and searched as it is now")
            self.refresh()

    @property
    def encoders(self) -> Encoders:
        """The models that made the index.

        :raises ArtefactError: If their files are no longer those the index was made with.
        """
        return self._encoders()

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        """Encode the queries together, and have Milvus search for them together."""
        asked = [query.text for query in queries if query.text.strip()]
        rows, share = among(self.segments, self.where)
        if not asked or not len(self) or not share:
            return [()] * len(queries)
        vectors, k = self.encoders.asked(asked), min(k, MOST)  # more passages than that are not looked at
        if self.doomed:
            rows = " and ".join(filter(None, (rows, f"{SERIAL} not in {self._state.doomed}")))
        how, end = options.how(self._recipe, k, self.params, share), None if self.collection.local else self._state.next
        fusion = options.fusion(self._recipe, self.weights, self.rank_constant)
        told = self.collection.search(vectors, k, how, end=end, rows=rows, fusion=fusion)
        found = iter([[hit for s in self.segments for hit in s.hits(one)] for one in told])
        return [[sorted(next(found), key=lambda hit: -hit.score)] if q.text.strip() else () for q in queries]
