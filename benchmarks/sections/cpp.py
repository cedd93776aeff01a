"""The section on the C++ runtime beside the Python runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from benchmarks.sections.layout import Section, hardware, milliseconds, table


def render(result: Mapping[str, Any]) -> list[str]:
    """Times of whole calls, and of the parts before the graph."""
    difference = max(case["max_abs_from_baseline"]["C++"] for case in result["calls"])
    return [
        f"Whole calls of both runtimes on {hardware(result)}, in FP32 in the published sizes, on the same release of "
        "ONNX Runtime with all cores. C++ is called from Python here, which its times include. Embeddings differ by "
        f"{difference:.1e} at most.",
        "",
        *table(("call", "Python", "C++", "speedup"), _rows(result["calls"])),
        "",
        "The parts of a call before the graph, each beside the package that Python uses (`tokenizers`, Pillow):",
        "",
        *table(("part", "Python", "C++", "speedup"), _rows(result["parts"])),
    ]


def _rows(cases: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for case in cases:
        python, native = case["seconds"]["Python"], case["seconds"]["C++"]
        medians = [milliseconds(median(seconds)) for seconds in (python, native)]
        rows.append([case["name"], *medians, f"{speedup(python, native):.2f}×"])
    return rows


SECTION = Section("The C++ runtime beside Python", "cpp", render)
