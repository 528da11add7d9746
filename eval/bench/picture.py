"""A plot as a file of its own: with the report's colours, and a legend below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import rankpipe.measure
from rankpipe.measure import svg

ROW, COLUMNS = 18, 3  # of the legend
TITLE = 22


def lines(series: Sequence[svg.Series], x: svg.Axis, y: svg.Axis, about: str) -> str:
    """:func:`svg.lines` with its style and a legend."""
    return _file([svg.lines(series, x, y, about)], [one.name for one in series], about)


def panels(titled: Mapping[str, Sequence[svg.Series]], x: svg.Axis, y: svg.Axis, about: str) -> str:
    """Such plots below each other, two in a row, each with its title; all of the same series in the same order."""
    plots = [svg.lines(series, x, y, f"{about}: {title}") for title, series in titled.items()]
    names = [one.name for one in next(iter(titled.values()))]
    return _file(plots, names, about, [*titled], across=2)


def _file(plots: Sequence[str], names: Sequence[str], about: str, titles: Sequence[str] = (), across: int = 1) -> str:
    style = Path(rankpipe.measure.__file__).with_name("report.css").read_text("utf-8")
    head, width = TITLE * bool(titles), across * svg.WIDTH
    base = -(-len(plots) // across) * (svg.HEIGHT + head)
    placed = "".join(
        f'<g transform="translate({i % across * svg.WIDTH} {i // across * (svg.HEIGHT + head)})">'
        + (f'<text x="{svg.LEFT}" y="16" font-weight="bold">{escape(titles[i])}</text>' if titles else "")
        + plot.replace("<svg ", f'<svg y="{head}" width="{svg.WIDTH}" height="{svg.HEIGHT}" ', 1)
        + "</g>"
        for i, plot in enumerate(plots)
    )
    columns = across * COLUMNS
    keys = "".join(
        f'<g class="{svg.colour(i)}" transform="translate({svg.LEFT + i % columns * (width - svg.LEFT) / columns:g} '
        f'{base + ROW * (i // columns) + 8})"><polyline points="0,0 22,0"/><text x="28" y="4">{escape(name)}</text></g>'
        for i, name in enumerate(names)
    )
    inner = f"svg svg {{ width: {svg.WIDTH}px; height: {svg.HEIGHT}px; }}"  # of which the style says other things
    height = base + ROW * -(-len(names) // columns) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" role="img" '
        f'aria-label="{escape(about)}"><style>{style}{inner}</style>'
        f'<rect width="{width}" height="{height}" fill="var(--card)"/>{placed}{keys}</svg>\n'
    )
