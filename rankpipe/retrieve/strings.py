"""What is read from a memory map: arrays, and many texts in two files (ids by position, terms in their order)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
FEW = 256  # rows, with 64 KiB around each
OFTEN = 16  # what was read for so many items is given back together


class Strings:
    """The texts that :func:`write_strings` has put under this name. Nothing is read before it is asked for.

    :param path: without its ending.
    :param order: the places of the texts in their rising order; None if they lie in it.
    """

    def __init__(self, path: Path, order: NDArray[np.int32] | None = None) -> None:
        self._ends = mapped(path.with_suffix(".npy"))  # (n + 1,) int64
        self.order = order
        with open(path.with_suffix(".bin"), "rb") as f:
            self._bytes = mmap(f.fileno(), 0, access=ACCESS_READ) if self._ends[-1] else b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def size_bytes(self) -> int:
        """All together."""
        return len(self._bytes)

    def __getitem__(self, place: int) -> str:
        return self._at(place).decode()

    def at(self, places: NDArray[np.intp]) -> list[str]:
        """The texts at these places."""
        held, begins, ends = self._bytes, self._ends[places].tolist(), self._ends[places + 1].tolist()
        return [held[begin:end].decode() for begin, end in zip(begins, ends, strict=True)]

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def find(self, text: str) -> int | None:
        """The place of a text, by bisection; None if it is not there."""
        sought, low, high = text.encode(errors="surrogatepass"), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            place = middle if self.order is None else int(self.order[middle])
            found = self._at(place)
            if found == sought:
                return place
            low, high = (middle + 1, high) if found < sought else (low, middle)
        return None

    def ending(self, suffix: str) -> NDArray[np.bool_]:
        """Which of them end so, (n,)."""
        ends, sought = self._ends[1:], suffix.encode()
        made: NDArray[np.bool_] = np.diff(self._ends) >= len(sought)
        told = np.frombuffer(self._bytes, np.uint8)
        for back, byte in enumerate(reversed(sought), 1):
            made[made] = told[ends[made] - back] == byte
        return made

    def _at(self, place: int) -> bytes:
        return self._bytes[self._ends[place] : self._ends[place + 1]]


def write_strings(path: Path, texts: Iterable[str]) -> None:
    """Write ``path.bin`` (their bytes) and ``path.npy`` (where each begins, and the end)."""
    ends = array("q", [0])
    with open(path.with_suffix(".bin"), "wb") as f:
        for text in texts:
            ends.append(ends[-1] + f.write(text.encode()))
    np.save(path.with_suffix(".npy"), np.array(ends, np.int64))


def mapped(path: Path) -> NDArray[Any]:
    """An array in a file, as a plain array over its memory map; slicing a ``memmap`` costs ten times as much."""
    return np.load(path, mmap_mode="r").view(np.ndarray)  # type: ignore[no-any-return]


def forget(*maps: NDArray[Any] | mmap) -> None:
    """Give back the memory of what was read from memory maps or written to them, which the system counts as this
    process's; it is read again where it is asked for.
    """
    for held in maps:
        base: Any = held
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap):
            base.madvise(MADV_DONTNEED)


def forgetting(items: Iterable[T], *maps: NDArray[Any] | mmap) -> Iterator[T]:
    """The items, of whose memory maps only what few of them are made of is in memory."""
    for number, item in enumerate(items):
        if number % OFTEN == 0:
            forget(*maps)
        yield item
    forget(*maps)


def scattered(column: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Rows of a memory-mapped array that may lie far apart: each brings what is around it into memory, too."""
    made = np.empty((len(rows), *column.shape[1:]), column.dtype)
    for start in range(0, len(rows), FEW):
        made[start : start + FEW] = column[rows[start : start + FEW]]
        forget(column)
    return made
