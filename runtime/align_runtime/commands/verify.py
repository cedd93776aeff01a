"""``align-verify BUNDLE``: the self-test of a bundle, without torch."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.commands.inspect import runs_on
from align_runtime.console import (
    CommandParser,
    Progress,
    add_device_options,
    add_output_options,
    chosen_device,
    run,
    table,
)
from align_runtime.devices import backend_of
from align_runtime.golden import Golden
from align_runtime.graph_entry import GPU_TARGET
from align_runtime.precision import describe
from align_runtime.selftest import GraphCheck, check_graph, check_inputs, wide_limits
from align_runtime.standard_streams import show


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 all well, 1 a check failed, 2 a wrong call or a damaged bundle."""
    parser = CommandParser(
        prog="align-verify",
        description="Check a bundle: the sha256 of every file, the golden inputs through its own preprocessing, "
        "tokenizer and graphs against the embeddings of the PyTorch reference, and that the MACs counted by the "
        "exporter agree with the precision of each graph.",
    )
    add_bundle_arguments(parser)
    add_device_options(parser)
    parser.add_argument(
        "--accept-limits",
        action="store_true",
        help="accept limits of the bundle that are wider than the built-in ones, as after align-export "
        "--parity-max-abs",
    )
    add_output_options(parser)
    return run(parser, arguments, _verify)


def _verify(options: argparse.Namespace) -> int:
    progress = Progress(options.quiet or options.json)
    device = chosen_device(options)
    bundle = open_bundle(options, [device])
    files = bundle.manifest.files
    for name in progress.bar("hashes", files, len(files)):
        bundle.check_hash(name)
    expected = golden.read(bundle)
    with progress.phase("preprocessing and tokens"):
        differences = list(check_inputs(bundle, expected))
    checks = []
    for graph in bundle.graphs_on(device):
        with progress.phase(f"{graph.tower} {graph.exact_variant}"):
            checks.append(check_graph(bundle, graph, expected, device, options.threads))
    failures = differences + [failure for check in checks for failure in check.failures]
    failures += [] if options.accept_limits else wide_limits([check.graph for check in checks])
    failures += [] if checks else [f"the bundle has no graph that runs on {device}: nothing was compared"]
    if options.json:
        show(json.dumps(_as_json(bundle, device, checks, failures)))
    else:
        show(_as_text(bundle, expected, device, checks, failures))
    return 1 if failures else 0


def _as_json(bundle: Bundle, device: str, checks: list[GraphCheck], failures: list[str]) -> dict[str, Any]:
    return {
        "bundle": str(bundle.folder),
        "device": device,
        "ok": not failures,
        "random_weights": bundle.manifest.provenance.random_weights,
        "files": len(bundle.manifest.files),
        "checks": [
            {
                "tower": check.graph.tower,
                "variant": check.graph.variant,
                "target": check.graph.target,
                "file": check.graph.file,
                "parity": check.parity.to_json(),
                "limits": vars(check.graph.limits),
                "content": vars(check.graph.content),
                "ok": not check.failures,
            }
            for check in checks
        ],
        "failures": failures,
    }


def _as_text(bundle: Bundle, expected: Golden, device: str, checks: list[GraphCheck], failures: list[str]) -> str:
    rows = [
        [
            check.graph.tower,
            check.graph.variant,
            runs_on(check.graph, bundle.manifest),
            describe(check.graph.content.macs),
            f"{check.parity.max_abs:.2e}",
            f"{check.graph.limits.max_abs:.0e}",
            f"{check.parity.min_cosine:.7f}",
            "—" if math.isnan(check.parity.min_centred_cosine) else f"{check.parity.min_centred_cosine:.7f}",
            "FAILED" if check.failures else "ok",
        ]
        for check in checks
    ]
    headings = ["tower", "precision", "runs on", "MACs in", "max abs error", "limit", "min cosine", "mean-centred", ""]
    lines = [
        f"{bundle.folder}: {bundle.manifest.provenance.name}, {len(bundle.manifest.files)} files, every sha256 matches",
        *bundle.manifest.provenance.remarks,
        f"{len(expected.texts)} texts and {len(expected.images)} images on {device} against the PyTorch reference:",
        "",
        table(headings, rows, right=(4, 5, 6, 7)),
        *_notes(checks, device),
        *(f"FAILED: {failure}" for failure in failures),
        "",
        "failed" if failures else "all checks passed",
    ]
    return "\n".join(lines)


def _notes(checks: list[GraphCheck], device: str) -> list[str]:
    """What a CPU cannot show of graphs that are made for GPUs."""
    if backend_of(device).on_cpu and any(check.graph.target == GPU_TARGET for check in checks):
        return [f"Graphs for GPUs were run on {device}: this checks the graphs, not the arithmetic of a GPU."]
    return []
