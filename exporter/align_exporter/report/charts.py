"""Charts as inline SVG: bars, the histogram of errors, the fidelity of INT8 candidates, and activation ranges.

Widths are percentages and heights are pixels: a chart fills any width, and its text keeps its size. Colours come from
the page's style sheet. Every mark has its exact values as a hover title; shapes, patterns and words repeat what colours
say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from align_bench.page import formatting
from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_calibration.ranges import TensorRange
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.report.record import ErrorHistogram

HATCHED = ("float32", "float64")  # drawn with the pattern of `definitions`


def definitions() -> Markup:
    """Returns the patterns that the charts refer to; a page needs them once."""
    lines = element("path", d="M-1 7 L7 -1 M-1 1 L1 -1 M5 7 L7 5", class_="hatch")
    pattern = element("pattern", lines, id="hatch", patternUnits="userSpaceOnUse", width=6, height=6)
    return element("svg", element("defs", pattern), class_="definitions", aria_hidden="true", width=0, height=0)


def bar(value: float, largest: float, title: str) -> Markup:
    """Returns a bar of the length `value` / `largest`, for a table that names the value."""
    width = percent(value / largest if largest > 0 else 0)
    return _bar_chart([element("rect", element("title", title), width=width, height=12, class_="bar")])


def stacked_bar(parts: Mapping[str, float]) -> Markup:
    """Returns the shares of element types side by side, largest first; float32 is hatched."""
    whole, start, marks = sum(parts.values()), 0.0, []
    for name, part in formatting.descending(parts):
        title = element("title", f"{name}: {formatting.share(part, whole)}")
        x, width, other = percent(start / whole), percent(part / whole), name in HATCHED
        boxes = [element("rect", x=x, width=width, height=12, class_="bar other" if other else "bar")]
        if other:
            boxes.append(element("rect", x=x, width=width, height=12, fill="url(#hatch)"))
        marks.append(element("g", title, *boxes))
        start += part
    return _bar_chart(marks)


def _bar_chart(marks: list[Markup]) -> Markup:
    return element("svg", *marks, class_="bars", width="100%", height=12, aria_hidden="true")


# ── differences from the reference ───────────────────────────────────────────────────────────────────────────────────

BARS_TOP, BARS_BOTTOM, HISTOGRAM_HEIGHT = 44, 180, 216  # pixels; the labels of the two lines are above the bars
ROOM_FOR_ONE = 0.35  # decades below the first, so that the bar of a single component is visible


def error_histogram(histogram: ErrorHistogram, largest: float, allowed: float) -> Markup:
    """Returns the histogram with lines at the `largest` and the `allowed` difference; both axes are logarithmic."""
    bins, most = len(histogram.counts), max(histogram.counts)
    scale = (BARS_BOTTOM - BARS_TOP) / (math.log10(max(most, 10)) + ROOM_FOR_ONE)
    marks = []
    for decade in range(int(math.log10(max(most, 1))) + 1):
        y = BARS_BOTTOM - scale * (decade + ROOM_FOR_ONE)
        marks += [across(y, "grid"), label(formatting.amount(10**decade), "0%", y + 4, "end", dx=-6)]
    for index, count in enumerate(histogram.counts):
        if count:
            height = scale * (math.log10(count) + ROOM_FOR_ONE)
            title = element("title", f"{_bin_name(histogram.edges, index)}: {count} components")
            x, width = percent((index + 0.08) / bins), percent(0.84 / bins)
            marks.append(
                element("rect", title, x=x, y=BARS_BOTTOM - height, width=width, height=height, class_="column")
            )
    marks.append(across(BARS_BOTTOM, "axis"))
    marks.append(label("0", percent(0.5 / bins), BARS_BOTTOM + 16, "middle"))
    for index, edge in enumerate(histogram.edges):
        if edge % 2 == 0 and index > 1:
            marks.append(
                label(formatting.power_of_ten(round(edge)), percent((index + 1) / bins), BARS_BOTTOM + 16, "middle")
            )
    lines = (
        (largest, f"largest {formatting.scientific(largest)}", 36, "measured"),
        (allowed, f"limit {formatting.scientific(allowed)}", 16, "limit"),
    )
    marks += [_line_down(_place(histogram, value), y, kind) for value, _, y, kind in lines]
    marks += [_line_name(_place(histogram, value), text, y, kind) for value, text, y, kind in lines]
    marks.append(label("absolute difference of a component (log scale)", "50%", HISTOGRAM_HEIGHT - 3, "middle"))
    summary = (
        f"Histogram of {sum(histogram.counts)} differences from the reference: the largest is "
        f"{formatting.scientific(largest)}, the limit {formatting.scientific(allowed)}"
    )
    return element("svg", *marks, class_="chart", width="100%", height=HISTOGRAM_HEIGHT, role="img", aria_label=summary)


def _bin_name(edges: tuple[float, ...], index: int) -> str:
    if index == 0:
        return f"below {10 ** edges[0]:.1e}, exact zeros included"
    if index == len(edges):
        return f"{10 ** edges[-1]:.1e} or more, or not a number"
    return f"{10 ** edges[index - 1]:.1e} to {10 ** edges[index]:.1e}"


def _place(histogram: ErrorHistogram, difference: float) -> float:
    """Returns the position of `difference` as a fraction of the width; outside the edges, that of the nearest edge."""
    edges, bins = histogram.edges, len(histogram.counts)
    if not difference > 0:
        logarithm = edges[0] if difference == 0 else edges[-1]
    else:
        logarithm = min(max(math.log10(difference), edges[0]), edges[-1])
    return (1 + (logarithm - edges[0]) / (edges[-1] - edges[0]) * (bins - 2)) / bins


def _line_down(x: float, y: float, kind: str) -> Markup:
    return element("line", x1=percent(x), x2=percent(x), y1=y - 11, y2=BARS_BOTTOM, class_=f"line {kind}")


def _line_name(x: float, text: str, y: float, kind: str) -> Markup:
    """Returns `text` at the top of a line, on the side with more room."""
    anchor, shift = ("end", -5) if x > 0.5 else ("start", 5)
    return label(text, percent(x), y, anchor, dx=shift, kind=f"halo {kind}")


# ── fidelity of INT8 candidates ──────────────────────────────────────────────────────────────────────────────────────

CURVE_TOP, CURVE_BOTTOM, CURVE_HEIGHT = 22, 128, 164  # pixels
LEFT, RIGHT = 0.04, 0.96  # positions of the smallest and the largest share, as fractions of the width


def candidate_chart(
    candidates: Sequence[Candidate], values: Sequence[float], name: str, target: float | None
) -> Markup:
    """Returns a chart of `values`, one per candidate, over the share of MACs in INT8, with a line at the `target`.

    Args:
        name: of the values, e.g. ``"cosine"``.
    """
    marked = [*values] if target is None else [*values, target]
    low, high = min(marked), max(marked)
    shares = [candidate.share for candidate in candidates]
    least, span = min(shares), (max(shares) - min(shares)) or 1.0

    def x(share: float) -> str:
        return percent(LEFT + (RIGHT - LEFT) * (share - least) / span)

    def y(value: float) -> float:
        return CURVE_BOTTOM - (CURVE_BOTTOM - CURVE_TOP) * (value - low) / ((high - low) or 1.0)

    ordered = sorted(zip(shares, values, strict=True))
    lines = [
        element("line", x1=x(a), y1=y(before), x2=x(b), y2=y(after), class_="curve")
        for (a, before), (b, after) in pairwise(ordered)
    ]
    dots = [
        element(
            "circle",
            element("title", f"{name} {value:.5f} with {formatting.share(candidate.share, 1.0)} of the MACs in INT8"),
            cx=x(candidate.share),
            cy=y(value),
            r=5 if index == 0 else 3.5,
            class_="dot taken" if index == 0 else "dot",
        )
        for index, (candidate, value) in enumerate(zip(candidates, values, strict=True))
    ]
    marks = [across(y(value), "grid") for value in (low, high)]
    marks += [label(f"{value:.4f}", "0%", y(value) + 4, "end", dx=-6) for value in dict.fromkeys((low, high))]
    if target is not None:
        marks.append(across(y(target), "line limit"))
        marks.append(label(f"target {target:g}", "100%", y(target) - 5, "end", kind="halo limit"))
    ends = {least: "start", max(shares): "end"}
    marks += [
        label(formatting.share(share, 1.0), x(share), CURVE_BOTTOM + 16, anchor) for share, anchor in ends.items()
    ]
    marks.append(label(f"{name} over the share of MACs in INT8", "50%", CURVE_HEIGHT - 3, "middle"))
    summary = f"{name} from {min(values):.5f} to {max(values):.5f}, with {formatting.share(least, 1.0)} to " + (
        f"{formatting.share(max(shares), 1.0)} of the MACs in INT8"
    )
    return element(
        "svg", *marks, *lines, *dots, class_="chart", width="100%", height=CURVE_HEIGHT, role="img", aria_label=summary
    )


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
