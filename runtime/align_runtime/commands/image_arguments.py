"""``--alpha``, ``--formats`` and ``--max-pixels``, the same for every command that takes images."""

from __future__ import annotations

import argparse
from typing import Any

from align_runtime.console import positive_int
from align_runtime.image_options import DEFAULT_FORMATS, DEFAULT_MAX_PIXELS, DROP, FORMATS, ImageOptions


def add_image_options(parser: Any) -> None:
    """Adds them to a parser, or to a group of its arguments."""
    parser.add_argument(
        "--alpha",
        default=DROP,
        metavar="COLOUR",
        help=f"laid behind transparent images, e.g. white or #ffffff (default: {DROP}, which ignores transparency as "
        "transformers does)",
    )
    parser.add_argument(
        "--formats",
        default=",".join(DEFAULT_FORMATS),
        metavar="NAME,…",
        help=f"formats of images that are decoded, of {', '.join(FORMATS)} (default: {','.join(DEFAULT_FORMATS)})",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help=f"maximum width times height of an image (default: {DEFAULT_MAX_PIXELS})",
    )


def chosen_images(options: argparse.Namespace) -> ImageOptions:
    """The value of `options`.

    Raises:
        ConfigurationError: a colour, format or number that is unknown or out of range.
    """
    return ImageOptions(options.alpha, options.formats.split(","), options.max_pixels)
