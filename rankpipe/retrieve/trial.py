"""A few documents that are indexed to foretell what more of them take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankpipe.data import Doc


@dataclass(frozen=True)
class Trial:
    """What a few documents took.

    :param held_bytes: in memory, as many for each document.
    :param words_bytes: in memory, for each word that is new.
    :param fields_bytes: in memory, for each value of a field that is new.
    :param size_bytes: of their index, as they would count in a large one.
    :param fixed_bytes: in memory, however many they are.
    :param without: what a build does with many documents only, so that it was not tried.
    :param foretold: the seconds of that, with so many documents; None if they cannot be foretold.
    """

    documents: int
    held_bytes: int
    size_bytes: int
    words_bytes: int = 0
    fields_bytes: int = 0
    fixed_bytes: int = 0
    without: str = ""
    foretold: Callable[[int], float | None] = lambda _: 0.0


Try = Callable[[Sequence[Doc], Path], Trial]  # indexes documents in an empty folder
