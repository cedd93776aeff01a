"""PNG: header, palette, transparency and pixels. Text, profiles and further frames are left out unread.

Pillow stops at a wrong checksum of a chunk that it does not need, and at compressed text that is too long.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from align_runtime.containers.stripped import MAX_PARTS, Stripped, no_header, too_many

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 13
TRANSPARENCY_BYTES = {b"\x00": 2, b"\x02": 6}  # by colour type, grey and RGB; of a palette one or more
MAX_TEXT = 1 << 20  # bytes, decompressed, of a text that may hold an orientation
RAW_EXIF, XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"  # ImageMagick's and Adobe's keywords
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def strip(data: bytes) -> Stripped:
    """The default image of the PNG file `data`.

    Raises:
        InputError: it has no header, or too many chunks.
    """
    once: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    exif: bytes | None = None
    texts: dict[bytes, tuple[bytes, bytes]] = {}  # kind and content by keyword; of several the last counts
    for kind, chunk in _chunks(data):
        content = chunk[8:-4]
        match kind:
            case b"IDAT":
                pixels.append(chunk)
            case b"IHDR" | b"PLTE":
                once.setdefault(kind, bytes(chunk))
            case b"tRNS" if zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
                if len(content) >= TRANSPARENCY_BYTES.get(once.get(b"IHDR", bytes(18))[17:18], 1):
                    once.setdefault(kind, bytes(chunk))
            case b"eXIf":
                exif = bytes(content)
            case b"tEXt" | b"zTXt" | b"iTXt":
                keyword = bytes(content[:80]).partition(b"\x00")[0]
                if keyword in (RAW_EXIF, XMP):
                    texts[keyword] = kind, bytes(content)
    header = once.pop(b"IHDR", b"")
    if len(header) < 8 + HEADER_BYTES:
        raise no_header("PNG")
    if exif is None and RAW_EXIF in texts:
        exif = _from_hex(_text(*texts[RAW_EXIF]))
    size = int.from_bytes(header[8:12]), int.from_bytes(header[12:16])
    kept: list[bytes | memoryview] = [
        SIGNATURE,
        header,
        *(once[kind] for kind in (b"PLTE", b"tRNS") if kind in once),
        *pixels,
        END,
    ]
    return Stripped(b"".join(kept), size, exif, _text(*texts[XMP]) if XMP in texts else None)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind of each chunk up to the end, and the chunk with its length and checksum, which may be cut off."""
    view, position, count = memoryview(data), len(SIGNATURE), 0
    while position + 8 <= len(data):
        kind, end = data[position + 4 : position + 8], position + 12 + int.from_bytes(data[position : position + 4])
        if kind == b"IEND":
            return
        count += 1
        if count > MAX_PARTS:
            raise too_many(count, "chunks")
        yield kind, view[position:end]
        position = end


def _text(kind: bytes, content: bytes) -> bytes:
    """The text of a text chunk; at most `MAX_TEXT` bytes are decompressed."""
    _, _, rest = content.partition(b"\x00")
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed = rest[:1] not in (b"", b"\x00")
        rest = rest[2:].split(b"\x00", 2)[-1]  # behind the language and the translated keyword
    try:
        return zlib.decompressobj().decompress(rest, MAX_TEXT) if compressed else rest[:MAX_TEXT]
    except zlib.error:
        return b""


def _from_hex(text: bytes) -> bytes | None:
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None
