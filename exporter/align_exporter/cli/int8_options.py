"""The options of ``align-export`` for INT8: devices, targets, speed, and where calibration statistics are cached."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from align_exporter.export_options import INT8_DEVICES, ExportOptions
from align_exporter.variants import INT8
from align_runtime.errors import ConfigurationError
from align_runtime.user_path import user_path

DEFAULT_DEVICE = INT8_DEVICES[0]


def add_int8_options(parser: argparse.ArgumentParser) -> None:
    """``--int8-…``, ``--require-faster`` and the calibration cache."""
    group = parser.add_argument_group("INT8")
    group.add_argument(
        "--int8-device",
        choices=INT8_DEVICES,
        default=DEFAULT_DEVICE,
        help="cpu: for ONNX Runtime's CPU kernels; gpu: for TensorRT (default: all)",
    )
    group.add_argument(
        "--int8-min-cosine",
        metavar="X",
        type=float,
        help="cosine with the float graph, plain and mean-centred, as a 2%% trimmed mean, that INT8 graphs have to "
        "reach on every fourth image and caption, which are then held out of the calibration. Parts stay float until "
        "it is reached, as few MACs as possible",
    )
    group.add_argument(
        "--int8-min-agreement",
        metavar="SHARE",
        type=float,
        help="the same for top-1 agreement: the share of the held-out samples whose nearest sample of the other tower "
        "stays the same",
    )
    group.add_argument(
        "--require-faster",
        action="store_true",
        help="fail if an INT8 graph for CPUs is not faster than the float graphs on this machine (its speed is always "
        "measured and recorded)",
    )
    cache = group.add_mutually_exclusive_group()
    cache.add_argument(
        "--calibration-cache",
        metavar="FOLDER",
        type=user_path,
        help="where calibration statistics are cached, so that a killed export resumes (default: "
        "align-onnx/calibration in $XDG_CACHE_HOME or ~/.cache; the newest few are kept)",
    )
    cache.add_argument("--no-calibration-cache", action="store_true", help="cache nothing, and measure everything anew")


def read_int8_options(options: argparse.Namespace, export: ExportOptions) -> ExportOptions:
    """`export` with these options.

    Raises:
        ConfigurationError: a value out of range, an option without ``--int8``, a target without calibration images, a
            cache that is not a folder.
    """
    targets = {"--int8-min-cosine": options.int8_min_cosine, "--int8-min-agreement": options.int8_min_agreement}
    asked = {name: value for name, value in targets.items() if value is not None}
    if INT8 not in export.precisions:
        _check_none_given(options, asked)
        return export
    for name, value in asked.items():
        if not 0 <= value <= 1:
            raise ConfigurationError(f"{name}: expected a number from 0 to 1, got {value:g}")
    if asked and options.calibration_images is None:
        raise ConfigurationError(
            f"{' and '.join(asked)}: a target is checked on images that are held out of the calibration, and the "
            "built-in ones are too few; name some with --calibration-images"
        )
    if options.require_faster and options.int8_device == "gpu":
        raise ConfigurationError("--require-faster has no effect with --int8-device gpu; leave one of them out")
    return replace(
        export,
        int8_device=options.int8_device,
        int8_min_cosine=options.int8_min_cosine,
        int8_min_agreement=options.int8_min_agreement,
        require_faster=options.require_faster,
        calibration_cache=_calibration_cache(options),
    )


def _check_none_given(options: argparse.Namespace, targets: dict[str, float]) -> None:
    given = {
        **targets,
        "--int8-device": options.int8_device != DEFAULT_DEVICE,
        "--require-faster": options.require_faster,
        "--calibration-cache": options.calibration_cache is not None,
        "--no-calibration-cache": options.no_calibration_cache,
    }
    idle = [name for name, value in given.items() if name in targets or value]
    if idle:
        verb = "has" if len(idle) == 1 else "have"
        raise ConfigurationError(f"{' and '.join(idle)} {verb} no effect without --int8; add it or leave them out")


def _calibration_cache(options: argparse.Namespace) -> Path | None:
    """The folder; None for no cache."""
    named: Path | None = options.calibration_cache
    if options.no_calibration_cache:
        return None
    if named is None:
        return _user_cache() / "align-onnx" / "calibration"
    if named.exists() and not named.is_dir():
        raise ConfigurationError(f"--calibration-cache: expected a folder, new or not, got the file {named}")
    return named


def _user_cache() -> Path:
    """As the XDG Base Directory Specification says: a path that is not absolute does not count."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if folder.is_absolute():
        return folder
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        raise ConfigurationError(
            "this user has no home folder for a calibration cache; name a folder with --calibration-cache, or use "
            "--no-calibration-cache"
        ) from None
