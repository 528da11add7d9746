"""What was asked and answered, window by window. Silent unless somebody listens (``rankpipe rerank --ledger``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rankpipe.lm import Chat


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
    words: int  # words of a passage that were shown, at most
    tokens_in: int
    tokens_out: int
    seconds: float  # the batch's, shared out evenly


_listener: ContextVar[Callable[[Entry], None] | None] = ContextVar("ledger", default=None)


@contextmanager
def written(write: Callable[[Entry], None]) -> Iterator[None]:
    """Every window that is judged inside is handed to ``write``."""
    token = _listener.set(write)
    try:
        yield
    finally:
        _listener.reset(token)


def note(entry: Callable[[], Entry]) -> None:
    """Hand an entry to the listener; it is not even made if there is none."""
    if write := _listener.get():
        write(entry())
