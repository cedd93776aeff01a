"""Where the content of a member lies in an archive, to read it again without those before it."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from align_runtime.errors import InputError

ZIP_HEADER = struct.Struct("<4s22xHH")  # of a member: its magic, and the lengths of name and extra field behind it
ZIP_MAGIC, ENCRYPTED = b"PK\x03\x04", 1
CHANGED = "the archive is not as it was"


@dataclass(frozen=True)
class Extent:
    """The content of a member.

    Attributes:
        offset, length: the bytes in the file.
        size: of the content; another one than `length` where it is deflated.
        deflated: whether it is.
    """

    offset: int
    length: int
    size: int
    deflated: bool = False


def zip_extent(file: BinaryIO, entry: zipfile.ZipInfo) -> Extent:
    """The content of `entry`, whose own header is read of `file`.

    Raises:
        InputError: it is encrypted, or compressed in another way than deflate, or there is no header.
    """
    if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError("a member that is encrypted, or not stored or deflated, is only read with the whole zip file")
    try:
        header = os.pread(file.fileno(), ZIP_HEADER.size, entry.header_offset)
    except (OSError, OverflowError):  # a place that no file has
        header = b""
    if not header.startswith(ZIP_MAGIC) or len(header) < ZIP_HEADER.size:
        raise InputError(f"its header is not at byte {entry.header_offset} of the zip file")
    _, name, extra = ZIP_HEADER.unpack(header)
    start = entry.header_offset + ZIP_HEADER.size + name + extra
    return Extent(start, entry.compress_size, entry.file_size, entry.compress_type == zipfile.ZIP_DEFLATED)


def read_extent(file: BinaryIO, extent: Extent, max_bytes: int) -> bytes:
    """The content at `extent` of the archive `file`.

    Raises:
        InputError: it has more than `max_bytes` bytes, or it is not there any more.
    """
    if max(extent.size, extent.length) > max_bytes:
        raise InputError(f"it has {max(extent.size, extent.length)} bytes; expected at most {max_bytes}")
    data = os.pread(file.fileno(), extent.length, extent.offset)
    if len(data) == extent.length and extent.deflated:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, extent.size + 1)
        except zlib.error:
            raise InputError(CHANGED) from None
    if len(data) != extent.size:
        raise InputError(CHANGED)
    return data
