"""How much memory the making of an index may hold, and what takes it."""

from __future__ import annotations

import re
import sys

from rankpipe.disk import shown
from rankpipe.errors import RecipeError

ANY = sys.maxsize
LEAST = 256 << 20  # models' batches and blocks of vectors take that much, whatever is asked for
ROW = 320  # bytes held for each document while its segment is made: its id, where it lies, its place among others
DOC = 240  # bytes of a document in memory beside its text
ID = 4  # times the length of the id
TERM = 420  # bytes held for each word; for each different value of a field beside its length
POSTING = 160  # bytes for each posting that is dealt out at once
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}  # powers of 2


def size_bytes(said: str | int | None) -> int:
    """``"1GB"``, ``"512 MiB"`` or a number of bytes; as much as there is, if None.

    :raises RecipeError: If it is no size, or too small to be kept to.
    """
    if said is None:
        return ANY
    told = re.fullmatch(r"([\d.]+)\s*([KMGT]?)I?B?", str(said).strip().upper())
    try:
        made = int(float(told[1]) * (1 << UNITS[told[2]])) if told else 0
    except ValueError:
        made = 0
    if made < LEAST:
        raise RecipeError([f"memory: {said!r}; expected {shown(LEAST)} or more, as in memory='1GB'"])
    return made
