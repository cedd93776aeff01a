"""TIFF: the first image, under a new directory with nothing but the tags that its pixels need.

Pillow reads every tag and the directories behind it, and stops at those that are odd.
"""

from __future__ import annotations

import struct

from align_runtime.containers.directory import Directory, DirectoryError, Entry, read_directory
from align_runtime.containers.jpeg import MAX_SCANS
from align_runtime.containers.stripped import MAX_PARTS, Stripped, no_header, too_many
from align_runtime.errors import InputError

WIDTH, HEIGHT, COMPRESSION, SAMPLES, ROWS, PLANES = 256, 257, 259, 277, 278, 284
TILE_WIDTH, TILE_HEIGHT, XMP = 322, 323, 700
STRIPS, TILES = 273, 324  # the tags of their offsets
LARGEST_TILE = 1 << 22  # pixels of a tile that is larger than the image
JPEG = (6, 7)
KEPT = {
    *range(WIDTH, 260),  # size, bits, compression
    *(262, 266, 317, 320),  # colour, bit order, predictor, palette
    *(SAMPLES, ROWS, PLANES, 292, 293),  # layout, fax options
    *(273, 279, *range(TILE_WIDTH, 326)),  # strips and tiles
    *(332, 338, 339),  # inks, meaning and type of samples
    *(347, *range(512, 522), *range(529, 533)),  # JPEG, YCbCr
    0xBC01,  # Windows Media Photo, which Pillow refuses by this tag
}
INTEGERS = {3: "H", 4: "L", 8: "h", 9: "l", 13: "L", 16: "Q"}  # by TIFF type


def strip(data: bytes) -> Stripped:
    """The first image of the TIFF file `data`; its own bytes stand for the EXIF data, whose form is the same.

    Raises:
        InputError: it has no directory, or claims too many or too large strips or tiles.
    """
    try:
        directory = read_directory(data)
    except DirectoryError:
        raise no_header("TIFF") from None
    tags = {entry.tag: entry for entry in directory.entries}
    if WIDTH not in tags or HEIGHT not in tags:
        raise no_header("TIFF")
    width, height = (_number(tags.get(tag), directory.order, 0) for tag in (WIDTH, HEIGHT))
    _check_parts(tags, directory.order, width, height)
    _check_scans(data, tags, directory.order)
    xmp = tags.get(XMP)
    records = [entry.record for entry in directory.entries if entry.tag in KEPT]
    return Stripped(_rewritten(data, directory, records), (width, height), data, None if xmp is None else xmp.value)


def _check_parts(tags: dict[int, Entry], order: str, width: int, height: int) -> None:
    """Strips and tiles are as many as the image needs, and tiles not much larger than it."""

    def number(tag: int, default: int) -> int:
        return _number(tags.get(tag), order, default)

    tile = number(TILE_WIDTH, width), number(TILE_HEIGHT, height)
    if tile[0] * tile[1] > max(width * height, LARGEST_TILE):
        raise InputError(f"has tiles of {tile[0]} × {tile[1]} for {width} × {height} pixels; save it again")
    planes = number(SAMPLES, 1) if number(PLANES, 1) == 2 else 1
    for offsets, (wide, high) in {STRIPS: (width, number(ROWS, height)), TILES: tile}.items():
        needed = -(-width // max(wide, 1)) * -(-height // max(high, 1)) * planes
        if offsets in tags and needed > MAX_PARTS:
            raise too_many(needed, "strips or tiles")
        if offsets in tags and tags[offsets].count > 2 * needed + 16:
            raise too_many(tags[offsets].count, "strips or tiles", needed)


def _check_scans(data: bytes, tags: dict[int, Entry], order: str) -> None:
    """A JPEG in a strip has as few scans as a JPEG file."""
    if _number(tags.get(COMPRESSION), order, 1) not in JPEG:
        return
    parts = max((tags[tag].count for tag in (STRIPS, TILES) if tag in tags), default=1)
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS * parts:
        raise too_many(scans, "scans", MAX_SCANS * parts)


def _number(entry: Entry | None, order: str, default: int) -> int:
    """The first value of `entry`; 0 for one that is no size."""
    if entry is None:
        return default
    kind = INTEGERS.get(entry.type)
    return struct.unpack_from(order + kind, entry.value)[0] if kind else 0


def _rewritten(data: bytes, directory: Directory, records: list[bytes]) -> bytes:
    """`data` with a directory of `records` at its end, and no other directory behind it."""
    order, big = directory.order, directory.big
    address, count = ("Q", "Q") if big else ("L", "H")
    body = struct.pack(order + count, len(records)) + b"".join(records) + struct.pack(order + address, 0)
    padding = bytes(len(data) % 2)  # a directory begins at an even address
    end, header = len(data) + len(padding), 8 if big else 4
    start = data[:header] + struct.pack(order + address, end)
    return b"".join((start, memoryview(data)[len(start) :], padding, body))
