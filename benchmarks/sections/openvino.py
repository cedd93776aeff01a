"""The section on OpenVINO beside ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from align_runtime.parity import WIDEST
from benchmarks.sections.layout import Section, cosine, hardware, milliseconds, plural, table

BASELINE = "cpu fp32"
NOUNS = {"vision": "image", "text": "caption"}


def _inputs(case: Mapping[str, Any]) -> str:
    counted = plural(case["batch"], NOUNS[case["tower"]])
    return f"{counted}, one by one from {case['callers']} threads" if "callers" in case else counted


def _cell(case: Mapping[str, Any], candidate: str) -> str:
    seconds = case["seconds"]
    ratio = "" if candidate == BASELINE else f" ({speedup(seconds[BASELINE], seconds[candidate]):.2f}×)"
    return f"{milliseconds(median(seconds[candidate]))}{ratio}"


def render(result: Mapping[str, Any]) -> list[str]:
    """Time of each candidate by inputs, then parity of what OpenVINO computes."""
    candidates = list(result["cases"][0]["seconds"])
    times = [[_inputs(case), *(_cell(case, name) for name in candidates)] for case in result["cases"]]
    distances = [_distance(entry["file"], entry["variant"], entry["parity"]) for entry in result["parity"]]
    return [
        f"One bundle of the published sizes on {hardware(result)}, {plural(result['threads'], 'thread')}: "
        "milliseconds from pixels or captions to embeddings, and the speedup over FP32 on ONNX Runtime. The columns "
        "are device and precision of `load`. Which is faster depends on the processor: measure on the serving machine "
        "with `align-bench run --device cpu openvino`.",
        "",
        *table(("inputs", *candidates), times),
        "",
        "Distance from the PyTorch reference on OpenVINO, with the limits of `align-verify --device openvino` in "
        "brackets (random weights):",
        "",
        *table(("graph", "max abs error", "min cosine", "mean-centred"), distances),
    ]


def _distance(file: str, variant: str, parity: Mapping[str, float]) -> tuple[str, ...]:
    """With the limits of today, which may not be those of the day that it was measured on."""
    limits = WIDEST[variant]
    is_outside = parity["max_abs"] > limits.max_abs or any(
        parity[name] < getattr(limits, name) for name in ("min_cosine", "min_centred_cosine")
    )
    return (
        f"`{file}` in {variant}{', **outside its limits**' if is_outside else ''}",
        f"{parity['max_abs']:.1e} ({limits.max_abs:g})",
        f"{cosine(parity['min_cosine'])} ({limits.min_cosine})",
        f"{cosine(parity['min_centred_cosine'])} ({limits.min_centred_cosine})",
    )


SECTION = Section("OpenVINO on a CPU", "openvino", render)
