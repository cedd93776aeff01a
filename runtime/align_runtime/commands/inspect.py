"""``align-inspect BUNDLE``: what a bundle holds, what it was made from and how close it is to the reference."""

from __future__ import annotations

import argparse
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.console import CommandParser, add_output_options, run, say, say_json, table
from align_runtime.engines import EngineEntry, Engines, read_engines
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import (
    ANY_TARGET,
    CPU_TARGET,
    GPU_TARGET,
    SAMPLE_WORDS,
    TOWERS,
    Graph,
    Island,
    Quantization,
)
from align_runtime.manifest import Manifest
from align_runtime.precision import describe
from align_runtime.trimming import trim
from align_runtime.user_path import user_path

RUNS_ON = {ANY_TARGET: "CPU, GPU", CPU_TARGET: "CPU", GPU_TARGET: "GPU"}
MAX_OPTION = 60  # characters of an option's value; the whole is in --json


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or a damaged bundle."""
    parser = CommandParser(
        prog="align-inspect",
        description="Print what a bundle holds: the model, its graphs, the devices that they are for, their sizes, "
        "element types and distance from the PyTorch reference as measured by the exporter, INT8 speed and TensorRT "
        "engines. Nothing is run and no hash is checked: align-verify does that. With --trim, it writes a "
        "smaller copy first.",
    )
    add_bundle_arguments(parser)
    group = parser.add_argument_group("a smaller copy")
    group.add_argument(
        "--trim",
        type=user_path,
        metavar="OUTPUT",
        help="write a bundle with the chosen towers and precisions to OUTPUT and print that one; OUTPUT may be BUNDLE",
    )
    group.add_argument("--towers", nargs="+", choices=TOWERS, default=[], help="towers to keep (default: all)")
    group.add_argument("--precisions", nargs="+", default=[], help="precisions to keep, e.g. fp32 int8 (default: all)")
    add_output_options(parser)
    return run(parser, arguments, _inspect)


def _inspect(options: argparse.Namespace) -> int:
    if (options.towers or options.precisions) and options.trim is None:
        raise ConfigurationError("--towers and --precisions choose what --trim OUTPUT keeps; add --trim")
    bundle = open_bundle(options, complete=False)
    if options.trim is not None:
        bundle = trim(bundle, options.trim, options.towers, options.precisions)
    engines = read_engines(bundle)
    if options.json:
        say_json(_as_json(bundle, engines))
    else:
        say(_as_text(bundle, engines))
    return 0


def _as_json(bundle: Bundle, engines: Engines) -> dict[str, Any]:
    """The manifest and its sha256, with the size of each graph, and the descriptions of the engines."""
    values = bundle.manifest.to_json()
    for described, graph in zip(values["graphs"], bundle.manifest.graphs, strict=True):
        described["bytes"] = bundle.manifest.graph_bytes(graph)
    return {
        "bundle": str(bundle.folder),
        "manifest_sha256": bundle.manifest_sha256,
        **values,
        "engines": [entry.to_json() for entry in engines.entries],
        "skipped_engines": list(engines.skipped),
        "missing_files": _missing(bundle),
    }


def _as_text(bundle: Bundle, engines: Engines) -> list[str]:
    manifest, provenance = bundle.manifest, bundle.manifest.provenance
    facts, (height, width) = manifest.model, manifest.preprocessing.output_size
    total = sum(entry.bytes for entry in manifest.files.values())
    revision = f", revision {provenance.revision}" if provenance.revision else ""
    lines = [
        f"{bundle.folder}: ALIGN bundle of {provenance.name}{revision}",
        f"  manifest     sha256 {bundle.manifest_sha256}",
        *(f"  NOTE         {remark}" for remark in provenance.remarks),
        f"  size         {len(manifest.files)} files, {total / 1e6:.1f} MB",
        f"  embeddings   {facts.embedding_dim} values, unit length; logits are cosine / {facts.temperature:.4g}",
        f"  images       {height}×{width} pixels",
        f"  texts        up to {facts.max_length} tokens",
        f"  exported as  {'; '.join(_options(manifest)) or 'default options'}",
        f"  made with    {', '.join(f'{tool} {version}' for tool, version in provenance.tools.items())}",
        "",
    ]
    notes = [*island_lines(manifest), *quantization_lines(manifest), *map(_engine_line, engines.entries)]
    notes += [f"engine skipped: {reason}" for reason in engines.skipped]
    notes += [f"missing: {name}" for name in _missing(bundle)]
    return [*lines, *graphs_table(manifest), "", *_contents(manifest), *(["", *notes] if notes else [])]


def _missing(bundle: Bundle) -> list[str]:
    """Files that the manifest lists and that are not there: graphs that were deleted, or an incomplete copy."""
    return [name for name in bundle.manifest.files if not (bundle.folder / name).exists()]


def _options(manifest: Manifest) -> list[str]:
    """The export's options in words; those that are off or empty are left out."""
    chosen = []
    for key, value in manifest.provenance.options.items():
        if value in (None, False) or value in ([], {}, ""):
            continue
        words = key.replace("_", " ").replace("fp16", "FP16").replace("int8", "INT8")
        if isinstance(value, dict):
            value = ", ".join(f"{name} {entry}" for name, entry in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        text = f"{value:g}" if isinstance(value, float) else str(value)
        shown = text if len(text) <= MAX_OPTION else f"{text[: MAX_OPTION - 1]}…"
        chosen.append(words if value is True else f"{words} {shown}")
    return chosen


def graphs_table(manifest: Manifest) -> list[str]:
    """Every graph with the devices that it is for, its size and its distance from the reference when it was built."""
    rows = [
        [
            graph.tower,
            graph.variant,
            runs_on(graph, manifest),
            graph.file,
            f"{manifest.graph_bytes(graph) / 1e6:.1f} MB",
            f"{graph.parity.max_abs:.1e}",
            f"{graph.limits.max_abs:.0e}",
            f"{graph.parity.min_cosine:.7f}",
            f"{graph.limits.min_cosine:g}",
        ]
        for graph in manifest.graphs
    ]
    headings = ["tower", "precision", "runs on", "graph", "size", "max abs error", "limit", "min cosine", "limit"]
    return table(headings, rows, right=(4, 5, 6, 7, 8))


def runs_on(graph: Graph, manifest: Manifest) -> str:
    """Which devices take `graph`, e.g. ``"CPU"``. One for all devices leaves the CPU to a graph that is made for it."""
    if graph.quantization and graph.target == GPU_TARGET:
        return "GPU (TensorRT)"
    same = [other for other in manifest.graphs if (other.tower, other.variant) == (graph.tower, graph.variant)]
    if graph.target == ANY_TARGET and any(other.target == CPU_TARGET for other in same):
        return RUNS_ON[GPU_TARGET]
    return RUNS_ON[graph.target]


def island_lines(manifest: Manifest) -> list[str]:
    """A line for each FP32 island of a graph of lower precision: its operators and why they stay FP32."""
    return [f"{graph.file}: {_island(island)}" for graph in manifest.graphs for island in graph.islands]


def _island(island: Island) -> str:
    (first, *rest), (reason, *more) = island.nodes, island.reasons
    operators = f"{first} and {_count(len(rest), 'other operator')} stay" if rest else f"{first} stays"
    others = f" ({_count(len(more), 'more reason')} in report.html)" if more else ""
    return f"{operators} FP32: {reason}{others}"


def quantization_lines(manifest: Manifest) -> list[str]:
    """A line for each INT8 graph: how its activations are quantized, what stays float, and its speed."""
    lines = []
    for graph in manifest.graphs:
        if graph.quantization:
            kept = len(graph.quantization.kept)
            parts = [
                _activations(graph, graph.quantization),
                *([f"{_count(kept, 'part')} in float for accuracy"] if kept else []),
                speed_words(graph.quantization),
            ]
            lines.append(f"{graph.file}: {'; '.join(parts)}")
    return lines


def speed_words(quantization: Quantization) -> str:
    """What was measured of the speed of an INT8 graph."""
    if quantization.speedup is None:
        return "speed not measured on the build machine"
    if quantization.speedup > 1:
        return f"{quantization.speedup:.2f} times as fast as the fastest float graph on the build machine"
    return (
        "NOT FASTER than the float graphs on the build machine: "
        f"{quantization.speedup:.2f} times as fast as the fastest of them"
    )


def _activations(graph: Graph, quantization: Quantization) -> str:
    if quantization.samples == 0:
        return "dynamic per-token quantization of activations, without calibrated scales"
    return (
        f"activation ranges by the observer '{quantization.scheme}' on {quantization.samples} "
        f"{SAMPLE_WORDS[graph.tower]}"
    )


def _engine_line(entry: EngineEntry) -> str:
    return (
        f"{entry.file}: engine of {entry.tower} {entry.variant}, {entry.machine.title}, {_shapes(entry)}; layers in "
        f"{describe(entry.products)}; "
        + ("parity not measured" if entry.parity is None else f"max abs error {entry.parity.max_abs:.1e}")
    )


def _shapes(entry: EngineEntry) -> str:
    if not entry.options.ranges:
        return _count(len(entry.profiles), "profile")
    least, _, most = (next(iter(shapes.values())) for shapes in entry.profiles)
    return f"shapes from {'×'.join(map(str, least))} to {'×'.join(map(str, most))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _contents(manifest: Manifest) -> list[str]:
    """The element types that the graphs compute and store in, as a table."""
    rows = [
        [
            graph.file,
            f"{sum(graph.content.macs.values()) / 1e6:,.1f} M",
            describe(graph.content.macs),
            f"{sum(graph.content.weights.values()) / 1e6:,.2f} M",
            describe(graph.content.weights),
        ]
        for graph in manifest.graphs
    ]
    return table(["graph", "MACs per input", "computed in", "weights", "stored in"], rows, right=(1, 3))
