"""The options of ``align-export``, added and read group by group: here the general ones, FP16 and the parity gate."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align_exporter.cli.calibration_options import add_calibration_options, check_calibration_options
from align_exporter.cli.engine_options import add_engine_options
from align_exporter.cli.int8_options import add_int8_options, read_int8_options
from align_exporter.export_options import (
    DEFAULT_OPSET,
    FP16_HEADROOM,
    GRAPH_STAGES,
    OPSETS,
    PIXEL_INPUTS,
    ExportOptions,
)
from align_exporter.variants import FP32, PRECISIONS
from align_runtime.console import add_output_options
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.manifest import MAX_SEED
from align_runtime.parity import MAX_DIFFERENCE
from align_runtime.user_path import user_path


def add_options(parser: argparse.ArgumentParser) -> None:
    """All arguments of the command."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="folder in Hugging Face layout, or a hub id (kakaobrain/align-base)")
    add("-o", "--output", metavar="BUNDLE", type=user_path, required=True, help="folder to write")
    add("--revision", help="branch, tag or commit of a hub id")
    add(
        "--allow-pickle",
        action="store_true",
        help="also read pytorch_model.bin (torch's weights-only loader); safetensors is preferred where both exist",
    )
    add(
        "--random-weights",
        metavar="SEED",
        type=int,
        help="for latency and memory without a checkpoint: CHECKPOINT is a folder with only a config.json (or its "
        "path); the weights are random, from SEED, and a tokenizer and preprocessing stand in where files are missing",
    )
    add(
        "--ignore-unknown-keys",
        action="store_true",
        help="ignore keys of config.json, tokenizer_config.json and preprocessor_config.json that are unknown here, "
        "instead of refusing them; each is listed and recorded in the bundle",
    )
    add(
        "--pixel-input",
        choices=PIXEL_INPUTS,
        default="uint8",
        help="uint8: the graph takes RGB bytes (batch, height, width, 3) and normalizes them; float32: it takes "
        "normalized pixel_values (batch, 3, height, width) (default: uint8)",
    )
    add("--opset", type=int, choices=OPSETS, default=DEFAULT_OPSET, help=f"ONNX opset (default: {DEFAULT_OPSET})")
    group = parser.add_argument_group("precisions", "FP32 graphs are always written.")
    for name, text in PRECISIONS.items():
        group.add_argument(f"--{name}", action="store_true", help=text)
    add_fp16_options(parser)
    add_int8_options(parser)
    add_calibration_options(parser)
    add_parity_options(parser)
    add_engine_options(parser)
    add("--force", action="store_true", help="build even if the bundle is up to date")
    add(
        "--dump-graph",
        nargs=2,
        metavar=("STAGE", "FILE"),
        help=f"also write the FP32 graphs as they are at a stage ({' or '.join(GRAPH_STAGES)}) beside FILE, to see "
        "what a pass gets or gives; graph.onnx becomes graph.vision_model.onnx, graph.text_model.onnx and so on",
    )
    add_output_options(parser)


def read_options(options: argparse.Namespace) -> ExportOptions:
    """The checked options, without the calibration dataset, which is read later.

    Raises:
        ConfigurationError: a value out of range, or an option that does nothing without another one.
    """
    export = ExportOptions(
        precisions=tuple(name for name in PRECISIONS if getattr(options, name)),
        pixel_input=options.pixel_input,
        opset=options.opset,
        allow_pickle=options.allow_pickle,
        ignore_unknown_keys=options.ignore_unknown_keys,
        random_weights=_random_weights(options),
        dump_graph=_dump_graph(options.dump_graph),
    )
    export = read_int8_options(options, export)
    export = read_fp16_options(options, export)
    check_calibration_options(options, export)
    for row in export.variants:
        if options.opset < row.min_opset:
            raise ConfigurationError(
                f"--{row.name} for {row.target} devices needs --opset {row.min_opset} or later, got {options.opset} "
                f"(--{row.name}-device leaves it out)"
            )
    return read_parity_options(options, export)


def _random_weights(options: argparse.Namespace) -> int | None:
    seed: int | None = options.random_weights
    if seed is None:
        return None
    if not 0 <= seed <= MAX_SEED:
        raise ConfigurationError(f"--random-weights: expected a seed of 0 to {MAX_SEED}, got {shortened(seed)}")
    for option, given in (("--allow-pickle", options.allow_pickle), ("--revision", options.revision is not None)):
        if given:
            raise ConfigurationError(
                f"{option} has no effect with --random-weights, which reads no weights; leave it out"
            )
    return seed


def _dump_graph(given: list[str] | None) -> tuple[str, Path] | None:
    if given is None:
        return None
    stage, file = given[0], user_path(given[1])
    if stage not in GRAPH_STAGES:
        raise ConfigurationError(f"--dump-graph: expected {' or '.join(GRAPH_STAGES)}, got {stage!r}")
    if not file.suffix or not file.absolute().parent.is_dir():
        raise ConfigurationError(f"--dump-graph: expected a file such as graph.onnx in an existing folder, got {file}")
    return stage, file


def add_fp16_options(parser: argparse.ArgumentParser) -> None:
    """``--fp16-keep`` and ``--fp16-headroom``."""
    group = parser.add_argument_group(
        "FP16", "For --fp16, and for --int8 graphs for TensorRT, which are FP16 elsewhere."
    )
    group.add_argument(
        "--fp16-keep",
        metavar="PATTERN",
        action="append",
        default=[],
        help="operators that stay FP32 too, by name (*, ?, [...]); may be repeated, and has to leave at least half of "
        "the MACs in FP16",
    )
    group.add_argument(
        "--fp16-headroom",
        metavar="FACTOR",
        type=float,
        default=FP16_HEADROOM,
        help="a tensor stays FP32 if its largest value on the calibration inputs times this exceeds the FP16 maximum, "
        f"65504 (default: {FP16_HEADROOM:g})",
    )


def read_fp16_options(options: argparse.Namespace, export: ExportOptions) -> ExportOptions:
    """`export` with these options.

    Raises:
        ConfigurationError: a factor out of range, or an option that does nothing because no graph has FP16 values.
    """
    given = options.fp16_keep or options.fp16_headroom != FP16_HEADROOM
    if given and not any(row.has_fp16 for row in export.variants):
        raise ConfigurationError(
            "--fp16-keep and --fp16-headroom have no effect without --fp16 or --int8 for TensorRT; add one of these or "
            "leave them out"
        )
    if not 1 <= options.fp16_headroom < math.inf:
        raise ConfigurationError(f"--fp16-headroom: expected 1 or more, got {options.fp16_headroom:g}")
    return replace(export, fp16_keep=tuple(options.fp16_keep), fp16_headroom=options.fp16_headroom)


def add_parity_options(parser: argparse.ArgumentParser) -> None:
    """``--parity-max-abs`` and ``--parity-min-cosine``."""
    group = parser.add_argument_group(
        "parity gate", "Limits in place of the built-in ones, for all precisions or for one; recorded in the bundle."
    )
    for option, meaning in (
        ("--parity-max-abs", "largest difference of an embedding's component from the reference"),
        ("--parity-min-cosine", "smallest cosine with the reference, plain and mean-centred"),
    ):
        group.add_argument(option, metavar="[PRECISION=]VALUE", action="append", default=[], help=meaning)


def read_parity_options(options: argparse.Namespace, export: ExportOptions) -> ExportOptions:
    """`export` with these options.

    Raises:
        ConfigurationError: no finite number, or a precision that is not built.
    """
    built = (FP32, *export.precisions)
    return replace(
        export,
        parity_max_abs=_by_precision("--parity-max-abs", options.parity_max_abs, built, (0, MAX_DIFFERENCE)),
        parity_min_cosine=_by_precision("--parity-min-cosine", options.parity_min_cosine, built, (-1, 1)),
    )


def _by_precision(
    option: str, entries: Sequence[str], built: Sequence[str], bounds: tuple[float, float]
) -> dict[str, float]:
    """``["fp16=0.01"]`` → ``{"fp16": 0.01}``; a value without a precision is for all that are built."""
    least, most = bounds
    values: dict[str, float] = {}
    for entry in entries:
        precision, separator, number = entry.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (separator and precision not in built):  # NaN never is
            raise ConfigurationError(
                f"{option}: expected a number from {least:g} to {most:g}, alone or as PRECISION=NUMBER with "
                f"{' or '.join(built)}, got {entry!r}"
            )
        values |= dict.fromkeys([precision] if separator else built, value)
    return values
