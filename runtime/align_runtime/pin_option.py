"""``--manifest-sha256``: a bundle that is pinned by the sha256 of its manifest, for every command that opens one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from align_runtime.bundle import Bundle
from align_runtime.console import checked_argument
from align_runtime.load_options import check_pin
from align_runtime.manifest import check_sha256


def add_pin_option(parser: argparse.ArgumentParser) -> None:
    """``--manifest-sha256``, the same for every command that opens a bundle."""
    parser.add_argument(
        "--manifest-sha256",
        type=sha256_digits,
        metavar="HEX",
        help="the sha256 that align.json must have, from a source that you trust (align-inspect prints it); every file "
        "that is used is then checked against the manifest",
    )


def open_bundle(options: argparse.Namespace, devices: Sequence[str] = ()) -> Bundle:
    """The bundle of `options`, for `devices`. One that is pinned has all its files checked: see `add_pin_option`.

    Raises:
        BundleError: it cannot be opened, is another one than the pinned, or a file was changed.
        ConfigurationError: a pin cannot stand for what one of `devices` reads.
    """
    pin: str | None = options.manifest_sha256
    if pin is not None:
        for device in devices:
            check_pin(pin, device)
    bundle = Bundle.open(options.bundle, pin)
    for name in bundle.manifest.files if pin is not None else ():
        bundle.check_hash(name)
    return bundle


def sha256_digits(text: str) -> str:
    """For ``type=`` of an argument: a sha256 in hexadecimal."""
    return checked_argument(check_sha256, text)
