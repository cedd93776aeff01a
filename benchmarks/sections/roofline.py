"""What limits the vision tower on a processor."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, share, table

NAMES = {"fp32": "FP32", "int8": "INT8"}


def roofline_lines(result: Mapping[str, Any]) -> list[str]:
    """By precision and side of feature maps: work, lower bounds from the peaks, and the measured time."""
    peaks = result["peaks"]
    rows, totals = [], {}
    for precision, stages in result["graphs"].items():
        found = [_bounds(stage, peaks[f"{precision}_gmacs"], peaks["copy_gigabytes"]) for stage in stages]
        rows += [
            [
                NAMES[precision],
                f"{stage['side']}×{stage['side']}",
                f"{stage['macs'] / 1e9:.2f}",
                f"{stage['bytes'] / 1e6:.0f}",
                *(f"{value:.1f}" for value in bounds),
                share(max(bounds[:2]) / bounds[2]),
            ]
            for stage, bounds in zip(stages, found, strict=True)
        ]
        arithmetic, memory, measured = (sum(column) for column in zip(*found, strict=True))
        totals[precision] = (
            f"in {NAMES[precision]} arithmetic alone would take {share(arithmetic / measured)} of the measured time, "
            f"and moving every tensor through memory {share(memory / measured)}"
        )
    return [
        "What limits the vision tower: the graphs for CPUs in the published sizes, one image on one thread. Arithmetic "
        f"is the MACs of the convolutions at the peak of a matrix product ({peaks['fp32_gmacs']:.0f} GMAC/s in FP32, "
        f"{peaks['int8_gmacs']:.0f} in INT8); memory is what kernels read and write at the rate of a copy "
        f"({peaks['copy_gigabytes']:.1f} GB/s), as if no tensor stayed in a cache. So "
        + "; ".join(totals.values())
        + ".",
        "",
        *table(
            (
                "precision",
                "feature map",
                "GMACs",
                "MB",
                "arithmetic, ms",
                "memory, ms",
                "measured, ms",
                "limit reached",
            ),
            rows,
        ),
    ]


def _bounds(stage: Mapping[str, Any], gmacs: float, gigabytes: float) -> tuple[float, float, float]:
    """Milliseconds of the arithmetic and of the memory at their peaks, and as measured."""
    return stage["macs"] / gmacs / 1e6, stage["bytes"] / gigabytes / 1e6, median(stage["milliseconds"])


ROOFLINE = Section("Roofline of the vision tower", "roofline", roofline_lines)
