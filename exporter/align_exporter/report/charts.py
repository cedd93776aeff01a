"""Charts as inline SVG: bars, the histogram of errors, and the fidelity of INT8 candidates.

Widths are percentages and heights are pixels: a chart fills any width, and its text keeps its size. Colours come from
the page's style sheet. Every mark has its exact values as a hover title; shapes, patterns and words repeat what colours
say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.report import formatting
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
