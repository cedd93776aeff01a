"""The options of ``align-export`` that name the calibration dataset."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from align_exporter.export_options import ExportOptions
from align_exporter.variants import INT8
from align_runtime.commands.image_arguments import add_image_options, chosen_images
from align_runtime.errors import ConfigurationError
from align_runtime.image_options import DEFAULT_IMAGES
from align_runtime.progress import Progress
from align_runtime.user_path import user_path

if TYPE_CHECKING:
    from align_calibration.dataset.calibration_dataset import CalibrationDataset

MAX_SAMPLES = 512
SEED = 0


def add_calibration_options(parser: argparse.ArgumentParser) -> None:
    """The dataset's images and captions, how many of them, and the seed of the selection."""
    group = parser.add_argument_group(
        "calibration dataset",
        "Images and captions like those of the service: activation ranges for --fp16, besides the built-in samples, "
        "and the scales of --int8 are measured on them. The bundle records their names and hashes, not the data.",
    )
    group.add_argument(
        "--calibration-images",
        metavar="PATH",
        type=user_path,
        help="a folder with all its subfolders, a list of paths relative to the list (.txt), or an archive, which is "
        "not extracted (.zip, .tar, .tar.gz, .tgz)",
    )
    group.add_argument(
        "--calibration-captions",
        metavar="FILE",
        type=user_path,
        help="one per line (.txt), or under 'caption' or 'text' in JSON lines (.jsonl) or a table with a header (.csv)",
    )
    group.add_argument(
        "--max-calibration-samples",
        metavar="N",
        type=int,
        default=MAX_SAMPLES,
        help=f"at most this many images and this many captions (default: {MAX_SAMPLES})",
    )
    group.add_argument(
        "--calibration-seed", metavar="SEED", type=int, default=SEED, help=f"of the random selection (default: {SEED})"
    )
    add_image_options(group)


def check_calibration_options(options: argparse.Namespace, export: ExportOptions) -> None:
    """Raises ConfigurationError where one is out of range, has no effect, or names nothing."""
    has_fp16 = any(row.has_fp16 for row in export.variants)
    has_effect = {
        "--calibration-images": (options.calibration_images, bool(export.variants)),
        "--calibration-captions": (options.calibration_captions, has_fp16 or export.has_int8_target),
    }
    for name, (path, effect) in has_effect.items():
        if path is None:
            continue
        if not effect:
            why = " for TensorRT or a target" if name == "--calibration-captions" and INT8 in export.precisions else ""
            raise ConfigurationError(
                f"{name} has no effect without --fp16 or --int8{why}; add one of them or leave it out"
            )
        if not path.exists():
            raise ConfigurationError(f"{name}: {path} not found")
    named = options.calibration_images is not None or options.calibration_captions is not None
    if not named and (options.max_calibration_samples, options.calibration_seed) != (MAX_SAMPLES, SEED):
        raise ConfigurationError(
            "--max-calibration-samples and --calibration-seed have no effect without --calibration-images or "
            "--calibration-captions"
        )
    if options.calibration_images is None and chosen_images(options) != DEFAULT_IMAGES:
        raise ConfigurationError("--alpha, --formats and --max-pixels have no effect without --calibration-images")
    if options.max_calibration_samples < 1:
        raise ConfigurationError(
            f"--max-calibration-samples: expected 1 or more, got {options.max_calibration_samples}"
        )


def read_dataset(options: argparse.Namespace, progress: Progress) -> CalibrationDataset | None:
    """The calibration dataset that is named; None where none is.

    Raises:
        ConfigurationError: as `align_calibration.dataset.calibration_dataset.select_dataset`.
    """
    if options.calibration_images is None and options.calibration_captions is None:
        return None
    from align_calibration.dataset.calibration_dataset import select_dataset

    with progress.phase("select calibration samples"):
        return select_dataset(
            options.calibration_images,
            options.calibration_captions,
            options.max_calibration_samples,
            options.calibration_seed,
            chosen_images(options),
        )
