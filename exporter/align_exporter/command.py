"""``align-export CHECKPOINT -o BUNDLE``: the build step."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from align_exporter.cli.calibration_options import read_dataset
from align_exporter.cli.engine_options import engine_request
from align_exporter.cli.options import add_options, read_options
from align_exporter.engine.request import EngineOutcome, engines_json, engines_table
from align_exporter.engine.toolkits import open_toolkits
from align_exporter.export_options import ExportOptions
from align_exporter.variants import FP32, INT8, VARIANTS
from align_runtime.bundle import Bundle
from align_runtime.bundle_writing import prepare_destination
from align_runtime.commands.inspect import graphs_table, island_lines, quantization_lines
from align_runtime.console import CommandParser, run, say, say_json
from align_runtime.errors import BackendUnavailableError, BuildError, BundleError
from align_runtime.manifest import MANIFEST_NAME, REPORT_NAMES, Manifest
from align_runtime.progress import Progress

INT8_TOO = "; the accuracy of INT8 above all: its graphs are not held to any limit"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a check failed, 2 a wrong call or input. No bundle unless 0."""
    parser = CommandParser(
        prog="align-export",
        description="Turn an ALIGN checkpoint into a bundle: a text and a vision ONNX graph, compared with the PyTorch "
        "reference, with preprocessing and tokenizer frozen beside them.",
    )
    add_options(parser)
    return run(parser, arguments, _export)


def _export(options: argparse.Namespace) -> int:
    start = time.monotonic()
    progress = Progress(options.quiet or options.json)
    prepare_destination(options.output)
    export = read_options(options)
    engines = engine_request(options, (FP32, *(row.name for row in export.variants if row.is_for_tensorrt)))
    toolkits = () if engines is None else open_toolkits(engines)  # before minutes of exporting
    outcomes: list[EngineOutcome] = []
    try:
        from align_exporter.freshness import provenance, staleness
        from align_reference.source import resolve, resolve_configuration

        with progress.phase(f"find {options.checkpoint}"):
            if export.random_weights is None:
                source = resolve(
                    options.checkpoint,
                    options.revision,
                    allow_pickle=options.allow_pickle,
                    quiet=options.quiet or options.json,
                )
            else:
                source = resolve_configuration(options.checkpoint)
        export = replace(export, dataset=read_dataset(options, progress), engines=engines)
        with progress.phase("compare with the existing bundle"):
            wanted = provenance(source, export)
            reason = _asked_for(options) or staleness(options.output, wanted)
        if wanted.random_words is not None:
            progress.warn(f"{wanted.random_words}{INT8_TOO if INT8 in export.precisions else ''}")
        if reason is None:
            manifest = Bundle.open(options.output).manifest
            _check_recorded_speed(manifest, export)
            (options.output / MANIFEST_NAME).touch()  # for make, which compares times
        else:
            from align_exporter.pipeline import build_bundle

            _tell_of_rebuild(options.output, reason, export, progress)
            manifest = build_bundle(source, wanted, options.output, export, progress)
        if engines is not None:
            from align_exporter.engine.build import build_engines

            outcomes = build_engines(options.output, engines, toolkits, options.force, progress)
    except (ModuleNotFoundError, PackageNotFoundError) as error:
        raise BackendUnavailableError(
            f"the package {error.name!r} is missing; install what exporting needs with: "
            "pip install 'align-onnx[export]'"
        ) from None
    seconds = time.monotonic() - start
    if options.json:
        engines_built = engines_json(outcomes)
        say_json(_as_json(options.output, manifest, reason, seconds) | {"engines": engines_built})
    elif not options.quiet:
        say(_as_text(options.output, manifest, reason, seconds))
        if outcomes:
            say(["", *engines_table(outcomes)])
    return 0


def _asked_for(options: argparse.Namespace) -> str | None:
    """The option that builds the bundle although it may be up to date."""
    return "--force" if options.force else "--dump-graph" if options.dump_graph else None


def _check_recorded_speed(manifest: Manifest, export: ExportOptions) -> None:
    """``--require-faster`` for a bundle that is not built again: its speed was measured when it was built."""
    for graph in manifest.graphs if export.require_faster else ():
        speedup = None if graph.quantization is None else graph.quantization.speedup
        if speedup is not None and not speedup > 1:
            raise BuildError(
                f"{graph.file} was {speedup:.2f} × as fast as the float graphs when it was built; leave --int8 out, "
                "drop --require-faster, or measure again with --force"
            )


def _tell_of_rebuild(output: Path, reason: str, export: ExportOptions, progress: Progress) -> None:
    """Why an existing bundle is built again, and which of its variants the new one will not have."""
    try:
        graphs = Bundle.open(output).manifest.graphs
    except BundleError:
        return
    progress.warn(f"building {output} again: {reason}")
    kept = {(row.name, row.target) for row in VARIANTS if row.builder is None or row in export.variants}
    gone = dict.fromkeys(graph.exact_variant for graph in graphs if (graph.variant, graph.target) not in kept)
    if gone:
        progress.warn(f"the new bundle will not have {', '.join(gone)}; add the options that build them to keep them")


def _as_json(output: Path, manifest: Manifest, reason: str | None, seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(output),
        "built": reason is not None,
        "reason": reason,
        "seconds": round(seconds, 3),
        "random_weights": manifest.provenance.random_weights,
        "notes": list(manifest.provenance.notes),
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


def _as_text(output: Path, manifest: Manifest, reason: str | None, seconds: float) -> list[str]:
    provenance = manifest.provenance
    if reason is None:
        state = f"{output} is up to date: same checkpoint, options and tools (--force builds it anyway)"
        return [state, *provenance.remarks]
    sections: Sequence[Sequence[str]] = (
        [f"{output}: {provenance.name} in {seconds:.1f} s"],
        [] if provenance.random_words is None else [provenance.random_words],
        graphs_table(manifest),
        [*island_lines(manifest), *quantization_lines(manifest)],
        [f"full report: {output / REPORT_NAMES[0]}"],
    )
    return [line for lines in sections if lines for line in ("", *lines)][1:]
