"""The options of ``align-export`` that replace limits of the parity gate."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

from align_exporter.export_options import ExportOptions
from align_exporter.variants import FP32
from align_runtime.errors import ConfigurationError


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
        parity_max_abs=_by_precision("--parity-max-abs", options.parity_max_abs, built),
        parity_min_cosine=_by_precision("--parity-min-cosine", options.parity_min_cosine, built),
    )


def _by_precision(option: str, entries: Sequence[str], built: Sequence[str]) -> dict[str, float]:
    """``["fp16=0.01"]`` → ``{"fp16": 0.01}``; a value without a precision is for all that are built."""
    values: dict[str, float] = {}
    for entry in entries:
        precision, separator, number = entry.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (separator and precision not in built):
            raise ConfigurationError(
                f"{option}: expected a number, alone or as PRECISION=NUMBER with {' or '.join(built)}, got {entry!r}"
            )
        values |= dict.fromkeys([precision] if separator else built, value)
    return values
