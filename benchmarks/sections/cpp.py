"""The C++ runtime beside the Python runtime: whole calls, and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from benchmarks.sections.layout import Section, milliseconds, table

PYTHON, NATIVE = "Python", "C++"


def cpp_lines(result: Mapping[str, Any]) -> list[str]:
    """Median times of both, and the speedup of C++."""
    headings = (PYTHON, NATIVE, "speedup of C++")
    return [
        "The C++ runtime against the Python runtime with the same ONNX Runtime library and all cores. Calls are those "
        "of a bundle of the published sizes in FP32, from texts, RGB arrays and JPEG files of 640×480 to embeddings; "
        "the time is almost all the graph's. Both are called from Python.",
        "",
        *table(("call", *headings), [_row(case) for case in result["calls"]]),
        "",
        "Parts without the graph. In Python they are those of `tokenizers` and Pillow.",
        "",
        *table(("part", *headings), [_row(case) for case in result["parts"]]),
    ]


def _row(case: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = case["seconds"]
    times = (f"{milliseconds(median(seconds[name]))} ms" for name in (PYTHON, NATIVE))
    return (case["name"], *times, f"{speedup(seconds[PYTHON], seconds[NATIVE]):.2f}×")


SECTION = Section("C++ runtime", "cpp", cpp_lines)
