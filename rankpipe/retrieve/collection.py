"""A collection of Milvus, in a file of Milvus Lite or on a server: whatever is said to pymilvus is said here.

What Milvus Lite 3.2 calls a file is a folder. Whoever opens it, also to read, locks it and writes into it; it is held
in memory. Its vectors are in files that never change once they are there (:data:`FIXED`), which builds share by links;
the others must be copied: two databases whose ``LOCK`` is one file cannot both be open.
"""

from __future__ import annotations

import logging
import os
import shutil
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe.catalog import need, require
from rankpipe.disk import scratch
from rankpipe.errors import ArtefactError, RecipeError

SERIAL, DENSE, SPARSE = "serial", "dense", "sparse"  # fields
SENT = 1000  # rows of a request; Milvus takes messages of 64 MiB
MOST = 16_384  # hits of a query; Milvus gives no more
CALM = {"grpc.keepalive_time_ms": 300_000}  # Milvus Lite hangs up on whom it hears more often without a word
FIXED = (".parquet", ".idx")

Found = tuple[NDArray[np.int64], NDArray[np.float32]]  # serial numbers and what Milvus says of them, best first
Fusion = Callable[[Any, int], Any]  # pymilvus and how many lists: a ranker of it


class Collection:
    """Vectors of documents under serial numbers.

    :param where: a folder of Milvus Lite, whose name ends in ``.db``; or the URI of a server.
    :param token: for the server.
    :param timeout_s: how long the server may take for an answer.
    :param then: is done when it has been closed.
    :raises MissingExtra: If pymilvus is not installed, or Milvus Lite, for a folder.
    :raises ArtefactError: If no Milvus answers. So does every method, if Milvus refuses.
    """

    def __init__(
        self,
        where: Path | str,
        name: str,
        token: str = "",
        timeout_s: float | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        self._milvus = need("pymilvus", name="the index milvus", extra="milvus")
        self._errors = (self._milvus.MilvusException, need("grpc", name="the index milvus", extra="milvus").RpcError)
        self.where, self.name, self.local = str(where), name, isinstance(where, Path)
        self._patience = {} if self.local else {"timeout": timeout_s}
        logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)  # it logs what it raises
        if self.local:
            require("milvus_lite", name="the index milvus without uri=", extra="milvus")
        with self._asked("open"):
            self._client = self._milvus.MilvusClient(self.where, token=token, grpc_options=CALM, **self._patience)
        self.close = weakref.finalize(self, _close, self._client, self.where if self.local else "", then)

    def anew(self, fields: Mapping[str, int | None], kinds: Mapping[str, dict[str, Any]]) -> None:
        """Make it, empty; what was in it is lost.

        :param fields: those of its vectors, and how many dimensions they have; None if they are sparse.
        :param kinds: of each field's index: ``index_type``, ``metric_type`` and ``params``.
        """
        types = self._milvus.DataType
        schema = self._milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(SERIAL, types.INT64, is_primary=True)
        indexes = self._milvus.MilvusClient.prepare_index_params()
        for field, dimension in fields.items():
            kind = types.SPARSE_FLOAT_VECTOR if dimension is None else types.FLOAT_VECTOR
            schema.add_field(field, kind, **({} if dimension is None else {"dim": dimension}))
            params = kinds[field]["params"]
            # of what pymilvus sends for these, Milvus Lite reads what is under "params", and that only
            indexes.add_index(field, **{**kinds[field], "params": {"params": params} if self.local else params})
        self.drop()
        with self._asked("make the collection"):
            self._client.create_collection(
                self.name, schema=schema, index_params=indexes, consistency_level="Strong", **self._patience
            )

    def exists(self) -> bool:
        """Whether it has been made."""
        with self._asked("look for the collection"):
            return bool(self._client.has_collection(self.name, **self._patience))

    def load(self) -> None:
        """Make it ready to be searched."""
        with self._asked("load the collection"):
            self._client.load_collection(self.name, **self._patience)

    def drop(self) -> None:
        """Remove it, if it is there."""
        with self._asked("drop the collection"):
            self._client.drop_collection(self.name, **self._patience)

    def upsert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Send rows; those of the same serial numbers are replaced. They are on the disk when this returns, or, of a
        server, acknowledged by it.
        """
        for start in range(0, len(rows), SENT):
            part = rows[start : start + SENT]
            with self._asked(f"take {len(part)} documents"):
                taken = self._client.upsert(self.name, part, **self._patience)["upsert_count"]
            if taken != len(part):
                raise ArtefactError(f"{self.where}: Milvus took {taken} of {len(part)} documents")
        self._flush()

    def delete(self, serials: Sequence[int]) -> None:
        """Delete rows; those that are not there do not matter."""
        for start in range(0, len(serials), SENT):
            with self._asked("delete documents"):
                self._client.delete(self.name, ids=list(serials[start : start + SENT]), **self._patience)
        self._flush()

    def delete_from(self, serial: int) -> None:
        """Delete the rows of this serial number and of those above."""
        with self._asked("delete documents"):
            self._client.delete(self.name, filter=f"{SERIAL} >= {serial}", **self._patience)

    def count(self, *, first: int, end: int | None = None) -> int:
        """How many rows there are from a serial number up to another one, without that; all further ones, if None."""
        span = f"{SERIAL} >= {first}" + ("" if end is None else f" and {SERIAL} < {end}")
        with self._asked("count documents"):
            [told] = self._client.query(self.name, filter=span, output_fields=["count(*)"], **self._patience)
        return int(told["count(*)"])

    def vectors(self, first: int, end: int) -> NDArray[np.float32]:
        """The dense vectors of the rows from a serial number up to another one, without that."""
        span = f"{SERIAL} >= {first} and {SERIAL} < {end}"
        with self._asked("give vectors"):
            told = self._client.query(self.name, filter=span, output_fields=[SERIAL, DENSE], **self._patience)
        return np.array([row[DENSE] for row in sorted(told, key=lambda row: row[SERIAL])], np.float32)

    def compact(self) -> None:
        """Have a server free the room of what is deleted; Milvus Lite does so by itself, where four files are alike."""
        with self._asked("compact the collection"):
            self._client.compact(self.name, **self._patience)

    def search(
        self,
        asked: Mapping[str, Sequence[Any]],
        k: int,
        how: Mapping[str, dict[str, Any]],
        *,
        end: int | None = None,
        rows: str = "",
        fusion: Fusion | None = None,
    ) -> list[Found]:
        """The best rows for each query; of L2's squared distances what is given is the negative.

        :param asked: vectors of the queries, for each field that is to be searched; an empty one has no say.
        :param how: for each field ``metric_type`` and ``params``.
        :param end: only rows of serial numbers below.
        :param rows: only these, as an expression of Milvus'.
        :param fusion: makes of the fields' lists, ``k`` long each, one; without it there is one field.
        """
        rows = " and ".join(filter(None, ("" if end is None else f"{SERIAL} < {end}", rows)))
        found = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in next(iter(asked.values()))]
        alike = defaultdict(list)  # queries by the fields that have a say
        for place, vectors in enumerate(zip(*asked.values(), strict=True)):
            alike[tuple(f for f, vector in zip(asked, vectors, strict=True) if len(vector))].append(place)
        for fields, places in alike.items():
            some = {f: [asked[f][place] for place in places] for f in fields}
            for place, one in zip(places, self._search(some, k, how, rows, fusion) if fields else (), strict=False):
                found[place] = one
        return found

    def _search(
        self,
        asked: dict[str, list[Any]],
        k: int,
        how: Mapping[str, dict[str, Any]],
        rows: str,
        fusion: Fusion | None,
    ) -> list[Found]:
        common = {"limit": k, "output_fields": [SERIAL], **self._patience}
        sign = 1
        with self._asked("search"):
            if fusion is None:
                [(field, vectors)] = asked.items()
                sign = -1 if how[field]["metric_type"] == "L2" else 1
                found = self._client.search(
                    self.name, vectors, anns_field=field, search_params=how[field], filter=rows, **common
                )
            else:
                lists = [self._milvus.AnnSearchRequest(v, f, how[f], limit=k, expr=rows) for f, v in asked.items()]
                found = self._client.hybrid_search(self.name, lists, fusion(self._milvus, len(lists)), **common)
        return [
            (np.array([h[SERIAL] for h in hits], np.int64), np.array([sign * h["distance"] for h in hits], np.float32))
            for hits in found
        ]

    def _flush(self) -> None:
        if self.local:  # a server keeps what it has acknowledged, and flushes when it likes
            with self._asked("write to the disk"):
                self._client.flush(self.name)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            said = " ".join(str(getattr(error, "message", error)).split())
            cure = "" if self.local else "; is a Milvus running there, and are this its address and its token?"
            raise ArtefactError(f"{self.where}: Milvus did not {what}: {said}{cure}") from error


def _close(client: Any, path: str, then: Callable[[], None] | None) -> None:
    """End a connection, and the server of a folder."""
    client.close()
    if path:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(path)
    if then:
        then()


def server(recipe: dict[str, Any], name: str) -> Collection:
    """A collection on the server of a recipe.

    :raises RecipeError: If there is no token where the recipe says that it is.
    """
    uri, key = recipe["uri"], recipe["key"]
    if key and not os.environ.get(key):
        raise RecipeError([f"key: the environment variable {key} is to hold the token of {uri}, and does not"])
    return Collection(uri, name, os.environ[key] if key else "", recipe["timeout_s"])


def own(database: Path) -> None:
    """Make of a database that is hard links one that Milvus Lite may write into."""
    for path in [p for p in database.rglob("*") if p.is_file() and p.suffix not in FIXED]:
        held = path.read_bytes()
        path.unlink()
        path.write_bytes(held)


def reading(database: Path, files: Iterable[Path], name: str) -> Collection:
    """A database opened to be read, while its files stay as they are and others may read them.

    :param files: of it.
    :raises FileNotFoundError: If one of them goes meanwhile.
    """
    files = list(files)
    held = ExitStack()
    copy = held.enter_context(scratch("rankpipe-milvus-")) / database.name
    for path in files:
        place = copy / path.relative_to(database)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in FIXED:
            place.symlink_to(path.resolve())
        else:
            shutil.copyfile(path, place)
    try:
        opened = Collection(copy, name, then=held.close)
        opened.load()
    finally:
        if gone := [path for path in files if not path.exists()]:
            raise FileNotFoundError(gone[0])
    return opened
