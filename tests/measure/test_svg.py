"""Plots, read as a reader does: by their ticks."""

from __future__ import annotations

from collections.abc import Callable
from math import log10
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from rankpipe.measure import svg

CSS = Path(svg.__file__).with_name("report.css").read_text("utf-8")
LEFT, RIGHT, TOP, BOTTOM = svg.LEFT, svg.WIDTH - svg.RIGHT, svg.TOP, svg.HEIGHT - svg.BOTTOM


def number(mark: Element, key: str) -> float:
    return float(mark.attrib[key])


def of_class(root: Element, tag: str, name: str) -> list[Element]:
    return [e for e in root.iter(tag) if name in e.get("class", "").split()]


def ticks(root: Element, way: str) -> list[tuple[float, float]]:
    """(Where, what it says) of each tick of an axis; its line crosses the whole plot, its label stands outside."""
    found = []
    marks = [e for e in root if e.get("class") in ("grid", "tick")]
    for line, label in zip(marks[::2], marks[1::2], strict=True):
        x1, x2, y1, y2 = (number(line, key) for key in ("x1", "x2", "y1", "y2"))
        if way == "y" and y1 == y2:
            assert (x1, x2, label.get("text-anchor")) == (LEFT, RIGHT, "end")
            assert LEFT - 12 < number(label, "x") < LEFT - 4
            assert 3 < number(label, "y") - y1 < 5  # figures are 8 high, above their base line
            found.append((y1, float(label.text or "")))
        elif way == "x" and x1 == x2:
            assert (y1, y2, label.get("text-anchor"), number(label, "x")) == (TOP, BOTTOM, "middle", x1)
            assert BOTTOM + 11 < number(label, "y") < svg.HEIGHT - 20  # below the plot, above the name
            found.append((x1, float(label.text or "")))
    return found


def scale(root: Element, way: str, log: bool = False) -> Callable[[float], float]:
    """What a place on an axis means, by its first tick and its last."""
    known = ticks(root, way)
    (a, low), (b, high) = known[0], known[-1]
    if log:
        return lambda place: 10 ** (log10(low) + (place - a) / (b - a) * (log10(high) - log10(low)))
    return lambda place: low + (place - a) / (b - a) * (high - low)


def parsed(plot: str, about: str, x: str, y: str) -> Element:
    root = ElementTree.fromstring(plot)
    assert root.attrib == {"viewBox": f"0 0 {svg.WIDTH} {svg.HEIGHT}", "role": "img", "aria-label": about}
    assert not [e for e in root.iter() if e.tail or (e.text and e.tag not in ("text", "title"))]
    below, beside = of_class(root, "text", "name")
    assert (below.text, beside.text) == (x, y)
    assert number(below, "x") == (LEFT + RIGHT) / 2
    assert svg.HEIGHT - 12 < number(below, "y") < svg.HEIGHT - 4
    assert beside.attrib["transform"] == f"translate(14 {(TOP + BOTTOM) / 2}) rotate(-90)"
    return root


@pytest.mark.parametrize("values", [[-0.5, 0.0, 0.75], [0.2], [-0.3, -0.1], [0.0], [0.01 * i for i in range(300)]])
def test_bars(values: list[float]) -> None:
    axis = svg.from_zero(values, "gain")
    root = parsed(svg.bars([(v, f"<{v}>") for v in values], axis, "queries", 'a "plot"'), 'a "plot"', "queries", "gain")
    boxes = [r for g in of_class(root, "g", "mark") for r in g.findall("rect") if r.get("class") != "reach"]
    read = scale(root, "y")
    unit = 0.03 * (axis.high - axis.low) / (BOTTOM - TOP)  # what rounding to hundredths of a pixel may do
    for box, value in zip(boxes, values, strict=True):
        ends = read(number(box, "y")), read(number(box, "y") + number(box, "height"))
        assert ends == (pytest.approx(max(value, 0), abs=unit), pytest.approx(min(value, 0), abs=unit))
        assert box.get("class") == ("up" if value >= 0 else "down")
    assert [t.text for t in root.iter("title")] == [f"<{v}>" for v in values]
    [zero] = of_class(root, "line", "zero")
    assert (number(zero, "x1"), number(zero, "x2")) == (LEFT, RIGHT)
    assert read(number(zero, "y1")) == read(number(zero, "y2")) == pytest.approx(0, abs=unit)

    reaches = [r for r in root.iter("rect") if r.get("class") == "reach"]  # side by side, each as high as the plot
    lefts = [number(r, "x") for r in reaches]
    rights = [number(r, "x") + number(r, "width") for r in reaches]
    assert lefts[1:] == pytest.approx(rights[:-1], abs=0.02)
    assert lefts[0] - LEFT == pytest.approx(RIGHT - rights[-1], abs=2)
    assert rights[0] - lefts[0] == pytest.approx(min((RIGHT - LEFT) / len(values), svg.BAR), abs=0.02)
    assert all((number(r, "y"), number(r, "y") + number(r, "height")) == (TOP, BOTTOM) for r in reaches)
    for reach, box in zip(reaches, boxes, strict=True):
        before = number(box, "x") - number(reach, "x")
        assert before == pytest.approx(0 if len(values) > 150 else 1, abs=0.02)  # very thin ones touch
        assert number(reach, "width") - number(box, "width") == pytest.approx(2 * before, abs=0.02)


def test_lines() -> None:
    series = [
        svg.Series("a < b", [(0.0, 1.0), (0.5, 0.75), (1.0, 0.1)]),
        svg.Series("c", [(0.25, 0.0), (0.3, 0.9)]),
    ]
    made = svg.lines(series, svg.Axis("recall", 0, 1), svg.Axis("precision", 0, 1), "lines")
    root = parsed(made, "lines", "recall", "precision")
    across, up = scale(root, "x"), scale(root, "y")
    assert (across(LEFT), across(RIGHT), up(BOTTOM), up(TOP)) == (0, 1, 0, 1)
    for i, one in enumerate(series):
        [group] = of_class(root, "g", f"c{i}")
        dots, reaches = of_class(group, "circle", "dot"), of_class(group, "circle", "reach")
        read = [(across(number(d, "cx")), up(number(d, "cy"))) for d in dots]
        assert read == [(pytest.approx(x, abs=1e-4), pytest.approx(y, abs=1e-4)) for x, y in one.points]
        places = [(d.get("cx"), d.get("cy")) for d in dots]
        assert places == [(r.get("cx"), r.get("cy")) for r in reaches]
        assert [p.get("points") for p in group.findall("polyline")] == [" ".join(f"{a},{b}" for a, b in places)]
        told = [f"{one.name}: precision {y:.3f} at recall {x:g}" for x, y in one.points]
        assert [t.text for t in group.iter("title")] == told


@pytest.mark.parametrize("log", [False, True])
def test_points(log: bool) -> None:
    marks = [
        svg.Point("bm25", 0.02, 0.5, "<1>", (0.45, 0.62)),
        svg.Point("a name of some length", 1.5, 0.7, "2", None),
        svg.Point("at the right", 1.9, 0.6, "3", (0.6, 0.6)),
        svg.Point("four", 1.0, 0.4, "4"),
    ]
    x = (svg.spread if log else svg.from_zero)([p.x for p in marks], "seconds")
    y = svg.around([0.4, 0.7], "nDCG@10")
    root = parsed(svg.points(marks, x, y, "points"), "points", "seconds", "nDCG@10")
    across, up = scale(root, "x", log), scale(root, "y")
    for i, (p, group) in enumerate(zip(marks, of_class(root, "g", "mark"), strict=True)):
        [dot], [name] = group.findall("circle"), group.findall("text")
        assert group.get("class") == f"mark c{i}"
        assert across(number(dot, "cx")) == pytest.approx(p.x, rel=2e-3)
        assert up(number(dot, "cy")) == pytest.approx(p.y, abs=1e-4)
        assert (name.text, group.findtext("title")) == (p.name, p.tip)
        ends = group.findall("line")
        assert len(ends) == (p.ends is not None)
        for line in ends:
            assert {line.get("x1"), line.get("x2")} == {dot.get("cx")}
            assert (up(number(line, "y1")), up(number(line, "y2"))) == pytest.approx(p.ends, abs=1e-4)


def box(name: Element, mark: Element) -> tuple[float, float, float]:
    """Left end, right end and height of the name of a mark, which stands close beside it."""
    x, width, start = number(name, "x"), len(name.text or "") * svg.LETTER, name.get("text-anchor") == "start"
    assert start or name.get("text-anchor") == "end"
    assert x - number(mark, "cx") == pytest.approx(11 if start else -11)
    return (x, x + width, number(name, "y") - 4) if start else (x - width, x, number(name, "y") - 4)


@pytest.mark.parametrize("y", [0.0, 0.5])
@pytest.mark.parametrize("x", [0.05, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("marks", [1, 2, 9])
def test_names_cover_neither_each_other_nor_the_marks(x: float, y: float, marks: int) -> None:
    drawn = [svg.Point(f"system {i}", x, y + i / 1000, "") for i in range(marks)]
    root = ElementTree.fromstring(svg.points(drawn, svg.Axis("x", 0, 1), svg.Axis("y", 0, 1), "points"))
    groups = of_class(root, "g", "mark")
    dots = [d for g in groups for d in g.findall("circle")]
    names = [box(t, dot) for g, dot in zip(groups, dots, strict=True) for t in g.findall("text")]
    assert len(names) == marks
    for i, (left, right, height) in enumerate(names):
        assert LEFT < left < right < RIGHT
        assert height <= BOTTOM
        assert all(abs(height - h) >= 14 or right <= a or b <= left for a, b, h in names[:i])
        assert not any(left < number(d, "cx") < right for d in dots)
    if y and marks == 1:
        assert names[0][2] == number(dots[0], "cy")


@pytest.mark.parametrize("start", [0.02, 0.3, 0.8])
def test_names_of_marks_in_a_row_cover_no_mark(start: float) -> None:
    drawn = [svg.Point(f"system {i}", start + 0.05 * i, 0.5, "") for i in range(4)]
    root = ElementTree.fromstring(svg.points(drawn, svg.Axis("x", 0, 1), svg.Axis("y", 0, 1), "points"))
    groups = of_class(root, "g", "mark")
    dots = [d for g in groups for d in g.findall("circle")]
    names = [box(t, dot) for g, dot in zip(groups, dots, strict=True) for t in g.findall("text")]
    for i, (left, right, height) in enumerate(names):
        assert LEFT < left < right < RIGHT
        assert all(abs(height - h) >= 14 or right <= a or b <= left for a, b, h in names[:i])
        for d in dots:
            x, y, r = (number(d, key) for key in ("cx", "cy", "r"))
            assert abs(height - y) >= 14 or right < x - r or x + r < left


def test_where_there_is_no_room_names_are_drawn_all_the_same() -> None:
    made = svg.points([svg.Point("name", 0.5, 0.5, "")] * 99, svg.Axis("x", 0, 1), svg.Axis("y", 0, 1), "points")
    assert len(ElementTree.fromstring(made).findall("g/text")) == 99


def test_every_colour_is_in_the_style_sheet() -> None:
    plain = [f"c{i}" for i in range(8)]
    assert [svg.colour(i) for i in range(17)] == [*plain, *(f"{c} dashed" for c in plain), "c0 dashed"]
    assert all(f".{name} {{" in CSS for name in (*plain, "up", "down", "grid", "zero", "ends"))


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.2, 0.8], 0, 0.84), ([-0.8, -0.2], -0.84, 0), ([-1.0, 1.0], -1.1, 1.1), ([0.0], 0, 0.5), ([], 0, 0.5),
        ([5.0], 0, 5.25), ([-5.0], -5.25, 0), ([-0.5, 0.0], -0.525, 0),
    ],
)  # fmt: skip
def test_an_axis_from_zero_has_air_where_there_is_something(values: list[float], low: float, high: float) -> None:
    axis = svg.from_zero(values, "name")
    assert (axis.low, axis.high) == (pytest.approx(low), pytest.approx(high))
    assert (axis.name, axis.log) == ("name", False)


def test_an_axis_around_values_is_filled_by_them() -> None:
    for values, low, high in (([0.4, 0.6, 0.5], 0.376, 0.624), ([0.5], 0.45, 0.55)):
        axis = svg.around(values, "y")
        assert (axis.low, axis.high) == (pytest.approx(low), pytest.approx(high))


def test_an_axis_of_many_powers_of_ten_is_logarithmic() -> None:
    assert svg.spread([2.0, 39.9], "x") == svg.from_zero([2.0, 39.9], "x")
    axis = svg.spread([2.0, 40.0], "x")
    assert (axis.log, axis.low, axis.high) == (True, pytest.approx(2 / 1.8), pytest.approx(72))
    assert (svg.Axis("x", 1, 10_000, log=True).share(100), svg.Axis("x", 2, 4).share(3)) == (0.5, 0.5)
