"""The part of the page about activation ranges: what FP16 can hold of every tensor."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from align_bench.page.components import code, figure, section, table
from align_bench.page.markup import Markup, element
from align_calibration.ranges import TensorRange
from align_exporter.report import figures
from align_exporter.report.range_chart import FP16_MAX, beyond, key, range_chart, rounding
from align_exporter.report.record import BuildRecord

WORST_TENSORS = 20


def range_section(record: BuildRecord) -> Markup:
    """A chart and a table per tower, or a sentence where nothing was measured."""
    towers = {tower: tensors for tower, tensors in record.ranges.items() if tensors}
    if not towers:
        reason = "No FP16 graph was built, so no activation ranges were measured."
        return section("ranges", "Activation ranges", element("p", reason))
    intro = element(
        "p",
        "How large the tensors get on the samples. What would come too near to FP16's end, or lose its digits below "
        "its smallest normal number, stays in FP32. Point at a tensor to see its name and values.",
    )
    parts = [_tower(tower, tensors, record) for tower, tensors in towers.items()]
    return section("ranges", "Activation ranges", intro, *parts)


def _tower(tower: str, tensors: Sequence[TensorRange], record: BuildRecord) -> Markup:
    kept, name = record.kept(tower), f"ranges-{tower}"
    caption = [key(kept=False), " largest absolute value, its line reaches down to the RMS; "]
    caption += [key(kept=True), " the same of an operator that was kept in FP32"]
    if beyond(tensors):
        caption.append(f"; at the upper end: {beyond(tensors)} beyond the axis")
    return element(
        "section",
        element("h3", f"{tower.capitalize()} tower", id=name),
        figure(range_chart(tower, tensors, kept, record.headroom), *caption),
        _summary(tensors, kept),
        _worst(tensors, kept),
        aria_labelledby=name,
    )


def _summary(tensors: Sequence[TensorRange], kept: Collection[str]) -> Markup:
    """What is left to FP16, in one sentence."""
    rounded = [tensor for tensor in tensors if tensor.tensor not in kept]
    text = f"{len(tensors)} tensors, {len(tensors) - len(rounded)} of them kept in FP32."
    if not rounded:
        return element("p", text)
    worst = max(rounded, key=lambda tensor: math.inf if math.isnan(tensor.rounding_error) else tensor.rounding_error)
    return element(
        "p",
        f"{text} Of the others, the one that rounding to FP16 changes most, in relation to its norm, is ",
        code(worst.tensor),
        " (",
        element("span", rounding(worst), class_="short"),
        ").",
    )


def _worst(tensors: Sequence[TensorRange], kept: Mapping[str, str]) -> Markup:
    """Those of islands first, then the largest; those kept by a rule, which no values decide on, last."""
    order = ("island", "no", "rule")

    def rank(tensor: TensorRange) -> tuple[int, float]:
        return order.index(kept.get(tensor.tensor, "no")), -tensor.max_abs if math.isfinite(
            tensor.max_abs
        ) else -math.inf

    rows = [
        (
            code(tensor.tensor),
            tensor.operator,
            f"◆ {kept[tensor.tensor]}" if tensor.tensor in kept else "no",
            figures.number(tensor.max_abs),
            f"{figures.number(100 * tensor.max_abs / FP16_MAX)} %",
            figures.number(tensor.rms),
            rounding(tensor),
        )
        for tensor in sorted(tensors, key=rank)[:WORST_TENSORS]
    ]
    caption = f"{len(rows)} of {len(tensors)} tensors: those of islands first, then the largest (all in report.json)"
    headings = ["Tensor", "Operator", "Kept in FP32", "Largest", f"Of {FP16_MAX:.0f}", "RMS", "Rounding error"]
    return table(caption, headings, rows, numbers=(3, 4, 5, 6))
