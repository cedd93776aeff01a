"""``align-verify BUNDLE``: the self-test of a bundle, without torch."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.commands.bundle_arguments import add_bundle_arguments, open_bundle
from align_runtime.commands.inspect import runs_on
from align_runtime.console import (
    CommandParser,
    add_device_options,
    add_output_options,
    chosen_device,
    run,
    say,
    say_json,
    table,
)
from align_runtime.devices import Device, backend_of
from align_runtime.errors import BackendUnavailableError
from align_runtime.golden import Golden
from align_runtime.graph_entry import GPU_TARGET, TOWERS
from align_runtime.parity import Parity
from align_runtime.precision import describe
from align_runtime.progress import Progress
from align_runtime.selftest import GraphCheck, Omission, check_graph, check_inputs, choose_graphs, wide_limits

UNKNOWN = "—"


@dataclass(frozen=True)
class Result:
    """What was checked, what was not, and what failed."""

    bundle: Bundle
    device: Device
    expected: Golden
    checks: list[GraphCheck]
    omitted: list[Omission]
    failures: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 all well, 1 a check failed, 2 a wrong call or a damaged bundle."""
    parser = CommandParser(
        prog="align-verify",
        description="Check a bundle: the sha256 of every file, the golden inputs through its own preprocessing, "
        "tokenizer and graphs against the embeddings of the PyTorch reference, and that the MACs counted by the "
        "exporter agree with the precision of each graph. What the device cannot check is listed.",
    )
    add_bundle_arguments(parser)
    parser.add_argument(
        "--precision",
        nargs="+",
        action="extend",
        metavar="PRECISION",
        help="check these alone, e.g. fp32 int8_cpu (default: all that the device runs; a CPU runs all)",
    )
    parser.add_argument(
        "--tower", nargs="+", action="extend", choices=TOWERS, metavar="TOWER", help="vision, text (default: both)"
    )
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
    chosen, omitted = choose_graphs(bundle, device, options.precision or (), options.tower or ())
    files = bundle.manifest.files
    for name in progress.bar("hashes", files, len(files)):
        bundle.check_hash(name)
    expected = golden.read(bundle)
    with progress.phase("preprocessing and tokens"):
        differences = list(check_inputs(bundle, expected))
    checks: list[GraphCheck] = []
    for graph in chosen:
        try:
            with progress.phase(f"{graph.tower} {graph.exact_variant}"):
                checks.append(check_graph(bundle, graph, expected, device, options.threads))
        except BackendUnavailableError as error:  # mostly no engine for this graph
            if options.precision or len(omitted) + 1 == len(bundle.manifest.graphs):  # asked for, or none is left
                raise
            omitted.append(Omission(graph, str(error)))
    failures = differences + [failure for check in checks for failure in check.failures]
    failures += [] if options.accept_limits else wide_limits([check.graph for check in checks])
    result = Result(bundle, device, expected, checks, omitted, failures)
    if options.json:
        say_json(_as_json(result))
    else:
        say(_as_text(result))
    return 1 if failures else 0


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "bundle": str(result.bundle.folder),
        "device": result.device,
        "ok": not result.failures,
        "random_weights": result.bundle.manifest.provenance.random_weights,
        "complete": not result.omitted,
        "files": len(result.bundle.manifest.files),
        "checks": [
            {
                "tower": check.graph.tower,
                "variant": check.graph.variant,
                "target": check.graph.target,
                "file": check.graph.file,
                "parity": None if check.parity is None else check.parity.to_json(),
                "limits": vars(check.graph.limits),
                "content": vars(check.graph.content),
                "ok": not check.failures,
            }
            for check in result.checks
        ],
        "not_checked": [
            {
                "tower": omission.graph.tower,
                "variant": omission.graph.variant,
                "target": omission.graph.target,
                "file": omission.graph.file,
                "reason": omission.reason,
            }
            for omission in result.omitted
        ],
        "failures": result.failures,
    }


def _as_text(result: Result) -> list[str]:
    bundle, expected, device = result.bundle, result.expected, result.device
    rows = [
        [
            check.graph.tower,
            check.graph.variant,
            runs_on(check.graph, bundle.manifest),
            describe(check.graph.content.macs),
            *_distances(check.parity, check.graph.limits.max_abs),
            "FAILED" if check.failures else "ok",
        ]
        for check in result.checks
    ]
    headings = ["tower", "precision", "runs on", "MACs in", "max abs error", "limit", "min cosine", "mean-centred", ""]
    return [
        f"{bundle.folder}: {bundle.manifest.provenance.name}, {len(bundle.manifest.files)} files, every sha256 matches",
        *bundle.manifest.provenance.remarks,
        f"{len(expected.texts)} texts and {len(expected.images)} images on {device} against the PyTorch reference:",
        "",
        *table(headings, rows, right=(4, 5, 6, 7)),
        *_notes(result),
        *(f"FAILED: {failure}" for failure in result.failures),
        "",
        *(f"not checked: {omission.graph.file}: {omission.reason}" for omission in result.omitted),
        f"{_share(result)} checked on {device}: {'failed' if result.failures else 'passed'}",
    ]


def _distances(parity: Parity | None, limit: float) -> list[str]:
    """The cells of a row about the distance from the reference."""
    if parity is None:
        return [UNKNOWN, f"{limit:.0e}", UNKNOWN, UNKNOWN]
    centred = parity.min_centred_cosine
    return [
        f"{parity.max_abs:.2e}",
        f"{limit:.0e}",
        f"{parity.min_cosine:.7f}",
        UNKNOWN if math.isnan(centred) else f"{centred:.7f}",
    ]


def _share(result: Result) -> str:
    """``"all 3 graphs"`` only where that is so."""
    checked, total = len(result.checks), len(result.checks) + len(result.omitted)
    return f"{checked} of {total} graphs" if result.omitted else f"all {total} graphs"


def _notes(result: Result) -> list[str]:
    """What a CPU cannot show of graphs that are made for GPUs."""
    if backend_of(result.device).on_cpu and any(check.graph.target == GPU_TARGET for check in result.checks):
        return [f"Graphs for GPUs were run on {result.device}: this checks the graphs, not the arithmetic of a GPU."]
    return []
