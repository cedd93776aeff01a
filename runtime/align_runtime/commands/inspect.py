"""``align-inspect BUNDLE``: what a bundle holds, from what, and how far it is from the reference. Runs nothing."""

from __future__ import annotations

import argparse
import json
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.console import CommandParser, add_output_options, run, table
from align_runtime.engines import engines_of
from align_runtime.graph_entry import ANY_SPEED, FASTER, NOT_MEASURED, SAMPLE_WORDS, Graph, Quantization
from align_runtime.manifest import Manifest
from align_runtime.precision import describe

SPEED_WORDS = {
    FASTER: "faster than every float graph where it was built",
    ANY_SPEED: "kept whatever its speed",
    NOT_MEASURED: "speed not measured, its device was not at hand where it was built",
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 a wrong call or a damaged bundle."""
    parser = CommandParser(
        prog="align-inspect",
        description="Print what a bundle holds: where it came from, its graphs, their sizes, the types that they "
        "compute in and their parity, measured when it was built. Nothing is run (align-verify runs the self-test).",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that align-export wrote")
    add_output_options(parser)
    return run(parser, arguments, _inspect)


def _inspect(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle)
    print(json.dumps(_as_json(bundle)) if options.json else _as_text(bundle))
    return 0


def _as_json(bundle: Bundle) -> dict[str, Any]:
    values = bundle.manifest.to_json()
    for described, graph in zip(values["graphs"], bundle.manifest.graphs, strict=True):
        described["bytes"] = bundle.manifest.graph_bytes(graph)
    engines = [entry.to_json() for entry in engines_of(bundle)]
    return {"bundle": str(bundle.folder)} | values | {"engines": engines}


def _as_text(bundle: Bundle) -> str:
    manifest, provenance = bundle.manifest, bundle.manifest.provenance
    facts, (height, width) = manifest.model, manifest.preprocessing.output_size
    total = sum(entry.bytes for entry in manifest.files.values())
    options = " ".join(f"{key}={value}" for key, value in provenance.options.items())
    tools = ", ".join(f"{tool} {version}" for tool, version in provenance.tools.items())
    lines = [
        f"{bundle.folder}: {provenance.name}{f' at {provenance.revision}' if provenance.revision else ''}, "
        f"{len(manifest.files)} files, {total / 1e6:.1f} MB",
        f"embeddings of {facts.embedding_dim} numbers, temperature {facts.temperature:.4g}; images {height}×{width}, "
        f"texts of up to {facts.max_length} tokens",
        f"options: {options}",
        f"made with {tools}",
        "",
    ]
    notes = [*island_lines(manifest), *quantization_lines(manifest), *_engine_lines(bundle)]
    return "\n".join([*lines, graphs_table(manifest), "", _contents(manifest), *notes])


def graphs_table(manifest: Manifest) -> str:
    """Every graph with its size and its distance from the reference, measured when it was built."""
    rows = [
        [
            graph.tower,
            graph.variant,
            graph.target,
            graph.file,
            f"{manifest.graph_bytes(graph) / 1e6:.1f} MB",
            f"{graph.parity.max_abs:.1e}",
            f"{graph.limits.max_abs:.0e}",
            f"{graph.parity.min_cosine:.7f}",
            f"{graph.limits.min_cosine:g}",
        ]
        for graph in manifest.graphs
    ]
    headings = ["tower", "variant", "target", "graph", "size", "max abs error", "allowed", "min cosine", "at least"]
    return table(headings, rows, right=(4, 5, 6, 7, 8))


def island_lines(manifest: Manifest) -> list[str]:
    """What graphs of lower precision keep in FP32 beyond the rules, a line for each island; none where nothing is."""
    return [
        f"{graph.file} keeps {len(island.nodes)} {'operator' if len(island.nodes) == 1 else 'operators'} in FP32, "
        f"{island.nodes[0]}{' …' if len(island.nodes) > 1 else ''}: {island.reasons[0]}"
        f"{f' and {len(island.reasons) - 1} more reasons (report.html)' if len(island.reasons) > 1 else ''}"
        for graph in manifest.graphs
        for island in graph.islands
    ]


def quantization_lines(manifest: Manifest) -> list[str]:
    """How INT8 graphs came by their scales and whether they had to be faster, a line for each."""
    return [
        f"{graph.file}: {_scales(graph, graph.quantization)}{_kept(graph.quantization)}; "
        f"{SPEED_WORDS[graph.quantization.speed]}"
        for graph in manifest.graphs
        if graph.quantization
    ]


def _engine_lines(bundle: Bundle) -> list[str]:
    """Where the TensorRT engines of the bundle come from, a line for each."""
    return [
        f"{entry.file}: built on {entry.machine.gpu} by TensorRT {entry.machine.tensorrt}, {len(entry.profiles)} "
        f"profiles, products in {describe(entry.products)}, max abs error {entry.parity.max_abs:.1e}"
        for entry in engines_of(bundle)
    ]


def _kept(quantization: Quantization) -> str:
    count = len(quantization.kept)
    return f", {count} {'part' if count == 1 else 'parts'} in float for the target" if count else ""


def _scales(graph: Graph, quantization: Quantization) -> str:
    if quantization.samples == 0:
        return "activations quantised as they come, token by token"
    return f"scales by the observer '{quantization.scheme}' on {quantization.samples} {SAMPLE_WORDS[graph.tower]}"


def _contents(manifest: Manifest) -> str:
    """Which types the graphs compute and store in, as a table."""
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
    return table(["graph", "MACs of one", "computed in", "weights", "stored in"], rows, right=(1, 3))
