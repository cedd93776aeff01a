"""The options of ``align-export`` that say where a calibration outlives a killed export."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from align_runtime.errors import ConfigurationError


def add_cache_options(parser: argparse._ArgumentGroup) -> None:
    """``--calibration-cache`` and ``--no-calibration-cache``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--calibration-cache",
        metavar="FOLDER",
        type=Path,
        help="where statistics of the samples are kept while they are measured, so that an export that was killed goes "
        "on where it was (default: align-onnx/calibration in $XDG_CACHE_HOME or ~/.cache; the newest few)",
    )
    group.add_argument("--no-calibration-cache", action="store_true", help="keep none, and measure all anew")


def calibration_cache(options: argparse.Namespace) -> Path | None:
    """The folder; None where nothing is calibrated or kept.

    Raises:
        ConfigurationError: an option that does nothing, a file in the folder's place, or no home to keep a cache in.
    """
    named: Path | None = options.calibration_cache
    if not options.int8:
        if named is not None or options.no_calibration_cache:
            raise ConfigurationError(
                "--calibration-cache and --no-calibration-cache do nothing without --int8; add it or leave them out"
            )
        return None
    if options.no_calibration_cache:
        return None
    if named is None:
        return _user_cache() / "align-onnx" / "calibration"
    if named.exists() and not named.is_dir():
        raise ConfigurationError(f"--calibration-cache is {named}, which is a file; name a folder, new or not")
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
            "this user has no home folder to keep a calibration cache in; name one with --calibration-cache, or none "
            "with --no-calibration-cache"
        ) from None
