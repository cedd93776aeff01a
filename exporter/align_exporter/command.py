"""``align-export CHECKPOINT -o BUNDLE``: the build step."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from align_exporter.cli.engine_options import add_engine_options, engine_request
from align_exporter.cli.sample_options import add_sample_options, choose
from align_exporter.cli.variant_options import add_variant_options, export_options
from align_exporter.engine.builder import builder_machine
from align_exporter.engine.outcome import EngineOutcome, engines_json, engines_table
from align_exporter.export_options import DEFAULT_OPSET, OPSETS, PIXEL_INPUTS
from align_runtime.bundle import Bundle, check_destination
from align_runtime.bundle_paths import MANIFEST_NAME, REPORT_NAMES
from align_runtime.commands.inspect import graphs_table, island_lines, quantization_lines
from align_runtime.console import CommandParser, Progress, add_output_options, run
from align_runtime.errors import BackendUnavailableError
from align_runtime.manifest import Manifest


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a gate failed, 2 a wrong call or input. No bundle unless 0."""
    parser = CommandParser(
        prog="align-export",
        description="Turn an ALIGN checkpoint into a bundle: a text and a vision ONNX graph, proven equal to the "
        "PyTorch reference, with preprocessing and tokenizer frozen beside them.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="folder in Hugging Face layout, or a hub id (kakaobrain/align-base)",
    )
    parser.add_argument("-o", "--output", metavar="BUNDLE", type=Path, required=True, help="folder to write")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read pytorch_model.bin (torch's weights-only loader); safetensors is preferred where both are there",
    )
    parser.add_argument(
        "--pixel-input",
        choices=PIXEL_INPUTS,
        default="uint8",
        help="uint8: the graph takes RGB bytes (batch, height, width, 3) and normalises them; float32: it takes "
        "normalised pixel_values (batch, 3, height, width) (default: uint8)",
    )
    parser.add_argument(
        "--opset", type=int, choices=OPSETS, default=DEFAULT_OPSET, help=f"ONNX opset (default: {DEFAULT_OPSET})"
    )
    add_variant_options(parser)
    add_sample_options(parser)
    add_engine_options(parser)
    parser.add_argument("--force", action="store_true", help="build even if the bundle is up to date")
    add_output_options(parser)
    return run(parser, arguments, _export)


def _export(options: argparse.Namespace) -> int:
    start = time.monotonic()
    progress = Progress(options.quiet or options.json)
    check_destination(options.output)
    export = export_options(options)
    engines = engine_request(options)
    machine = None if engines is None else builder_machine()  # before minutes of exporting
    outcomes: list[EngineOutcome] = []
    try:
        from align_exporter.freshness import provenance, staleness
        from align_reference.source import resolve

        with progress.phase(f"find {options.checkpoint}"):
            source = resolve(
                options.checkpoint,
                options.revision,
                allow_pickle=options.allow_pickle,
                quiet=options.quiet or options.json,
            )
        export = replace(export, samples=choose(options, progress))
        with progress.phase("compare with the bundle that is there"):
            wanted = provenance(source, export)
            reason = "--force" if options.force else staleness(options.output, wanted)
        if reason is None:
            manifest = Bundle.open(options.output).manifest
            (options.output / MANIFEST_NAME).touch()  # for make, which compares times
        else:
            from align_exporter.pipeline import build

            manifest = build(source, wanted, options.output, export, progress)
        if engines is not None and machine is not None:
            from align_exporter.engine.build import build_engines

            outcomes = build_engines(options.output, engines, machine, options.force, progress)
    except (ModuleNotFoundError, PackageNotFoundError) as error:
        raise BackendUnavailableError(
            f"the package {error.name!r} is missing; install what exporting needs with: "
            "pip install 'align-onnx[export]'"
        ) from None
    seconds = time.monotonic() - start
    if options.json:
        engines_built = engines_json(outcomes)
        print(json.dumps(_as_json(options.output, manifest, reason, seconds) | {"engines": engines_built}))
    elif not options.quiet:
        print(_as_text(options.output, manifest, reason, seconds))
        if outcomes:
            print(f"\n{engines_table(outcomes)}")
    return 0


def _as_json(output: Path, manifest: Manifest, reason: str | None, seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(output),
        "built": reason is not None,
        "reason": reason,
        "seconds": round(seconds, 3),
        "graphs": [
            {
                "tower": graph.tower,
                "variant": graph.variant,
                "target": graph.target,
                "file": graph.file,
                "data": graph.data,
                "bytes": manifest.graph_bytes(graph),
                "sha256": manifest.files[graph.file].sha256,
                "parity": graph.parity.to_json(),
                "limits": vars(graph.limits),
                "content": asdict(graph.content),
                "islands": [asdict(island) for island in graph.islands],
                "quantization": asdict(graph.quantization) if graph.quantization else None,
            }
            for graph in manifest.graphs
        ],
    }


def _as_text(output: Path, manifest: Manifest, reason: str | None, seconds: float) -> str:
    if reason is None:
        return f"{output} is up to date: same checkpoint, options and tools (--force builds it all the same)"
    lines = [f"{output}: {manifest.provenance.name} in {seconds:.1f} s", "", graphs_table(manifest)]
    lines += [*island_lines(manifest), *quantization_lines(manifest)]
    return "\n".join([*lines, "", f"the whole story: {output / REPORT_NAMES[0]}"])
