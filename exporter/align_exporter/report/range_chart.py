"""The chart of activation ranges: every tensor of a tower in the order of the graph, with the limits of FP16."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_calibration.ranges import TensorRange
from align_exporter.report import formatting

FP16_MAX = float(np.finfo(np.float16).max)  # 65504
FP16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 2⁻¹⁴; smaller values underflow to subnormals
LOWEST_DECADE, HIGHEST_DECADE = -10, 8  # of the axis, which an attention mask of -3e38 must not stretch
TOP, BOTTOM, HEIGHT = 14, 286, 326  # pixels
FEW = 150  # tensors, with larger dots
MOST_TICKS = 9
UNIT = re.compile(r"\.(?:blocks|layer)\.(\d+)[./]")


@dataclass(frozen=True)
class _Axis:
    """The vertical axis: whole decades from `low` to `high`."""

    low: int
    high: int

    @classmethod
    def over(cls, tensors: Sequence[TensorRange]) -> _Axis:
        values = [tensor.max_abs for tensor in tensors] + [tensor.rms for tensor in tensors]
        logarithms = [math.log10(value) for value in values if 0 < value < math.inf]
        low = math.floor(min([*logarithms, math.log10(FP16_SMALLEST_NORMAL)]))
        high = math.ceil(max([*logarithms, math.log10(FP16_MAX)]))
        return cls(max(low, LOWEST_DECADE), min(high, HIGHEST_DECADE))

    def y(self, value: float) -> float:
        """Pixels from the top. Values above the axis and NaN are at its top, values below it at its bottom."""
        if not value <= 10.0**self.high:
            return TOP
        decade = math.log10(value) if value > 0 else self.low
        return BOTTOM - (BOTTOM - TOP) * (max(decade, self.low) - self.low) / (self.high - self.low)


def range_chart(tower: str, tensors: Sequence[TensorRange], kept: Collection[str], headroom: float) -> Markup:
    """Returns the chart of `tensors`: a line from the RMS of each to its largest absolute value, which is a dot, or a
    diamond if its operator is one of `kept`, in FP32. Values beyond the axis, see `beyond`, are at its top."""
    axis = _Axis.over(tensors)
    marks = [*_grid(axis), *_ticks(tensors)]
    order = sorted(range(len(tensors)), key=lambda index: tensors[index].tensor in kept)  # their marks are drawn last
    for index in order:
        tensor = tensors[index]
        marks.append(_mark(axis, index, len(tensors), tensor, tensor.tensor in kept))
    marks += _limits(axis, headroom)
    marks.append(across(BOTTOM, "axis"))
    summary = (
        f"Largest absolute values of {len(tensors)} tensors of the {tower} tower in the order of the graph; "
        f"{sum(tensor.tensor in kept for tensor in tensors)} of them are kept in FP32. The table lists the largest"
    )
    return element("svg", *marks, class_="chart ranges", width="100%", height=HEIGHT, role="img", aria_label=summary)


def _grid(axis: _Axis) -> list[Markup]:
    step = 2 if axis.high - axis.low > 8 else 1
    marks = []
    for decade in range(axis.low, axis.high + 1):
        if decade % step == 0:
            y = axis.y(10.0**decade)
            marks += [across(y, "grid"), label(formatting.power_of_ten(decade), "0%", y + 4, "end", dx=-6)]
    return marks


def _limits(axis: _Axis, headroom: float) -> list[Markup]:
    allowed = FP16_MAX / headroom
    lines = (
        (FP16_MAX, f"FP16 maximum {FP16_MAX:.0f}", -4, "limit"),
        (allowed, f"kept in FP32 above {formatting.number(allowed)} (headroom {headroom:g})", 13, "measured"),
        (FP16_SMALLEST_NORMAL, f"FP16 subnormals below {formatting.scientific(FP16_SMALLEST_NORMAL)}", 13, "measured"),
    )
    marks = []
    for value, text, dy, kind in lines:
        y = axis.y(value)
        marks += [across(y, f"line {kind}"), label(text, "100%", y + dy, "end", dx=-4, kind=f"halo {kind}")]
    return marks


def _ticks(tensors: Sequence[TensorRange]) -> list[Markup]:
    """Ticks where blocks or layers of the tower begin, as many as there is room for."""
    starts: dict[int, int] = {}
    for index, tensor in enumerate(tensors):
        unit = UNIT.search(tensor.tensor)
        if unit:
            starts.setdefault(int(unit[1]), index)
    marks = [label("block or layer, in the order of the graph" if starts else "depth", "50%", HEIGHT - 3, "middle")]
    step = 1
    while len(starts) / step > MOST_TICKS:
        step += 1 if step == 1 else 5 if step >= 5 else 3
    for unit_number, index in starts.items():
        if unit_number % step == 0:
            x = percent((index + 0.5) / len(tensors))
            marks.append(element("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 5, class_="axis"))
            marks.append(label(str(unit_number), x, BOTTOM + 18, "middle"))
    return marks


def _mark(axis: _Axis, index: int, count: int, tensor: TensorRange, kept: bool) -> Markup:
    x, top, foot = percent((index + 0.5) / count), axis.y(tensor.max_abs), axis.y(tensor.rms)
    lines = (
        f"{tensor.tensor} · {tensor.operator}",
        f"largest {formatting.number(tensor.max_abs)}, RMS {formatting.number(tensor.rms)}, "
        f"relative error of rounding to FP16 {rounding(tensor)}",
        *(["kept in FP32"] if kept else []),
    )
    return element(
        "g",
        element("title", "\n".join(lines)),
        element("rect", x=percent(index / count), width=percent(1 / count), y=TOP, height=BOTTOM - TOP),
        element("line", x1=x, x2=x, y1=top, y2=foot),
        _diamond(x, top) if kept else element("circle", cx=x, cy=top, r=3 if count <= FEW else 1.6),
        class_="tensor kept" if kept else "tensor",
    )


def _diamond(x: str, y: float) -> Markup:
    """A path cannot hold percentages: the diamond is drawn around the origin of an inner SVG at x, y."""
    return element("svg", element("path", d="M0 -6 L6 0 L0 6 L-6 0 Z"), x=x, y=y, overflow="visible")


def beyond(tensors: Sequence[TensorRange]) -> int:
    """Returns how many of `tensors` exceed the highest possible axis, 10⁸, or are not finite."""
    return sum(not tensor.max_abs <= 10.0**HIGHEST_DECADE for tensor in tensors)


def key(kept: bool) -> Markup:
    """Returns the mark of a tensor, for the legend."""
    mark = _diamond("50%", 7) if kept else element("circle", cx="50%", cy=7, r=3)
    group = element("g", mark, class_="tensor kept" if kept else "tensor")
    return element("svg", group, class_="key", aria_hidden="true", width=14, height=14)


def rounding(tensor: TensorRange) -> str:
    """Returns the rounding error of the tensor as text."""
    return "overflow" if math.isnan(tensor.rounding_error) else formatting.scientific(tensor.rounding_error)
