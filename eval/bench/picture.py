"""A plot as a file of its own: with the report's colours, and a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import rankpipe.measure
from rankpipe.measure import svg

ROW, COLUMNS = 18, 3  # of the legend


def lines(series: Sequence[svg.Series], x: svg.Axis, y: svg.Axis, about: str) -> str:
    """:func:`svg.lines` with its style and a legend."""
    style = Path(rankpipe.measure.__file__).with_name("report.css").read_text("utf-8")
    height = svg.HEIGHT + ROW * (-(-len(series) // COLUMNS)) + 4
    width = (svg.WIDTH - svg.LEFT) / COLUMNS
    keys = "".join(
        f'<g class="{svg.colour(i)}" transform="translate({svg.LEFT + i % COLUMNS * width:g} '
        f'{svg.HEIGHT + ROW * (i // COLUMNS) + 8})"><polyline points="0,0 22,0"/>'
        f'<text x="28" y="4">{escape(one.name)}</text></g>'
        for i, one in enumerate(series)
    )
    box = f'<rect width="{svg.WIDTH}" height="{height}" fill="var(--card)"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {svg.WIDTH} {height}" font-family="sans-serif" '
    plot = svg.lines(series, x, y, about)
    start = plot.index(">") + 1
    opened = plot[:start].replace(f'<svg viewBox="0 0 {svg.WIDTH} {svg.HEIGHT}" ', head)
    return f"{opened}<style>{style}</style>{box}{plot[start:].removesuffix('</svg>')}{keys}</svg>\n"
