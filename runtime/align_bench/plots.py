"""The charts of the page as inline SVG: x in percent of the width, y in pixels, see `align_bench.page.drawing`.

Series differ in colour and in the shape of their points, for readers who cannot tell the colours apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from align_bench.page.drawing import Axis, across, label, percent
from align_bench.page.formatting import number
from align_bench.page.markup import Markup, element
from align_bench.statistics import percentile

TOP, BOTTOM, HEIGHT = 12, 220, 262  # pixels
MAX_POINTS = 120  # of a distribution; more cannot be distinguished
MAX_TICKS = 8  # up to this many measured values are the ticks
MARKS = 4  # shapes of points; series beyond them repeat
Series = Mapping[str, Sequence[tuple[float, float]]]


def line_chart(
    series: Series, across_name: str, down_name: str, summary: str, log_across: bool = True, log_down: bool = False
) -> Markup:
    """A line through the points of each series; hovering over a point shows its values."""
    points = [point for line in series.values() for point in line]
    x_axis = Axis.over([x for x, _ in points], log_across)
    y_axis = Axis.over([y for _, y in points], log_down)
    values = sorted({x for x, _ in points})
    marks = _frame(x_axis, y_axis, across_name, down_name, values if log_across and len(values) <= MAX_TICKS else None)
    for index, (name, line) in enumerate(series.items()):
        places = [(_x(x_axis, x), _y(y_axis, y)) for x, y in line]
        marks += _segments(places, index)
        for (x, y), place in zip(line, places, strict=True):
            title = element("title", f"{name}: {down_name} {number(y)} at {across_name} {number(x)}")
            marks.append(element("g", title, _mark(index, *place), class_=_class(index)))
    return _chart(marks, summary)


def distribution_chart(samples: Mapping[str, Sequence[float]], across_name: str, summary: str) -> Markup:
    """The cumulative distribution of the samples of each case; a mark at the median."""
    x_axis = Axis.over([value for series in samples.values() for value in series], True)
    y_axis = Axis(0.0, 100.0, False)
    marks = _frame(x_axis, y_axis, across_name, "% of the calls")
    for index, (name, series) in enumerate(samples.items()):
        count = min(len(series), MAX_POINTS)
        shares = [step / count for step in range(count + 1)]
        steps = [(percentile(series, to), 100 * share) for since, to in pairwise(shares) for share in (since, to)]
        places = [(_x(x_axis, x), _y(y_axis, y)) for x, y in steps]
        half = percentile(series, 0.5)
        title = element("title", f"{name}: p50 {number(half)}, max {number(max(series))} {across_name}")
        mark = _mark(index, _x(x_axis, half), _y(y_axis, 50))
        marks.append(element("g", title, *_segments(places, index), mark, class_=_class(index)))
    return _chart(marks, summary)


def stage_bar(parts: Mapping[str, float]) -> Markup:
    """The stages side by side, each as wide as its share of their sum."""
    start, boxes, total = 0.0, [], sum(parts.values()) or 1.0
    for index, (name, value) in enumerate(parts.items()):
        title = element("title", f"{name}: {number(value)} ms, {value / total:.0%}")
        place = {"x": percent(start / total), "width": percent(value / total)}
        boxes.append(element("rect", title, **place, height=12, class_=f"stage s{index}"))
        start += value
    return element("svg", *boxes, class_="bars", width="100%", height=12, aria_hidden="true")


def key(index: int, filled: bool = False) -> Markup:
    """The mark of a series in a legend; with `filled` that of a stage."""
    if filled:
        drawing = element("rect", x=1, y=1, width=12, height=12, class_=f"stage s{index}")
        return element("svg", drawing, class_="key", aria_hidden="true", width=14, height=14)
    group = element("g", _mark(index, "50%", 7), class_=_class(index))
    return element("svg", group, class_="key", aria_hidden="true", width=14, height=14)


def _frame(
    x_axis: Axis, y_axis: Axis, across_name: str, down_name: str, across_ticks: Sequence[float] | None = None
) -> list[Markup]:
    marks = []
    for value in y_axis.ticks():
        y = _y(y_axis, value)
        marks += [across(y, "grid"), label(number(value), "0%", y + 4, "end", dx=-6)]
    for value in across_ticks or x_axis.ticks():
        marks.append(label(number(value), _x(x_axis, value), BOTTOM + 16, "middle"))
    marks.append(across(BOTTOM, "axis"))
    marks.append(label(across_name, "50%", BOTTOM + 36, "middle"))
    marks.append(label(down_name, "0%", TOP - 2, "start", dx=4, kind="halo"))
    return marks


def _segments(places: Sequence[tuple[str, float]], index: int) -> list[Markup]:
    """A line from place to place; an SVG path cannot have percentages."""
    return [
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=_class(index)) for (x1, y1), (x2, y2) in pairwise(places)
    ]


def _mark(index: int, x: str, y: float) -> Markup:
    shapes: tuple[Callable[[], Markup], ...] = (
        lambda: element("circle", cx=0, cy=0, r=4),
        lambda: element("rect", x=-3.5, y=-3.5, width=7, height=7),
        lambda: element("path", d="M0 -5 L5 4 L-5 4 Z"),
        lambda: element("path", d="M0 -5 L5 0 L0 5 L-5 0 Z"),
    )
    return element("svg", shapes[index % MARKS](), x=x, y=y, overflow="visible")


def _class(index: int) -> str:
    return f"series s{index % 6}"


def _x(axis: Axis, value: float) -> str:
    return percent(0.02 + 0.96 * axis.place(value))


def _y(axis: Axis, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP - 12) * axis.place(value)


def _chart(marks: list[Markup], summary: str) -> Markup:
    return element("svg", *marks, class_="chart", width="100%", height=HEIGHT, role="img", aria_label=summary)
