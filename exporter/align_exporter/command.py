"""``align-export CHECKPOINT -o BUNDLE``: the build step."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from align_exporter.options import DEFAULT_OPSET, FP16_HEADROOM, OPSETS, PIXEL_INPUTS, ExportOptions
from align_exporter.sample_options import add_sample_options, check_sample_options, choose
from align_runtime.bundle import Bundle, check_destination
from align_runtime.bundle_paths import MANIFEST_NAME, REPORT_NAMES
from align_runtime.commands.inspect import graphs_table, island_lines, quantization_lines
from align_runtime.console import Progress, add_output_options, run
from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.manifest import Manifest


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a gate failed, 2 a wrong call or input. No bundle unless 0."""
    parser = argparse.ArgumentParser(
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
    _add_fp16_options(parser)
    add_sample_options(parser)
    _add_int8_options(parser)
    _add_gate_options(parser)
    parser.add_argument("--force", action="store_true", help="build even if the bundle is up to date")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    return run("align-export", lambda: _export(options))


def _add_fp16_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("FP16")
    group.add_argument(
        "--fp16",
        action="store_true",
        help="also write FP16 graphs; what FP16 cannot hold on the samples stays FP32 and is listed",
    )
    group.add_argument(
        "--fp16-keep",
        metavar="PATTERN",
        action="append",
        default=[],
        help="operators that stay FP32 too, by name (*, ?, [...]); may be repeated",
    )
    group.add_argument(
        "--fp16-headroom",
        metavar="FACTOR",
        type=float,
        default=FP16_HEADROOM,
        help="a tensor whose largest value on the samples times this exceeds 65504 stays FP32 "
        f"(default: {FP16_HEADROOM:g})",
    )


def _add_int8_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("INT8")
    group.add_argument(
        "--int8",
        action="store_true",
        help="also write INT8 graphs for CPUs, calibrated on --pictures (default: the few sample pictures); they have "
        "to be faster than the float ones on this machine",
    )
    group.add_argument(
        "--target-cosine",
        metavar="X",
        type=float,
        help="smallest cosine with the reference, as it is and mean-centred, that the INT8 graphs have to reach "
        "(default: the gate's table)",
    )
    group.add_argument("--keep-slower", action="store_true", help="keep INT8 graphs that are not faster; recorded")


def _add_gate_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parity gate", "What is allowed in place of the table; recorded in the bundle.")
    for option, meaning in (
        ("--max-abs", "largest difference of a component from the reference"),
        ("--min-cosine", "smallest cosine with the reference, as it is and mean-centred"),
    ):
        group.add_argument(option, metavar="[VARIANT=]VALUE", action="append", default=[], help=meaning)


def _by_variant(option: str, entries: list[str], built: tuple[str, ...]) -> dict[str, float]:
    """``["fp16=0.01"]`` → ``{"fp16": 0.01}``; a value without a variant is for all that are built."""
    values: dict[str, float] = {}
    for entry in entries:
        variant, separator, number = entry.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (separator and variant not in built):
            raise ConfigurationError(
                f"{option} is {entry!r}; a number is needed, alone or as VARIANT=NUMBER with one of the variants that "
                f"are built: {', '.join(built)}"
            )
        values |= dict.fromkeys([variant] if separator else built, value)
    return values


def _export_options(options: argparse.Namespace) -> ExportOptions:
    """The checked options of an export.

    Raises:
        ConfigurationError: an option out of range, or one for FP16 or INT8 without ``--fp16`` or ``--int8``.
    """
    if not options.fp16 and (options.fp16_keep or options.fp16_headroom != FP16_HEADROOM):
        raise ConfigurationError("--fp16-keep and --fp16-headroom do nothing without --fp16; add it or leave them out")
    if not 1 <= options.fp16_headroom < math.inf:
        raise ConfigurationError(f"--fp16-headroom is {options.fp16_headroom:g}; a number of at least 1 is needed")
    check_sample_options(options)
    if not options.int8 and (options.target_cosine is not None or options.keep_slower):
        raise ConfigurationError(
            "--target-cosine and --keep-slower do nothing without --int8; add it or leave them out"
        )
    export = ExportOptions(
        pixel_input=options.pixel_input,
        opset=options.opset,
        allow_pickle=options.allow_pickle,
        fp16=options.fp16,
        fp16_keep=tuple(options.fp16_keep),
        fp16_headroom=options.fp16_headroom,
        int8=options.int8,
        keep_slower=options.keep_slower,
    )
    return replace(
        export,
        max_abs=_by_variant("--max-abs", options.max_abs, export.variants),
        min_cosine=_by_variant("--min-cosine", options.min_cosine, export.variants)
        | _target("--target-cosine", options.target_cosine),
    )


def _target(option: str, cosine: float | None) -> dict[str, float]:
    if cosine is None:
        return {}
    if not -1 <= cosine <= 1:
        raise ConfigurationError(f"{option} is {cosine:g}; a cosine between -1 and 1 is needed")
    return {"int8": cosine}


def _export(options: argparse.Namespace) -> int:
    start = time.monotonic()
    progress = Progress(options.quiet or options.json)
    check_destination(options.output)
    export = _export_options(options)
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
            from align_exporter.build import build

            manifest = build(source, wanted, options.output, export, progress)
    except (ModuleNotFoundError, PackageNotFoundError) as error:
        raise BackendUnavailableError(
            f"the package {error.name!r} is missing; install what exporting needs with: "
            "pip install 'align-onnx[export]'"
        ) from None
    seconds = time.monotonic() - start
    if options.json:
        print(json.dumps(_as_json(options.output, manifest, reason, seconds)))
    elif not options.quiet:
        print(_as_text(options.output, manifest, reason, seconds))
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
