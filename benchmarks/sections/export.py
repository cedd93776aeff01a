"""Sections on the export: time, memory and parity in the published sizes, and memory of the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, cosine, gibibytes, share, table

EXPORTS = {
    "export": "export",
    "export_fp16": "export with `--fp16`",
    "again": "the same again, nothing changed",
    "export_int8": "export with `--int8` for both targets, {images} calibration images",
}


def export_lines(result: Mapping[str, Any]) -> list[str]:
    """Time and memory of the export, size and parity of every graph, time of import and load."""
    exports = [
        (title.format(**result[key]), _seconds(result[key]["seconds"]), gibibytes(result[key]["peak_bytes"]))
        for key, title in EXPORTS.items()
    ]
    loads = {key: median(load[key] for load in result["loads"]) for key in ("import_seconds", "load_seconds")}
    weights = sum(
        sum(graph["content"]["weights"].values())
        for graph in result["graphs"]
        if (graph["variant"], graph["target"]) == ("fp32", "any")
    )
    return [
        f"A model of the published sizes, {weights / 1e6:.0f} M weights in its FP32 graphs, random and conditioned to "
        "behave like trained ones. Every graph is compared with the PyTorch reference before the bundle is written; "
        "FP16 is emulated on the CPU.",
        "",
        *table(("step", "time", "peak memory"), exports),
        "",
        *table(
            (
                "graph",
                "size with weights",
                "MACs in FP16",
                "max abs difference",
                "min cosine",
                "min mean-centred cosine",
            ),
            [_graph_row(graph) for graph in result["graphs"]],
        ),
        "",
        f"In a fresh process `import align_runtime` takes {loads['import_seconds']:.2f} s and `load` "
        f"{loads['load_seconds']:.2f} s (medians of {len(result['loads'])}).",
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _graph_row(graph: Mapping[str, Any]) -> list[str]:
    parity, macs = graph["parity"], graph["content"]["macs"]
    return [
        f"`{graph['file']}`",
        f"{graph['bytes'] / 1e6:.1f} MB",
        share(macs.get("float16", 0) / sum(macs.values())),
        f"{parity['max_abs']:.1e}",
        cosine(parity["min_cosine"]),
        cosine(parity["min_centred_cosine"]),
    ]


def calibration_lines(result: Mapping[str, Any]) -> list[str]:
    """Peak memory by number of images, and runs of the graph per image."""
    rows = [
        (
            str(case["images"]),
            "histograms, layer outputs and the trial of every observer" if case["trials"] else "histograms",
            str(case["runs"]),
            gibibytes(case["peak_bytes"]),
            f"{case['cache_bytes'] / 1e6:.1f} MB",
        )
        for case in result["cases"]
    ]
    return [
        "INT8 calibration of the vision graph in the published sizes: peak memory of the process hardly depends on the "
        "number of images, which are read one by one.",
        "",
        *table(("images", "work", "runs of the graph", "peak memory", "cache file"), rows),
    ]


def engine_lines(result: Mapping[str, Any]) -> list[str]:
    """Time and size of every engine of TensorRT for RTX."""
    rows = [
        (
            f"{engine['tower']} {engine['variant']}",
            ", ".join(engine["machine"]["compute_capabilities"]),
            "a range" if engine["options"]["ranges"] else f"{len(engine['profiles'])} shapes",
            f"{engine['seconds']:.0f} s",
            f"{engine['bytes'] / 1e6:.0f} MB",
            f"{engine['graph_bytes'] / 1e6:.0f} MB",
            ", ".join(f"{count} {kind}" for kind, count in engine["products"].items()),
        )
        for engine in result["engines"]
    ]
    version = result["engines"][0]["machine"]["tensorrt"]
    return [
        f"Engines of a model of the published sizes, built by TensorRT for RTX {version} on this CPU without a GPU; "
        f"none was run. Peak memory of the process: {gibibytes(result['peak_bytes'])}.",
        "",
        *table(
            (
                "graph",
                "compute capability",
                "profiles",
                "build",
                "engine",
                "graph with weights",
                "convolutions and matrix products in the network",
            ),
            rows,
        ),
    ]


SECTIONS = (
    Section("Full-size export", "full_size", export_lines),
    Section("Calibration memory", "calibration", calibration_lines),
    Section("Engines of TensorRT for RTX", "engines", engine_lines),
)
