"""What was asked and answered, window by window. Silent unless somebody listens (``rankpipe rerank --ledger``)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import IO, Any

from rankpipe import disk, lines
from rankpipe.lm import Chat

KINDS = ("ok", "wrong_format", "repetition", "missing_documents")


@dataclass(frozen=True, slots=True)
class Entry:
    """One window of one query."""

    query: str  # its id
    docs: tuple[str, ...]  # document ids, in the order shown
    messages: Chat
    reply: str
    order: tuple[str, ...]  # document ids, as the reply was understood
    kind: str  # ok, wrong_format, repetition, missing_documents: RankLLM's analysis of a reply
    missing: int
    repeated: int
    foreign: int
    cut: int  # passages that were shortened
    cut_words: int  # words of theirs that were not shown, or not to their end
    words: int  # words of a passage that were shown, at most
    tokens_in: int
    tokens_out: int
    seconds: float  # the batch's, shared out evenly


@dataclass(frozen=True, slots=True)
class Ended:
    """A query that its budget ended."""

    query: str  # its id
    skipped: int  # calls that were not allowed


_listener: ContextVar[tuple[Callable[[Entry], None], Callable[[Ended], None]] | None] = ContextVar(
    "ledger", default=None
)


@contextmanager
def written(write: Callable[[Entry], None], end: Callable[[Ended], None] = lambda _: None) -> Iterator[None]:
    """Every window that is judged inside is handed to ``write``, every query that a budget ends to ``end``."""
    token = _listener.set((write, end))
    try:
        yield
    finally:
        _listener.reset(token)


def note(entry: Callable[[], Entry]) -> None:
    """Hand an entry to the listener; it is not even made if there is none."""
    if listener := _listener.get():
        listener[0](entry())


def end(query: str, skipped: int) -> None:
    """Tell the listener that a budget ended a query."""
    if listener := _listener.get():
        listener[1](Ended(query, skipped))


@contextmanager
def kept(draft: Path, keys: Mapping[str, str] | None = None, known: Container[str] = ()) -> Iterator[None]:
    """Every window that is judged inside becomes a line of a draft, as soon as it is judged. :func:`publish` it.

    A line begins with a key, so that no window passes for that of another model, or of other passages.

    :param keys: query (its id) -> what decides all that is said of it.
    :param known: keys that are not asked for again; what the draft says of them stays, and nothing else does.
    """
    if old := [line for key, line in _keyed(draft) if key in known]:
        with disk.write(draft, "wb") as f:
            f.writelines(old)
    else:
        draft.unlink(missing_ok=True)
    with disk.disk_errors(draft), ExitStack() as stack:
        appended = cache(lambda: stack.enter_context(_appended(draft)))  # not before there is something to write

        def write(entry: Entry | Ended) -> None:
            told = json.dumps(asdict(entry), ensure_ascii=False)
            appended().write(f"{(keys or {}).get(entry.query, '')} {told}\n".encode())
            appended().flush()

        with written(write, write):
            yield


def noted(draft: Path) -> set[str]:
    """The keys that a draft has windows of."""
    return {key for key, _ in _keyed(draft)}


def publish(draft: Path, path: Path) -> None:
    """A draft becomes a ledger that can be read."""
    with disk.write(path, "wb") as f:
        f.writelines(line.partition(b" ")[2] for _, line in _keyed(draft))
    draft.unlink(missing_ok=True)


def read(path: Path) -> list[Entry]:
    """A file's windows, in the order they were judged; none if there is no file.

    :raises ArtefactError: If it is damaged, or no ledger.
    """
    rows = (row for row in _rows(path) if "docs" in row)
    return [Entry(**{**row, "docs": tuple(row["docs"]), "order": tuple(row["order"])}) for row in rows]


def ended(path: Path) -> dict[str, int]:
    """The queries that a budget ended, and how many calls of each were skipped.

    :raises ArtefactError: If it is damaged, or no ledger.
    """
    return {row["query"]: row["skipped"] for row in _rows(path) if "skipped" in row}


def kinds(entries: Iterable[Entry]) -> dict[str, int]:
    """How many replies are of each kind, in the order of :data:`KINDS`."""
    counted = Counter(e.kind for e in entries)
    return {kind: counted[kind] for kind in KINDS}


def _rows(path: Path) -> list[dict[str, Any]]:
    window, end = ([f.name for f in fields(kind)] for kind in (Entry, Ended))
    return lines.read(path, window, "rerank again with --ledger", end)


def _appended(draft: Path) -> IO[bytes]:
    draft.parent.mkdir(parents=True, exist_ok=True)
    return open(draft, "ab")


def _keyed(draft: Path) -> Iterator[tuple[str, bytes]]:
    """Each line with its key; none if there is no file. A last line that was never finished is not one."""
    if draft.exists():
        with open(draft, "rb") as f:
            yield from ((line.partition(b" ")[0].decode(), line) for line in f if line.endswith(b"\n"))
