"""Charts as inline SVG: no script, no font, colours from the page's style sheet.

Lengths across are percentages and lengths down are pixels, so that a chart fills any width and its text keeps its size.
Every mark has its exact values as a hover title; shapes, patterns and words say what colours say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_exporter.report import figures
from align_exporter.report.record import ErrorHistogram

HATCHED = ("float32", "float64")  # types drawn with the pattern of `definitions`; others are plain


def definitions() -> Markup:
    """The patterns that the charts refer to; once a page."""
    lines = element("path", d="M-1 7 L7 -1 M-1 1 L1 -1 M5 7 L7 5", class_="hatch")
    pattern = element("pattern", lines, id="hatch", patternUnits="userSpaceOnUse", width=6, height=6)
    return element("svg", element("defs", pattern), class_="definitions", aria_hidden="true", width=0, height=0)


def bar(value: float, largest: float, title: str) -> Markup:
    """A bar as long as `value` is to `largest`, for a cell of a table that names the value."""
    width = percent(value / largest if largest > 0 else 0)
    return _bar_chart([element("rect", element("title", title), width=width, height=12, class_="bar")])


def stacked_bar(parts: Mapping[str, float]) -> Markup:
    """Shares of element types side by side, the largest first; float32 is hatched."""
    whole, start, marks = sum(parts.values()), 0.0, []
    for name, part in figures.descending(parts):
        title = element("title", f"{name}: {figures.share(part, whole)}")
        x, width, other = percent(start / whole), percent(part / whole), name in HATCHED
        boxes = [element("rect", x=x, width=width, height=12, class_="bar other" if other else "bar")]
        if other:
            boxes.append(element("rect", x=x, width=width, height=12, fill="url(#hatch)"))
        marks.append(element("g", title, *boxes))
        start += part
    return _bar_chart(marks)


def _bar_chart(marks: list[Markup]) -> Markup:
    return element("svg", *marks, class_="bars", width="100%", height=12, aria_hidden="true")


# ── how far components are from the reference ────────────────────────────────────────────────────────────────────────

BARS_TOP, BARS_BOTTOM, HISTOGRAM_HEIGHT = 44, 180, 216  # pixels; above the bars stand the labels of the two lines
ROOM_FOR_ONE = 0.35  # decades below the first, so that a single component has a bar that can be seen


def error_histogram(histogram: ErrorHistogram, largest: float, allowed: float) -> Markup:
    """Bars of the numbers of components, both axes logarithmic, with lines at the `largest` and the `allowed`."""
    bins, most = len(histogram.counts), max(histogram.counts)
    scale = (BARS_BOTTOM - BARS_TOP) / (math.log10(max(most, 10)) + ROOM_FOR_ONE)
    marks = []
    for decade in range(int(math.log10(max(most, 1))) + 1):
        y = BARS_BOTTOM - scale * (decade + ROOM_FOR_ONE)
        marks += [across(y, "grid"), label(figures.amount(10**decade), "0%", y + 4, "end", dx=-6)]
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
                label(figures.power_of_ten(round(edge)), percent((index + 1) / bins), BARS_BOTTOM + 16, "middle")
            )
    lines = (
        (largest, f"largest {figures.scientific(largest)}", 36, "measured"),
        (allowed, f"allowed {figures.scientific(allowed)}", 16, "limit"),
    )
    marks += [_line_down(_place(histogram, value), y, kind) for value, _, y, kind in lines]
    marks += [_line_name(_place(histogram, value), text, y, kind) for value, text, y, kind in lines]
    marks.append(label("difference of a component (log scale)", "50%", HISTOGRAM_HEIGHT - 3, "middle"))
    summary = (
        f"Histogram of {sum(histogram.counts)} differences from the reference: the largest is "
        f"{figures.scientific(largest)}, {figures.scientific(allowed)} is allowed"
    )
    return element("svg", *marks, class_="chart", width="100%", height=HISTOGRAM_HEIGHT, role="img", aria_label=summary)


def _bin_name(edges: tuple[float, ...], index: int) -> str:
    if index == 0:
        return f"below {10 ** edges[0]:.1e}, exact zeros included"
    if index == len(edges):
        return f"{10 ** edges[-1]:.1e} and more, or not a number"
    return f"{10 ** edges[index - 1]:.1e} to {10 ** edges[index]:.1e}"


def _place(histogram: ErrorHistogram, difference: float) -> float:
    """Where `difference` stands, as a fraction of the width; what is outside the edges stands at the nearest."""
    edges, bins = histogram.edges, len(histogram.counts)
    if not difference > 0:
        logarithm = edges[0] if difference == 0 else edges[-1]
    else:
        logarithm = min(max(math.log10(difference), edges[0]), edges[-1])
    return (1 + (logarithm - edges[0]) / (edges[-1] - edges[0]) * (bins - 2)) / bins


def _line_down(x: float, y: float, kind: str) -> Markup:
    return element("line", x1=percent(x), x2=percent(x), y1=y - 11, y2=BARS_BOTTOM, class_=f"line {kind}")


def _line_name(x: float, text: str, y: float, kind: str) -> Markup:
    """`text` at the top of a line, on the side that has room."""
    anchor, shift = ("end", -5) if x > 0.5 else ("start", 5)
    return label(text, percent(x), y, anchor, dx=shift, kind=f"halo {kind}")
