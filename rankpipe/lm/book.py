"""The file behind :class:`~rankpipe.lm.cache.Cached`: answers by their key, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

from rankpipe import disk
from rankpipe.disk import disk_errors
from rankpipe.errors import ArtefactError, DiskError

OURS, FORMAT = 0x52504C4D, 1  # what the file says it is (application_id), and how its table looks (user_version)
PATIENCE_S = 60  # how long another process may hold the file
TABLE = """
CREATE TABLE IF NOT EXISTS answers
    (key TEXT PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, answer TEXT NOT NULL, crc INTEGER NOT NULL)
    WITHOUT ROWID
"""


class Row(NamedTuple):
    """One answer."""

    key: str
    model: str
    kind: str
    answer: Any  # what JSON can hold


class Book:
    """Keys and answers. Each ``write`` is one transaction of a write-ahead log: when the call ends it is there for
    good, whatever happens to the process, and readers are never in its way.

    :param path: of the file; the first ``write`` makes it if there is none.
    :param read_only: there must be a file, and nothing is written.
    :raises ArtefactError: If the file is damaged or something else; says the cure.
    :raises DiskError: If it cannot be opened or written.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path, self.read_only = path, read_only
        self._lock, self._pid = RLock(), os.getpid()
        self._open = self._opened() if read_only or path.exists() else None
        if self._open is None:
            disk.writable(path)

    def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """The answers to those keys that have one."""
        found = {}
        for key in dict.fromkeys(keys):
            for answer, crc in self._run("SELECT answer, crc FROM answers WHERE key = ?", key):
                if crc != crc32(answer.encode()):
                    raise ArtefactError(f"{self.path}: the answer {key[:12]} is damaged; {self._cure}")
                found[key] = json.loads(answer)
        return found

    def write(self, rows: Sequence[Row], *, again: bool = False) -> None:
        """Put the rows in, all or none. A key that is there keeps its answer, or gets the new one ``again``."""
        told = [(row, json.dumps(row.answer)) for row in rows]
        table = [(row.key, row.model, row.kind, answer, crc32(answer.encode())) for row, answer in told]
        doing = "UPDATE SET answer = excluded.answer, crc = excluded.crc" if again else "NOTHING"
        statement = f"INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO {doing}"
        with self._db() as db, db:  # sqlite3 begins a transaction at the first INSERT
            db.executemany(statement, table)

    def size(self, model: str, kind: str) -> int:
        """How many answers of a model there are, of one kind."""
        return sum(n for [n] in self._run("SELECT count(*) FROM answers WHERE model = ? AND kind = ?", model, kind))

    def close(self) -> None:
        """Fold the log into the file, which then is whole by itself. Nothing is asked of the book any more."""
        with self._lock:
            if self._open:
                self._open.close()

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        if self._open is None and not self.path.exists():
            return []
        with self._db() as db:
            return db.execute(statement, values).fetchall()

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; a forked process opens its own, as SQLite wants it."""
        with self._lock:
            if self._open is None or self._pid != os.getpid():
                self._pid, self._open = os.getpid(), self._opened()
            with self._errors():
                yield self._open

    def _opened(self) -> sqlite3.Connection:
        if self.read_only and not self.path.exists():
            raise ArtefactError(f"{self.path}: there is nothing to replay; run it once with its model")
        with disk_errors(self.path), self._errors():
            if not self.read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            uri = f"file:{quote(str(self.path.absolute()))}?mode={'rw' if self.read_only else 'rwc'}"
            db = sqlite3.connect(uri, uri=True, timeout=PATIENCE_S, check_same_thread=False)
            weakref.finalize(self, db.close)  # folds the log into the file
            self._prepare(db)
            return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        [tables], [ours], [form] = (  # tables first: they and the marks come in one transaction, perhaps just now
            db.execute(q).fetchone()
            for q in ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
        )
        if tables and ours != OURS:
            raise ArtefactError(f"{self.path}: another program's SQLite file; name another path")
        if tables and form != FORMAT:
            raise ArtefactError(f"{self.path}: format {form}, this version reads {FORMAT}; name another path")
        if self.read_only:
            if not tables:
                raise ArtefactError(f"{self.path}: there is nothing in it to replay; run it once with its model")
            db.execute("PRAGMA query_only = 1")
            return
        self._log_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last answers, a kill none
        db.executescript(
            f"BEGIN IMMEDIATE; {TABLE}; PRAGMA application_id={OURS}; PRAGMA user_version={FORMAT}; COMMIT"
        )

    def _log_ahead(self, db: sqlite3.Connection) -> None:
        """Switch a new file over, for which SQLite does not wait by itself where others are opening it too."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite says, as what it means for the file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise DiskError(f"{self.path}: cannot be read or written ({error}); what is in it is unchanged") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise ArtefactError(
                    f"{self.path}: no cache of answers, or damaged; name another path, or bring back a copy"
                ) from error
            raise ArtefactError(f"{self.path}: damaged ({error}); {self._cure}") from error

    @property
    def _cure(self) -> str:
        return f"bring back a copy, or delete {self.path.name}* to ask for everything again"
