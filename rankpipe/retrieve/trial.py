"""A few documents that are indexed to foretell what more of them take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankpipe.data import Doc
from rankpipe.retrieve.parts import Part
from rankpipe.retrieve.passages import Passages


@dataclass(frozen=True)
class Trial:
    """What a few documents took.

    :param held_bytes: in memory, as many for each document.
    :param words_bytes: in memory, for each word that is new.
    :param fields_bytes: in memory, for each value of a field that is new.
    :param size_bytes: of their index, as they would count in a large one.
    :param fixed_bytes: in memory, however many they are.
    :param without: what a build does with many documents only, so that it was not tried.
    :param each: what is indexed of a document: passages, if it is cut.
    :param foretold: the seconds of that, with so many documents; None if they cannot be foretold.
    """

    documents: int
    held_bytes: int
    size_bytes: int
    words_bytes: int = 0
    fields_bytes: int = 0
    fixed_bytes: int = 0
    without: str = ""
    each: float = 1.0
    foretold: Callable[[int], float | None] = lambda _: 0.0


Try = Callable[[Sequence[Doc], Path], Trial]  # indexes documents in an empty folder


def by_parts(
    make: Callable[[Iterable[Doc], Part], None], sized: Callable[[Path], int], recipe: dict[str, Any], memory: int
) -> Try:
    """What makes a segment of a few documents.

    :param make: fills it.
    :param sized: its bytes, as they would count in a large one.
    """
    cut = Passages.of(recipe.get("passages"))

    def tried(docs: Sequence[Doc], folder: Path) -> Trial:
        part = Part(folder / "000000", memory=memory, known=())
        part.folder.mkdir()
        make(part.counted(cut.split(docs) if cut else docs), part)
        size, words = sized(part.folder), part.held - part.rows - part.values
        each = part.facts["documents"] / len(docs)  # passages
        return Trial(
            len(docs), part.rows, size, words, part.values, without=part.without, each=each,
            foretold=lambda documents: part.foretold(round(documents * each)),
        )  # fmt: skip

    return tried
