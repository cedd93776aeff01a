"""The pictures that INT8 scales are measured on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from align_runtime.errors import ConfigurationError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
ENOUGH = 128  # align-tiny: over 8 pictures of another kind top-1 falls by 1.3 points, over 128 of its own by none


def find_pictures(folder: Path) -> list[Path]:
    """All pictures in `folder` itself, by name.

    Raises:
        ConfigurationError: it is no folder or holds none.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"--int8-pictures is {folder}, which is no folder; name one that holds pictures")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ConfigurationError(
            f"--int8-pictures: {folder} holds no picture ({', '.join(SUFFIXES)}); subfolders are not searched"
        )
    return found


def describe_pictures(pictures: list[Path]) -> str:
    """Number and content of `pictures`, whatever their names and places: the same scales come of them."""
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{len(pictures)} pictures, sha256 {digest.hexdigest()}"
