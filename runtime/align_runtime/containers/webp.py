"""WebP: the canvas and its first frame. Profiles, metadata and further frames are left out.

libwebp allocates the canvas, several times, before the first byte of an image is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator

from align_runtime.containers.stripped import MAX_PARTS, Stripped, no_header, too_many

ALPHA_AND_ANIMATION = 0x12  # the flags of an extended header that concern the image
LOSSLESS_SIGNATURE = 0x2F


def strip(data: bytes) -> Stripped:
    """The first frame of the WebP file `data`.

    Raises:
        InputError: it has no header, or too many chunks.
    """
    size: tuple[int, int] | None = None
    metadata: dict[bytes, bytes] = {}
    kept: dict[bytes, bytes] = {}
    for kind, chunk in _chunks(data):
        content = chunk[8:]
        if kind in (b"EXIF", b"XMP "):
            metadata.setdefault(kind, bytes(content))
        elif kind in (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L") and kind not in kept:
            kept[kind] = bytes(chunk) + bytes(len(chunk) % 2)
            size = size or _size(kind, content)
    if size is None:
        raise no_header("WEBP")
    if extended := kept.get(b"VP8X"):
        kept[b"VP8X"] = extended[:8] + bytes([extended[8] & ALPHA_AND_ANIMATION]) + extended[9:]
    body = b"WEBP" + b"".join(kept.values())
    riff = b"RIFF" + len(body).to_bytes(4, "little") + body
    return Stripped(riff, size, metadata.get(b"EXIF"), metadata.get(b"XMP "))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind of each chunk, and the chunk with its header, which may be cut off."""
    view, position, count = memoryview(data), 12, 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        count += 1
        if count > MAX_PARTS:
            raise too_many(count, "chunks")
        yield data[position : position + 4], view[position : position + 8 + length]
        position += 8 + length + length % 2


def _size(kind: bytes, content: memoryview) -> tuple[int, int] | None:
    """(width, height) that a chunk gives: of the canvas, or of the only image."""

    def number(start: int, count: int) -> int:
        return int.from_bytes(content[start : start + count], "little")

    if kind == b"VP8X" and len(content) >= 10:
        return number(4, 3) + 1, number(7, 3) + 1
    if kind == b"VP8L" and len(content) >= 5 and content[0] == LOSSLESS_SIGNATURE:
        return (number(1, 4) & 0x3FFF) + 1, (number(1, 4) >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(content) >= 10:
        return number(6, 2) & 0x3FFF, number(8, 2) & 0x3FFF
    return None
