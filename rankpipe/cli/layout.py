"""How rows are laid out so that nothing of them is cut: as a table, or where its columns do not fit, in lines."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

LEAST = 16  # cells of a column of text, which is folded, but to no less


def laid(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, text: Sequence[str] = ()) -> RenderableType:
    """The rows as a table if it fits into ``width``; if it does not, each of them in lines of its own.

    :param text: columns that are left-aligned and folded where there is no room; so is the first. Others are numbers.
    """
    wordy = [i == 0 or column in text for i, column in enumerate(columns)]
    widest = [max((_width(row[i]) for row in rows), default=0) for i in range(len(columns))]
    needed = [
        max(min(cells, LEAST) if folded else cells, *map(cell_len, column.split()), 0)
        for column, cells, folded in zip(columns, widest, wordy, strict=True)
    ]
    room = width - 3 * len(columns) + 1  # beside the lines between them
    if sum(needed) > room:
        return Group(*(line for row in rows for line in _lines(columns, row, wordy)))
    if sum(max(cells, cell_len(column)) for column, cells in zip(columns, widest, strict=True)) > room:
        columns = ["\n".join(wrap(c, max(n, w, 1))) for c, n, w in zip(columns, needed, widest, strict=True)]
    made = Table(show_header=any(map(str.strip, columns)), header_style="bold", pad_edge=False)
    for column, folded in zip(columns, wordy, strict=True):
        made.add_column(Text(column), justify="left" if folded else "right", overflow="fold", no_wrap=not folded)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _lines(columns: Sequence[str], row: Sequence[str], wordy: Sequence[bool]) -> list[RenderableType]:
    """The first cell, a line for each text, and one for all numbers."""
    first, *named = (f"{column} {cell}".strip() for column, cell in zip(columns, row, strict=True))
    texts = [n for n, cell, folded in zip(named, row[1:], wordy[1:], strict=True) if folded and cell.strip()]
    numbers = ", ".join(n for n, folded in zip(named, wordy[1:], strict=True) if not folded)
    return [
        Text(first, "bold"),
        *(Padding(Text(line), (0, 0, 0, 2), expand=False) for line in (*texts, numbers) if line),
    ]


def _width(cell: str) -> int:
    return max(map(cell_len, cell.splitlines()), default=0)
