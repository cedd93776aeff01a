"""What is left of an encoded image when everything beside its pixels is taken away."""

from __future__ import annotations

from dataclasses import dataclass

from align_runtime.errors import InputError

MAX_PARTS = 1 << 18  # chunks, segments, strips or tiles of one file; each costs some microseconds


@dataclass(frozen=True)
class Stripped:
    """A file of the same format with nothing in it that its pixels do not need, and what was found beside them.

    Attributes:
        data: the file.
        size: (width, height) in pixels of what will be allocated.
        exif, xmp: metadata that may hold an orientation; None where there are none.
    """

    data: bytes
    size: tuple[int, int]
    exif: bytes | None = None
    xmp: bytes | None = None


def too_many(count: int, parts: str, limit: int = MAX_PARTS) -> InputError:
    """The error for a file that has more than `limit` of `parts`."""
    return InputError(f"has {count} {parts}; expected at most {limit}; save it again with another program")


def no_header(kind: str) -> InputError:
    """The error for a file that ends before it says how large the image is."""
    return InputError(f"cannot be decoded as {kind}: it has no complete header")
