"""Three small plots as inline SVG: bars, lines, points. Colours come from the style sheet, figures from the caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 48  # margins around the plot
BAR = 34  # the widest bar
COLOURS = 8  # classes c0 to c7 of the style sheet; further series are dashed
LETTER = 8.2  # the width of a broad letter


@dataclass(frozen=True)
class Axis:
    """A scale and its name."""

    name: str
    low: float
    high: float
    log: bool = False

    def share(self, x: float) -> float:
        """Where ``x`` lies between the ends, 0 to 1."""
        low, high, x = (log10(v) for v in (self.low, self.high, x)) if self.log else (self.low, self.high, x)
        return (x - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """Round numbers between the ends: powers of ten, or some five steps of 1, 2 or 5."""
        if self.log:
            return [10.0**e for e in range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)]
        rough = (self.high - self.low) / 5
        size = 10.0 ** floor(log10(rough))
        step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough * 0.999)
        first = ceil(self.low / step - 1e-9)
        return [round(step * n, 10) for n in range(first, floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Series:
    """A line: its name, and its points with what to say on pointing at them."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """A mark with its name beside it, and the ends of its interval if it has one."""

    name: str
    x: float
    y: float
    tip: str
    ends: tuple[float, float] | None = None


def from_zero(values: Iterable[float], name: str) -> Axis:
    """An axis that holds the values and 0, with a little air; never empty."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    air = (high - low) * 0.05 or 0.5
    return Axis(name, low - air if low < 0 else 0.0, high + air if high > 0 or low == 0 else 0.0)


def around(values: Sequence[float], name: str) -> Axis:
    """An axis that holds the values, with a little air; never empty."""
    low, high = min(values), max(values)
    air = (high - low) * 0.12 or 0.05
    return Axis(name, low - air, high + air)


def spread(values: Sequence[float], name: str) -> Axis:
    """An axis for what may span many powers of ten: logarithmic where it does and nothing is 0."""
    if not values or min(values) <= 0 or max(values) / min(values) < 20:
        return from_zero(values, name)
    return Axis(name, min(values) / 1.8, max(values) * 1.8, log=True)


def bars(values: Sequence[tuple[float, str]], y: Axis, name: str, about: str) -> str:
    """Bars from 0, in the order given: (value, what to say on pointing at it). As many as there are fit the width."""
    room = WIDTH - LEFT - RIGHT
    step = min(room / max(len(values), 1), BAR)
    gap = 2.0 if step >= 6 else 0.0
    start = LEFT + (room - step * len(values)) / 2
    zero = _y(y, 0)
    marks = []
    for i, (value, tip) in enumerate(values):
        x, end = start + i * step, _y(y, value)
        box = f'x="{x + gap / 2:.2f}" y="{min(zero, end):.2f}" width="{step - gap:.2f}" height="{abs(end - zero):.2f}"'
        reach = f'x="{x:.2f}" y="{TOP}" width="{step:.2f}" height="{HEIGHT - TOP - BOTTOM}"'
        kind = "up" if value >= 0 else "down"
        marks.append(
            f'<g class="mark"><rect class="reach" {reach}/><rect class="{kind}" {box}/><title>{escape(tip)}</title></g>'
        )
    line = f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.2f}" y2="{zero:.2f}"/>'
    return _svg(about, _grid_y(y), *marks, line, _names(name, y.name))


def lines(series: Sequence[Series], x: Axis, y: Axis, about: str) -> str:
    """Lines through points."""
    drawn = []
    for i, one in enumerate(series):
        places = [(_x(x, a), _y(y, b)) for a, b in one.points]
        path = " ".join(f"{a:.2f},{b:.2f}" for a, b in places)
        dots = "".join(
            f'<g class="mark"><circle class="reach" cx="{a:.2f}" cy="{b:.2f}" r="9"/>'
            f'<circle class="dot" cx="{a:.2f}" cy="{b:.2f}" r="3"/>'
            f"<title>{escape(f'{one.name}: {y.name} {v:.3f} at {x.name} {u:g}')}</title></g>"
            for (a, b), (u, v) in zip(places, one.points, strict=True)
        )
        drawn.append(f'<g class="{colour(i)}"><polyline points="{path}"/>{dots}</g>')
    return _svg(about, _grid_y(y), _grid_x(x), *drawn, _names(x.name, y.name))


def points(marks: Sequence[Point], x: Axis, y: Axis, about: str) -> str:
    """Named points. Names that would cover each other are moved apart."""
    places = [(_x(x, p.x), _y(y, p.y)) for p in marks]
    taken = [(a - 8, a + 8, b) for a, b in places]
    drawn = []
    for i, (p, (a, b)) in enumerate(zip(marks, places, strict=True)):
        anchor, beside, height = _room(a, b, len(p.name) * LETTER, taken)
        ends = ""
        if p.ends:
            low, high = (_y(y, e) for e in p.ends)
            ends = f'<line class="ends" x1="{a:.2f}" x2="{a:.2f}" y1="{low:.2f}" y2="{high:.2f}"/>'
        drawn.append(
            f'<g class="mark {colour(i)}">{ends}<circle class="dot" cx="{a:.2f}" cy="{b:.2f}" r="5.5"/>'
            f'<text text-anchor="{anchor}" x="{beside:.2f}" y="{height + 4:.2f}">{escape(p.name)}</text>'
            f"<title>{escape(p.tip)}</title></g>"
        )
    return _svg(about, _grid_y(y), _grid_x(x), *drawn, _names(x.name, y.name))


def _room(x: float, y: float, width: float, taken: list[tuple[float, float, float]]) -> tuple[str, float, float]:
    """Where a name beside a mark covers nothing: anchor, x, height. Notes it in ``taken`` (left, right, height)."""
    places = [(anchor, y + down * n) for n in range(18) for down in (15, -15) for anchor in ("start", "end")]

    def box(anchor: str, height: float) -> tuple[float, float, float]:
        return (x + 11, x + 11 + width, height) if anchor == "start" else (x - 11 - width, x - 11, height)

    def free(left: float, right: float, height: float) -> bool:
        inside = left > LEFT and right < WIDTH - RIGHT and height < HEIGHT - BOTTOM
        return inside and not any(abs(height - h) < 15 and left < end and start < right for start, end, h in taken)

    anchor, height = next((p for p in places if free(*box(*p))), places[0])
    taken.append(box(anchor, height))
    return anchor, x + 11 if anchor == "start" else x - 11, height


def colour(i: int) -> str:
    """The classes of the i-th series."""
    return f"c{i % COLOURS}" + (" dashed" if i >= COLOURS else "")


def _x(axis: Axis, x: float) -> float:
    return LEFT + axis.share(x) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, y: float) -> float:
    return HEIGHT - BOTTOM - axis.share(y) * (HEIGHT - TOP - BOTTOM)


def _grid_y(axis: Axis) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(axis, t):.2f}" y2="{_y(axis, t):.2f}"/>'
        f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{_y(axis, t) + 4:.2f}">{t:g}</text>'
        for t in axis.ticks
    )


def _grid_x(axis: Axis) -> str:
    base = HEIGHT - BOTTOM
    return "".join(
        f'<line class="grid" x1="{_x(axis, t):.2f}" x2="{_x(axis, t):.2f}" y1="{TOP}" y2="{base}"/>'
        f'<text class="tick" text-anchor="middle" x="{_x(axis, t):.2f}" y="{base + 17}">{t:g}</text>'
        for t in axis.ticks
    )


def _names(x: str, y: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<text class="name" text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}">{escape(x)}</text>'
        f'<text class="name" text-anchor="middle" transform="translate(14 {middle}) rotate(-90)">{escape(y)}</text>'
    )


def _svg(about: str, *parts: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>'
