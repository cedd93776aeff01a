"""The orientation of an encoded image, read from EXIF or XMP without trusting either.

The value is the one that Pillow's `ImageOps.exif_transpose` uses, and so transformers. That function also parses every
other tag and writes EXIF anew, which fails for odd tags; here nothing but the orientation is looked at.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction

from PIL import Image

from align_runtime.containers.directory import DirectoryError, Entry, read_directory

TAG = 0x0112
METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NUMBERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}  # by TIFF type
_RATIONALS = {5: "LL", 10: "ll"}
_EXIF_PREFIX = re.compile(rb"^(Exif\x00\x00){1,2}")
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, 1 to 8, of an image with these metadata; 1 (upright) where they say nothing that is usable."""
    value = None if exif is None else _from_exif(_EXIF_PREFIX.sub(b"", exif))
    if value is None and xmp is not None and (found := _XMP.search(xmp)):
        value = int(found[1])
    return value if value in METHODS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """`image` turned by `orientation`; the same object where that is 1."""
    return image.transpose(METHODS[orientation]) if orientation in METHODS else image


def _from_exif(data: bytes) -> int | None:
    """The orientation in the EXIF `data`, 0 for a value that is none; None where there is no such tag."""
    try:
        directory = read_directory(data)
    except DirectoryError:
        return None
    for entry in directory.entries:
        if entry.tag == TAG:
            return _integer(entry, directory.order)
    return None


def _integer(entry: Entry, order: str) -> int:
    if entry.type in _RATIONALS:
        numerator, denominator = struct.unpack_from(order + _RATIONALS[entry.type], entry.value)
        value: float | Fraction = Fraction(numerator, denominator) if denominator else 0
    elif entry.type in _NUMBERS:
        (value,) = struct.unpack_from(order + _NUMBERS[entry.type], entry.value)
    else:
        return 0
    return int(value) if value in METHODS else 0
