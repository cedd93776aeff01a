"""The options of ``align-export`` that choose variants and what is allowed of them, and all options, checked."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from align_exporter.cli.cache_options import add_cache_options, calibration_cache
from align_exporter.cli.sample_options import check_sample_options
from align_exporter.export_options import FP16_HEADROOM, INT8_OPSET, INT8_TARGETS, ExportOptions
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
        help="also write INT8 graphs: for CPUs, where they have to be faster than the float ones on this machine, and "
        "for TensorRT, whose speed is not measured. Calibrated on --images (default: the few sample images) and on "
        "the sample captions with --captions",
    )
    group.add_argument(
        "--int8-target", choices=INT8_TARGETS, default=INT8_TARGETS[0], help="for which devices (default: all)"
    )
    group.add_argument(
        "--target-cosine",
        metavar="X",
        type=float,
        help="cosine with the float graph, as it is and mean-centred, the mean but for the worst fiftieth, that INT8 "
        "graphs have to reach on every fourth image and caption, which then are not calibrated on. Parts stay float "
        "until they do, as few as possible",
    )
    group.add_argument(
        "--target-agreement",
        metavar="SHARE",
        type=float,
        help="the same of decisions: the share of these samples whose nearest one of the other tower stays the same",
    )
    group.add_argument(
        "--keep-slower", action="store_true", help="keep INT8 graphs for CPUs that are not faster; recorded"
    )
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
    int8_for_gpu = options.int8 and options.int8_target != "cpu"
    if not (options.fp16 or int8_for_gpu) and (options.fp16_keep or options.fp16_headroom != FP16_HEADROOM):
        raise ConfigurationError(
            "--fp16-keep and --fp16-headroom do nothing without --fp16 or --int8 for GPUs; add one or leave them out"
        )
    if not 1 <= options.fp16_headroom < math.inf:
        raise ConfigurationError(f"--fp16-headroom is {options.fp16_headroom:g}; a number of at least 1 is needed")
    has_target = (options.target_cosine, options.target_agreement) != (None, None)
    check_sample_options(options, int8_for_gpu or (options.int8 and has_target))
    if int8_for_gpu and options.opset < INT8_OPSET:
        raise ConfigurationError(
            f"--int8 is given with --opset {options.opset}; {INT8_OPSET} or later is needed: the graph for TensorRT "
            "quantises FP16 values (--int8-target cpu leaves it out)"
        )
    _check_int8_options(options)
    export = ExportOptions(
        pixel_input=options.pixel_input,
        opset=options.opset,
        allow_pickle=options.allow_pickle,
        fp16=options.fp16,
        fp16_keep=tuple(options.fp16_keep),
        fp16_headroom=options.fp16_headroom,
        int8=options.int8,
        int8_target=options.int8_target,
        target_cosine=options.target_cosine,
        target_agreement=options.target_agreement,
        keep_slower=options.keep_slower,
        calibration_cache=calibration_cache(options),
    )
    return replace(
        export,
        max_abs=_by_variant("--max-abs", options.max_abs, export.variants),
        min_cosine=_by_variant("--min-cosine", options.min_cosine, export.variants),
    )


def _check_int8_options(options: argparse.Namespace) -> None:
    targets = {"--target-cosine": options.target_cosine, "--target-agreement": options.target_agreement}
    asked = {name: value for name, value in targets.items() if value is not None}
    idle = not asked and options.int8_target == INT8_TARGETS[0] and not options.keep_slower
    if not options.int8 and not idle:
        raise ConfigurationError(
            f"{', '.join(targets)}, --int8-target and --keep-slower do nothing without --int8; add it or leave them out"
        )
    for name, value in asked.items():
        if not 0 <= value <= 1:
            raise ConfigurationError(f"{name} is {value:g}; a number between 0 and 1 is needed")
    if asked and options.images is None:
        raise ConfigurationError(
            f"{' and '.join(asked)}: a target is checked on images that are kept out of the calibration, and the "
            "built-in ones are too few for that; name some with --images"
        )
