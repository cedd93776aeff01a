"""How accurate an INT8 graph is, over the share of its MACs that are in INT8: a dot for every graph that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from align_bench.page.drawing import across, label, percent
from align_bench.page.markup import Markup, element
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.report import figures

TOP, BOTTOM, HEIGHT = 22, 128, 164  # pixels
LEFT, RIGHT = 0.04, 0.96  # fractions of the width, where the smallest and the largest share stand


def target_curve(points: Sequence[Candidate], values: Sequence[float], name: str, target: float | None) -> Markup:
    """`values` of `points`, the first of which was taken, with a line at the `target`."""
    marked = [*values] if target is None else [*values, target]
    low, high = min(marked), max(marked)
    shares = [point.share for point in points]
    least, span = min(shares), (max(shares) - min(shares)) or 1.0

    def x(share: float) -> str:
        return percent(LEFT + (RIGHT - LEFT) * (share - least) / span)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / ((high - low) or 1.0)

    ordered = sorted(zip(shares, values, strict=True))
    lines = [
        element("line", x1=x(a), y1=y(before), x2=x(b), y2=y(after), class_="curve")
        for (a, before), (b, after) in pairwise(ordered)
    ]
    dots = [
        element(
            "circle",
            element("title", f"{name} {value:.5f} with {figures.share(point.share, 1.0)} of the MACs in INT8"),
            cx=x(point.share),
            cy=y(value),
            r=5 if index == 0 else 3.5,
            class_="dot taken" if index == 0 else "dot",
        )
        for index, (point, value) in enumerate(zip(points, values, strict=True))
    ]
    marks = [across(y(value), "grid") for value in (low, high)]
    marks += [label(f"{value:.4f}", "0%", y(value) + 4, "end", dx=-6) for value in dict.fromkeys((low, high))]
    if target is not None:
        marks.append(across(y(target), "line limit"))
        marks.append(label(f"target {target:g}", "100%", y(target) - 5, "end", kind="halo limit"))
    ends = {least: "start", max(shares): "end"}
    marks += [label(figures.share(share, 1.0), x(share), BOTTOM + 16, anchor) for share, anchor in ends.items()]
    marks.append(label(f"{name} over the share of MACs in INT8", "50%", HEIGHT - 3, "middle"))
    summary = f"{name} from {min(values):.5f} to {max(values):.5f}, with {figures.share(least, 1.0)} to " + (
        f"{figures.share(max(shares), 1.0)} of the MACs in INT8"
    )
    return element(
        "svg", *marks, *lines, *dots, class_="chart", width="100%", height=HEIGHT, role="img", aria_label=summary
    )
