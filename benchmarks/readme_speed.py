"""The README's figures of the runtime's speed: against others, by stage, by operator, and how costs grow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from align_bench.record import BenchRecord
from align_bench.summary import milliseconds, stage_names, stage_rows, start_rows
from benchmarks.bench_table import bench_lines
from benchmarks.markdown import table

# ONNX Runtime's kernels by what they do, FP32's and INT8's.
KERNELS = {
    "products of 1×1 convolutions and the stem": ("Conv, 1×1 and stem", "QLinearConv, 1×1 and stem"),
    "depthwise convolutions": ("Conv, depthwise", "QLinearConv, depthwise"),
    "sigmoid and product of a swish; product with the gate": ("QuickGelu", "Mul", "QLinearSigmoid", "QLinearMul"),
    "the rest of squeeze-excite": ("squeeze-excite",),
    "changes of layout": ("ReorderInput", "ReorderOutput", "Transpose"),
}


def speed_parts(results: Path) -> list[list[str]]:
    """Lines of every part, from the files of `results`."""
    title, headings, rows = bench_lines(_read(results / "bench.json"))
    return [
        [title, "", *table(headings, rows)],
        profile_lines(_read(results / "profile.json")),
        stage_lines(BenchRecord.read(results / "align_bench.json")),
        scaling_lines(_read(results / "scaling.json")),
        memory_lines(_read(results / "memory.json")),
    ]


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values


def profile_lines(result: dict[str, Any]) -> list[str]:
    """Milliseconds of one image on one thread by kind of kernel, and their share."""
    groups = {precision: by_kind(kernels) for precision, kernels in result["graphs"].items()}
    totals = {precision: sum(kinds.values()) for precision, kinds in groups.items()}
    rows = [
        [kind, *(f"{kinds[kind]:.1f} ms, {kinds[kind] / totals[precision]:.0%}" for precision, kinds in groups.items())]
        for kind in groups["fp32"]
    ]
    return [
        "Where the time of one image goes, vision graphs for CPUs in the published sizes, one thread as in a stream, "
        f"ONNX Runtime's profiler; load average {result['load']['before'][0]:.1f} before:",
        "",
        *table(["", *(precision.upper() for precision in groups)], rows),
    ]


def by_kind(kernels: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds by kind of kernel: the medians of its groups, added; what is in none of `KERNELS` comes last."""
    medians = {group: median(figures["milliseconds"]) for group, figures in kernels.items()}
    kinds = {kind: sum(medians.pop(group, 0.0) for group in groups) for kind, groups in KERNELS.items()}
    return {**kinds, "everything else": sum(medians.values())}


def stage_lines(record: BenchRecord) -> list[str]:
    """What `align-bench` says by stage and of starts."""
    return [
        f"`align-bench` on the same sizes, {record.machine['processor']}, {record.machine['date'][:10]}; median "
        "milliseconds of a call by stage (the whole call overlaps them). All samples, and latencies under load, are in "
        "[the result](benchmarks/results/align_bench.json):",
        "",
        *table(["", *stage_names(record)], stage_rows(record)),
        "",
        *table(["", "import", "load", "first image", "first text", "peak memory"], start_rows(record)),
    ]


def scaling_lines(result: dict[str, Any]) -> list[str]:
    """How the cost of one input grows, a row for each axis."""
    axes: dict[tuple[str, str], list[str]] = {}
    for point in result["points"]:
        cell = f"{point['at']}: {milliseconds(point['milliseconds'] / 1000)}"
        axes.setdefault((point["tower"], point["axis"]), []).append(cell)
    rows: Sequence[Sequence[str]] = [[f"{tower}, {axis}", ", ".join(cells)] for (tower, axis), cells in axes.items()]
    return [
        f"Milliseconds for each input as something grows (`align-bench scaling`, {result['precision'].upper()}, 8 "
        "inputs, 12 tokens, JPEG files of 640×480 where nothing else is said; batches of the graph run on all "
        "threads, everything else as `embed_image` and `embed_texts` do it):",
        "",
        *table(["", "ms for each input"], rows),
    ]


def memory_lines(result: dict[str, Any]) -> list[str]:
    """Memory over many texts."""
    first, last = (result["resident_bytes"][place] / 2**20 for place in (0, -1))
    return [
        f"{result['texts']:,} texts of align-tiny, streamed through `iter_embed_texts` in {result['seconds']:.0f} s: "
        f"{first:.0f} MiB resident after a twentieth of them, {last:.0f} MiB at the end; the second half grew by "
        f"{result['growth'] / 2**20:.1f} MiB."
    ]
