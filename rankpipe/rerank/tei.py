"""What text-embeddings-inference cuts off without a word, and how to know it: it tells its limit, and counts tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Event
from typing import Any

from rankpipe.lm.wire import Fault, Refusal, Wire
from rankpipe.lm.words import words

NOT_HERE = (403, 404, 405)  # what stands in front of the server does not let one ask
MARKS = 4  # tokens around a query and a passage, at most


class Limit:
    """How many tokens of a query and a passage together a server reads; what is more it leaves out, from the end.

    :param at_once: texts that a request may have.
    """

    def __init__(self, wire: Wire, at_once: int) -> None:
        self.wire, self.at_once = wire, at_once

    def cut(self, query: str, texts: Sequence[str], stop: Event) -> frozenset[int]:
        """Which passages are not read to their end, give or take a token; none where the server does not tell.

        No token is shorter than a byte, so that most passages need not be asked about.

        :raises ModelError: If it tells, and fails.
        """
        if self._most is None:
            return frozenset()
        room = self._most - len(query.encode()) - MARKS
        long = [i for i, text in enumerate(texts) if len(text.encode()) > room]
        if not long:
            return frozenset()
        asked = [query, *(texts[i] for i in long)]
        chunks = [asked[i : i + self.at_once] for i in range(0, len(asked), self.at_once)]
        told = (self.wire.ask("tokenize", {"inputs": c}, _lengths, stop, probe=True) for c in chunks)
        first, *sizes = [n for sizes in told for n in sizes]
        return frozenset(i for i, size in zip(long, sizes, strict=True) if first + size > self._most)

    @cached_property
    def _most(self) -> int | None:
        try:
            return self.wire.ask("info", None, _limit, Event(), probe=True)
        except Refusal as refusal:
            if refusal.status in NOT_HERE:
                return None
            raise


def _limit(told: Any) -> int:
    try:
        return int(told["max_input_length"])
    except (KeyError, TypeError, ValueError):
        raise Fault(f"no max_input_length, but {words(told)}") from None


def _lengths(told: Any) -> list[int]:
    """Tokens of each text, with two marks each: as many as a pair has, or one more."""
    try:
        return [len(tokens) for tokens in told]
    except TypeError:
        raise Fault(f"no tokens, but {words(told)}") from None
