"""The options of ``align-export`` for FP16 values: which operators stay FP32."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from align_exporter.export_options import FP16_HEADROOM, ExportOptions
from align_runtime.errors import ConfigurationError


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
