"""What limits the graphs on a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from benchmarks.sections.layout import Section, share, table

PRECISIONS = {"fp32": "FP32", "int8": "INT8"}


def roofline_lines(result: Mapping[str, Any]) -> list[str]:
    """The peaks, and by graph and stage the work, the lower bounds from the peaks, and the measured time."""
    one, *more = result["peaks"]
    rows, totals = [], []
    for name, stages in result["graphs"].items():
        tower, precision = name.split()
        bounds = {
            stage: _bounds(row, one[f"{precision}_gmacs"], one["copy_gigabytes"]) for stage, row in stages.items()
        }
        sums = tuple(sum(column) for column in zip(*bounds.values(), strict=True))
        title = f"{tower} {PRECISIONS[precision]}"
        totals.append(f"{title} {share(max(sums[:2]) / sums[2])} ({'arithmetic' if sums[0] > sums[1] else 'memory'})")
        work = {
            "macs": sum(row["macs"] for row in stages.values()),
            "bytes": sum(row["bytes"] for row in stages.values()),
        }
        rows += [_row(title, stage, stages[stage], found) for stage, found in bounds.items()]
        rows.append(_row(title, "all", work, sums))
    peaks = "; ".join(
        f"{found['threads']} thread{'s' * (found['threads'] > 1)}: {found['fp32_gmacs']:.0f} GMAC/s in FP32, "
        f"{found['int8_gmacs']:.0f} in INT8, {found['copy_gigabytes']:.1f} GB/s"
        for found in (one, *more)
    )
    return [
        "What limits the graphs for CPUs in the published sizes, on one thread: one image, by the feature map that a "
        "kernel writes, and one caption of 12 tokens. Arithmetic is the time of the MACs at the peak of a matrix "
        "product; memory is that of the bytes that kernels read and write at the rate of a copy, as if no tensor "
        f"stayed in a cache. Peaks, {peaks}. The larger bound as a share of the measured time: {', '.join(totals)}.",
        "",
        *table(("graph", "stage", "GMACs", "MB", "arithmetic, ms", "memory, ms", "measured, ms"), rows),
        "",
        "An idea that was measured before it was built: a custom operator for ONNX Runtime that computes an INT8 "
        "swish in one table look-up, instead of a look-up and a product. From 1.25 × on it would be worth a library in "
        f"every bundle. The graph without these products, which no such operator reaches, gains "
        f"{_gains(result['one_pass_swish'])}.",
    ]


def _gains(cases: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(f"{speedup(*case['seconds'].values()):.2f} × at batch {case['batch']}" for case in cases)


def _bounds(row: Mapping[str, Any], gmacs: float, gigabytes: float) -> tuple[float, float, float]:
    """Milliseconds of the arithmetic and of the memory at their peaks, and as measured."""
    return row["macs"] / gmacs / 1e6, row["bytes"] / gigabytes / 1e6, median(row["milliseconds"])


def _row(title: str, stage: str, work: Mapping[str, Any], bounds: tuple[float, ...]) -> list[str]:
    return [
        title,
        stage,
        f"{work['macs'] / 1e9:.2f}",
        f"{work['bytes'] / 1e6:.0f}",
        *(f"{value:.1f}" for value in bounds),
    ]


SECTION = Section("Roofline", "roofline", roofline_lines)
