"""The first directory of TIFF data, of an image or of EXIF, read as Pillow reads it and never beyond the data."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREFIXES = {
    b"II\x2a\x00": ("<", False),
    b"MM\x00\x2a": (">", False),
    b"MM\x2a\x00": (">", False),  # wrong, but read by Pillow
    b"II\x00\x2a": ("<", False),
    b"MM\x00\x2b": (">", True),
    b"II\x2b\x00": ("<", True),
}
_UNIT_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by type


class DirectoryError(ValueError):
    """The data have no directory."""


@dataclass(frozen=True)
class Entry:
    """A tag: its number, TIFF type, number of values, the values in bytes, and the record that says so."""

    tag: int
    type: int
    count: int
    value: bytes
    record: bytes


@dataclass(frozen=True)
class Directory:
    """A directory: byte order (``"<"`` or ``">"``), whether it is a BigTIFF's, and the first entry of every tag."""

    order: str
    big: bool
    entries: tuple[Entry, ...]


def read_directory(data: bytes) -> Directory:
    """The first directory of `data`. Tags of an unknown type, or whose values lie outside of the data, are left out.

    All values together are at most as long as the data, however often tags refer to the same bytes.

    Raises:
        DirectoryError: `data` do not begin as TIFF data.
    """
    if data[:4] not in PREFIXES:
        raise DirectoryError("no TIFF header")
    order, big = PREFIXES[data[:4]]
    count_format, record_format, inline = ("Q", "HHQ8s", 8) if big else ("H", "HHL4s", 4)
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_format, data, start)
    except struct.error:
        return Directory(order, big, ())
    position, size, room = start + struct.calcsize("=" + count_format), struct.calcsize("=" + record_format), len(data)
    entries: dict[int, Entry] = {}
    while count > 0 and position + size <= len(data):
        record = data[position : position + size]
        tag, kind, values, field = struct.unpack(order + record_format, record)
        position, count = position + size, count - 1
        length = values * _UNIT_BYTES.get(kind, 0)
        if tag in entries or length == 0:
            continue
        if length > inline:
            (offset,) = struct.unpack(order + ("Q" if big else "L"), field)
            room -= length
            if room < 0:
                continue
            if offset + length > len(data):
                break  # as Pillow does: it reads no tag after one that is cut off
            field = data[offset : offset + length]
        entries[tag] = Entry(tag, kind, values, field[:length], record)
    return Directory(order, big, tuple(entries.values()))
