"""Ideas to make a single call faster: the expectation, the measured gain, and what came of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_bench.statistics import compare_paired
from benchmarks.sections.layout import Section, table
from benchmarks.sections.targets import interval_text

# By the name in the result file: the idea, the expectation, and what came of it.
IDEAS: Mapping[str, tuple[str, str, str]] = {
    "unfused sums": (
        "text graphs in which ONNX Runtime does not fuse additions with LayerNormalization and GELU",
        "in a profile of 64 tokens SkipLayerNormalization takes four times as long as its parts, and a sixth of INT8",
        "kept: the graphs for CPUs have Sum there, which ONNX Runtime does not fuse",
    ),
    "scaled products": (
        "integer products that multiply by the scales of their columns (MatMulIntegerToFloat)",
        "two passes less over the result of every dense layer",
        "dropped: one caption gains nothing, and the graphs would have an operator that only ONNX Runtime knows",
    ),
    "one projection": (
        "query, key and value as one product, on top of that",
        "a third of the products in attention, each with more columns for the threads",
        "dropped: splitting the result costs as much",
    ),
    "strips": (
        "expansion, swish and depthwise convolution of large feature maps in strips of rows",
        "strips that stay in the cache: the roofline gives most of the time of these stages to memory",
        "dropped: the strips are copied in and out",
    ),
    "threads on cores": (
        "each thread tied to a core",
        "fewer moves between cores; little with as many threads as cores",
        "dropped: no gain, and a tied thread cannot leave a core that another process takes",
    ),
    "decoded image": (
        "decoding and resizing split over threads; measured is a call with pixels that are ready",
        "with two threads less than half of what that call gains",
        "not built: the parts of an image that is resized in parts are not those of the whole",
    ),
}


def idea_lines(result: Mapping[str, Any]) -> list[str]:
    """A row for each case, those of an idea together."""
    rows, last, order = list[tuple[str, ...]](), "", list(IDEAS)
    for case in sorted(result["cases"], key=lambda case: order.index(case["idea"])):
        idea, expected, outcome = IDEAS[case["idea"]]
        gain = interval_text(compare_paired(case["seconds"]["before"], case["seconds"]["after"]))
        is_new, last = case["idea"] != last, case["idea"]
        rows.append((*((idea, expected) if is_new else ("", "")), case["case"], gain, outcome if is_new else ""))
    return [
        "Ideas to make a single call faster, in the published sizes: expectation, measured gain, what came of them. "
        "Each ran interleaved with what it changes; the gain has its 95 % interval behind it. Scaled decoding of JPEG "
        "files was not tried: its pixels are others. How threads wait is under [Threads](#threads), a custom operator "
        "for the swish under [Roofline](#roofline), OpenVINO under [OpenVINO on a CPU](#openvino-on-a-cpu).",
        "",
        *table(("idea", "expectation", "case", "gain", "outcome"), rows),
    ]


SECTION = Section("Ideas", "ideas", idea_lines)
