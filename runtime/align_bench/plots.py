"""The charts of a bench as inline SVG: lengths across in percent, lengths down in pixels, see `align_bench.page`.

A series has a colour, and a mark of its own where it has points, so that colour alone says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_bench.statistics import percentile

TOP, BOTTOM, HEIGHT = 12, 220, 262  # pixels
MOST_POINTS = 120  # of a distribution; more cannot be told apart
TICKS_DOWN = 4
MOST_TICKS = 8  # where the values that were measured are the ticks
MARKS = 4  # shapes of points; series beyond them repeat
Series = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` as fractions of a length, linear or logarithmic."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], logarithmic: bool) -> Axis:
        if logarithmic:
            return cls(min(values), max(max(values), 1.0001 * min(values)), True)
        return cls(0.0, _round_up(max(values)), False)

    def place(self, value: float) -> float:
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values; of a logarithmic axis 1, 2 and 5 times powers of ten within it."""
        if not self.logarithmic:
            return [self.high * step / TICKS_DOWN for step in range(TICKS_DOWN + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        inside = [step * 10.0**power for power in powers for step in (1, 2, 5) if self._holds(step * 10.0**power)]
        wide = len(inside) > 6
        return [value for value in inside if not wide or f"{value:e}".startswith("1")]

    def _holds(self, value: float) -> bool:
        return self.low * 0.999 <= value <= self.high * 1.001


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 4, 5, 8) if step * power >= value), 10 * power)


def line_chart(
    series: Series, across_name: str, down_name: str, summary: str, log_across: bool = True, log_down: bool = False
) -> Markup:
    """Lines through points, with the points marked and their values as hover titles."""
    points = [point for line in series.values() for point in line]
    x_axis = Axis.over([x for x, _ in points], log_across)
    y_axis = Axis.over([y for _, y in points], log_down)
    values = sorted({x for x, _ in points})
    marks = _frame(x_axis, y_axis, across_name, down_name, values if log_across and len(values) <= MOST_TICKS else None)
    for index, (name, line) in enumerate(series.items()):
        places = [(_x(x_axis, x), _y(y_axis, y)) for x, y in line]
        marks += _segments(places, index)
        for (x, y), place in zip(line, places, strict=True):
            title = element("title", f"{name}: {down_name} {number(y)} at {across_name} {number(x)}")
            marks.append(element("g", title, _mark(index, *place), class_=_class(index)))
    return _chart(marks, summary)


def distribution_chart(samples: Mapping[str, Sequence[float]], across_name: str, summary: str) -> Markup:
    """Which share of the runs took at most that long: one rising line per case."""
    x_axis = Axis.over([value for series in samples.values() for value in series], True)
    y_axis = Axis(0.0, 100.0, False)
    marks = _frame(x_axis, y_axis, across_name, "% of the runs")
    for index, (name, series) in enumerate(samples.items()):
        count = min(len(series), MOST_POINTS)
        shares = [step / count for step in range(count + 1)]
        steps = [(percentile(series, to), 100 * share) for since, to in pairwise(shares) for share in (since, to)]
        places = [(_x(x_axis, x), _y(y_axis, y)) for x, y in steps]
        half = percentile(series, 0.5)
        title = element("title", f"{name}: half of the runs within {number(half)}, all within {number(max(series))}")
        mark = _mark(index, _x(x_axis, half), _y(y_axis, 50))
        marks.append(element("g", title, *_segments(places, index), mark, class_=_class(index)))
    return _chart(marks, summary)


def stage_bar(parts: Mapping[str, float], longest: float) -> Markup:
    """Stages side by side, as long together as their sum is to `longest`; nothing where no stage was measured."""
    start, boxes, longest = 0.0, [], longest or 1.0
    for index, (name, value) in enumerate(parts.items()):
        title = element("title", f"{name}: {number(value)} ms")
        width = percent(value / longest)
        boxes.append(
            element("rect", title, x=percent(start / longest), width=width, height=12, class_=f"stage s{index}")
        )
        start += value
    return element("svg", *boxes, class_="bars", width="100%", height=12, aria_hidden="true")


def key(index: int, filled: bool = False) -> Markup:
    """The sign of a series in a legend; `filled` that of a stage."""
    if filled:
        drawing = element("rect", x=1, y=1, width=12, height=12, class_=f"stage s{index}")
        return element("svg", drawing, class_="key", aria_hidden="true", width=14, height=14)
    group = element("g", _mark(index, "50%", 7), class_=_class(index))
    return element("svg", group, class_="key", aria_hidden="true", width=14, height=14)


def number(value: float) -> str:
    """Three digits: ``0.123``, ``12.3``, ``1234``."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


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
    """A line from place to place: a path cannot go to percentages."""
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
