"""Ids that come twice are found in a stream of any length, in 8 bytes an id."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from rankpipe.data import Doc, Query
from rankpipe.errors import DataError

FIRST_LOOK = (
    1 << 16
)  # ids after which is first looked for doubles; then whenever their number has doubled, and at the end

T = TypeVar("T", Doc, Query)


def unique(placed: Callable[[], Iterable[tuple[str, T]]]) -> Iterator[T]:
    """Pass records on and refuse an id that came before.

    Only a 64-bit hash of each id is kept. Where two hashes are alike, the records are read a second time to tell
    doubled ids from different ids of one hash, so that nothing is refused by chance.

    :param placed: starts the records anew at every call, each with its place.
    :raises DataError: If an id comes twice; names both places. Raised at the latest at the end of the stream.
    """
    hashes, next_look = array("q"), FIRST_LOOK
    for _, record in placed():
        hashes.append(hash(record.id))
        yield record
        if len(hashes) == next_look:
            _refuse_doubles(hashes, placed)
            next_look *= 2
    _refuse_doubles(hashes, placed)


def _refuse_doubles(hashes: array[int], placed: Callable[[], Iterable[tuple[str, T]]]) -> None:
    if not hashes:
        return
    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))  # (n,)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return
    first: dict[str, str] = {}
    for place, record in placed():
        if hash(record.id) in suspects and first.setdefault(record.id, place) != place:
            raise DataError(
                f"{place}: the id {record.id!r} is there already, at {first[record.id]}; ids must be unique"
            )
