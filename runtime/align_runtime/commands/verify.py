"""``align-verify BUNDLE``: the bundle's self-test, without torch."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from align_runtime import golden
from align_runtime.backends import resolve_device
from align_runtime.bundle import Bundle
from align_runtime.console import CommandParser, Progress, add_device_options, add_output_options, run, table
from align_runtime.graph_entry import targets_on
from align_runtime.precision import describe
from align_runtime.selftest import GraphCheck, check_graph, check_inputs


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 all well, 1 a check failed, 2 a wrong call or a damaged bundle."""
    parser = CommandParser(
        prog="align-verify",
        description="Check a bundle: every file's hash, the types that its graphs compute in, and its golden inputs "
        "through its own preprocessing, tokenizer and graphs against the embeddings of the PyTorch reference.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that align-export wrote")
    add_device_options(parser)
    add_output_options(parser)
    return run(parser, arguments, _verify)


def _verify(options: argparse.Namespace) -> int:
    progress = Progress(options.quiet or options.json)
    bundle, device = Bundle.open(options.bundle), resolve_device(options.device)
    files = bundle.manifest.files
    for name in progress.bar("hashes", files, len(files)):
        bundle.check_hash(name)
    expected = golden.read(bundle)
    with progress.phase("preprocessing and tokens"):
        differences = list(check_inputs(bundle, expected))
    checks = []
    for graph in bundle.graphs_on(options.device):
        with progress.phase(f"{graph.tower} {graph.variant} ({graph.target})"):
            checks.append(check_graph(bundle, graph, expected, device, options.threads))
    failures = differences + [failure for check in checks for failure in check.failures]
    if options.json:
        print(json.dumps(_as_json(bundle, checks, failures)))
    else:
        _print(bundle, len(expected.texts), len(expected.images), checks, failures, options.device)
    return 1 if failures else 0


def _as_json(bundle: Bundle, checks: list[GraphCheck], failures: list[str]) -> dict[str, Any]:
    return {
        "bundle": str(bundle.folder),
        "ok": not failures,
        "files": len(bundle.manifest.files),
        "checks": [
            {
                "tower": check.tower,
                "variant": check.variant,
                "target": check.target,
                "parity": check.parity.to_json(),
                "limits": vars(check.limits),
                "content": vars(check.content),
                "ok": not check.failures,
            }
            for check in checks
        ],
        "failures": failures,
    }


def _print(bundle: Bundle, texts: int, images: int, checks: list[GraphCheck], failures: list[str], device: str) -> None:
    rows = [
        [
            check.tower,
            check.variant,
            check.target,
            describe(check.content.macs),
            f"{check.parity.max_abs:.2e}",
            f"{check.limits.max_abs:.0e}",
            f"{check.parity.min_cosine:.7f}",
            "—" if math.isnan(check.parity.min_centred_cosine) else f"{check.parity.min_centred_cosine:.7f}",
            "FAILED" if check.failures else "ok",
        ]
        for check in checks
    ]
    headings = ["tower", "variant", "target", "computes in", "max abs", "allowed", "min cosine", "mean-centred", ""]
    print(
        f"{bundle.folder}: {bundle.manifest.provenance.name}, {len(bundle.manifest.files)} files with the right hashes"
    )
    print(f"{texts} texts and {images} images against the embeddings of the PyTorch reference:\n")
    print(table(headings, rows, right=(4, 5, 6, 7)))
    for line in _elsewhere(checks, device):
        print(line)
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"\n{'failed' if failures else 'all checks passed'}")


def _elsewhere(checks: list[GraphCheck], device: str) -> list[str]:
    """A line for every target whose graphs were run on a `device` that is another."""
    targets = dict.fromkeys(check.target for check in checks)
    others = [target for target in targets if target not in targets_on(device)]
    return [
        f"made for {target}, run on {device}: checked is what the graphs say, not how {target} computes them"
        for target in others
    ]
