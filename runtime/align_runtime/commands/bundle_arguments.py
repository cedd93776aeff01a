"""``BUNDLE``, ``--revision`` and ``--manifest-sha256``, the same for every command that opens a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from align_runtime.bundle import Bundle
from align_runtime.console import checked_argument
from align_runtime.hub_bundle import find_bundle
from align_runtime.load_options import check_pin
from align_runtime.manifest import check_sha256


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them; see `open_bundle`."""
    parser.add_argument(
        "bundle", metavar="BUNDLE", help="folder that align-export wrote, or the hub id (owner/name) of an uploaded one"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--manifest-sha256",
        type=sha256_digits,
        metavar="HEX",
        help="the sha256 that align.json must have, from a source that you trust (align-inspect prints it); every file "
        "that is used is then checked against the manifest",
    )


def open_bundle(options: argparse.Namespace, devices: Sequence[str] = (), complete: bool = True) -> Bundle:
    """The bundle of `add_bundle_arguments`, for `devices`, downloaded where it is a hub id.

    One that is pinned has all its files checked. `complete` as in `Bundle.open`.

    Raises:
        BundleError: it cannot be downloaded or opened, is another one than the pinned, or a file was changed.
        ConfigurationError: a pin cannot stand for what one of `devices` reads, or as in `find_bundle`.
        BackendUnavailableError: as in `find_bundle`.
    """
    pin: str | None = options.manifest_sha256
    if pin is not None:
        for device in devices:
            check_pin(pin, device)
    found = find_bundle(options.bundle, options.revision, quiet=options.quiet or options.json)
    bundle = Bundle.open(found.folder, pin, complete)
    for name in bundle.manifest.files if pin is not None else ():
        bundle.check_hash(name)
    return bundle


def sha256_digits(text: str) -> str:
    """For ``type=`` of an argument: a sha256 in hexadecimal."""
    return checked_argument(check_sha256, text)
