"""The options of ``align-export`` that choose variants and what is allowed of them, and all options, checked."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from align_exporter.cache_options import add_cache_options, calibration_cache
from align_exporter.options import FP16_HEADROOM, ExportOptions
from align_exporter.sample_options import check_sample_options
from align_runtime.errors import ConfigurationError


def add_variant_options(parser: argparse.ArgumentParser) -> None:
    """What is built beside the FP32 graphs, and what the parity gate allows."""
    _add_fp16_options(parser)
    _add_int8_options(parser)
    _add_gate_options(parser)


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
        help="operators that stay FP32 too, by name (*, ?, [...]); may be repeated, and has to leave FP16 half of the "
        "products",
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
    add_cache_options(group)


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


def export_options(options: argparse.Namespace) -> ExportOptions:
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
        calibration_cache=calibration_cache(options),
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
