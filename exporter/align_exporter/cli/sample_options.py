"""The options of ``align-export`` that name samples of the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from align_runtime.console import Progress
from align_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from align_calibration.dataset.calibration_dataset import CalibrationDataset

SAMPLES = 512
SEED = 0


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    """``--images``, ``--captions``, ``--samples`` and ``--samples-seed``."""
    group = parser.add_argument_group(
        "samples of your own",
        "What --fp16 measures the range of every tensor on, besides the built-in samples, and --int8 is calibrated on. "
        "The bundle records which were used (samples.json), not the data.",
    )
    group.add_argument(
        "--images",
        metavar="PATH",
        type=Path,
        help="a folder and all in it, a list of paths from the list's folder (.txt), or an archive, which is not "
        "extracted (.zip, .tar, .tar.gz, .tgz)",
    )
    group.add_argument(
        "--captions",
        metavar="FILE",
        type=Path,
        help="one a line (.txt), or under 'caption' or 'text' in JSON lines (.jsonl) or a table with a heading (.csv)",
    )
    group.add_argument(
        "--samples", metavar="N", type=int, default=SAMPLES, help=f"at most so many of each (default: {SAMPLES})"
    )
    group.add_argument(
        "--samples-seed", metavar="SEED", type=int, default=SEED, help=f"which of them are drawn (default: {SEED})"
    )


def check_sample_options(options: argparse.Namespace, captions_for_int8: bool) -> None:
    """Raises ConfigurationError where one is out of range or does nothing.

    Args:
        captions_for_int8: whether INT8 as it was asked for takes captions.
    """
    named = options.images is not None or options.captions is not None
    used = {"images": options.fp16 or options.int8, "captions": options.fp16 or captions_for_int8}
    for name, is_used in used.items():
        if getattr(options, name) is not None and not is_used:
            raise ConfigurationError(
                f"--{name} does nothing without --fp16 or --int8"
                f"{' for GPUs or a target' if name == 'captions' and options.int8 else ''}; add one or leave it out"
            )
    if not named and (options.samples, options.samples_seed) != (SAMPLES, SEED):
        raise ConfigurationError("--samples and --samples-seed do nothing without --images or --captions")
    if options.samples < 1:
        raise ConfigurationError(f"--samples is {options.samples}; a number of at least 1 is needed")


def choose(options: argparse.Namespace, progress: Progress) -> CalibrationDataset | None:
    """The samples that are named; None where none are.

    Raises:
        ConfigurationError: see `select_dataset`.
    """
    if options.images is None and options.captions is None:
        return None
    from align_calibration.dataset.calibration_dataset import select_dataset

    with progress.phase("choose samples"):
        return select_dataset(options.images, options.captions, options.samples, options.samples_seed)
