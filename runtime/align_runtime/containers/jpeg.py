"""JPEG: the tables and scans of the first image. Profiles, comments, previews and what follows the image are left out.

A decoder goes through the whole image for every scan, however few bytes it has, so their number is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from align_runtime.containers.stripped import Stripped, no_header, too_many

MAX_SCANS = 64  # libjpeg writes 10 for a colour image and 18 for CMYK
MAX_SEGMENTS = 1 << 14  # the longest profile takes 255
MAX_FILL = 4096  # bytes of FF in a row; libjpeg starts over at the first of them with every block that it is given
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # 00 is an escaped FF, D0–D7 are restart marks
TEM, SOI, EOI, SOS, COM = 0x01, 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP14, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
EXIF, XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"


def strip(data: bytes) -> Stripped:
    """The first image of the JPEG file `data`.

    Raises:
        InputError: it has no header, or too many scans or segments.
    """
    size: tuple[int, int] | None = None
    exif: list[bytes] = []
    xmp: bytes | None = None
    tables = [b"\xff\xd8"]
    scans, first_scan, end = 0, len(data), len(data)
    for marker, start, stop in _segments(data):
        content = data[start + 4 : stop]
        if marker == EOI:
            end = stop
            break
        if marker == SOS:
            scans += 1
            first_scan = min(first_scan, start)
            if scans > MAX_SCANS:
                raise too_many(data.count(b"\xff\xda"), "scans", MAX_SCANS)
        elif marker in FRAMES and size is None and len(content) >= 5:
            size = int.from_bytes(content[3:5]), int.from_bytes(content[1:3])
        elif scans > 0:
            continue
        elif marker == APP1 and content.startswith(EXIF):
            exif.append(content[len(EXIF) :])
        elif marker == APP1 and content.startswith(XMP):
            xmp = content
        if scans == 0 and _matters(marker, content):
            tables.append(data[start:stop])
    if size is None:
        raise no_header("JPEG")
    image = b"".join((*tables, data[first_scan:end]))
    if bytes([0xFF]) * MAX_FILL in image:
        raise too_many(image.count(0xFF), "fill bytes", MAX_FILL)
    return Stripped(image, size, b"".join(exif) or None, xmp)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment; a scan ends with its header, before its coded data."""
    position, count = 2, 0
    while (found := MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker in (SOI, TEM):
            continue
        count += 1
        if count > MAX_SEGMENTS:
            raise too_many(count, "segments", MAX_SEGMENTS)
        if marker != EOI:
            position += max(2, int.from_bytes(data[position : position + 2]))
        yield marker, found.start(), position


def _matters(marker: int, content: bytes) -> bool:
    """Whether libjpeg looks at the segment: of the application's own, at two that tell the colour space."""
    if marker == APP0:
        return content.startswith(b"JFIF\x00") and len(content) >= 12
    if marker == APP14:
        return content.startswith(b"Adobe") and len(content) >= 12
    return not (APP0 < marker <= APP15 or marker == COM)
