"""Encoded images that attack their decoder: a few bytes that claim much, and what stands beside the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

RGB, PALETTE = 2, 3  # colour types of PNG


def png_chunk(kind: bytes, content: bytes = b"", *, checksum: bool = True) -> bytes:
    crc = zlib.crc32(kind + content) ^ (0 if checksum else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *beside: bytes, colour: int = RGB, pixels: bytes | None = None) -> bytes:
    """A black PNG, with the chunks `beside` before its pixels; `pixels` replaces the compressed rows."""
    if pixels is None:
        pixels = zlib.compress(bytes((1 + width * (3 if colour == RGB else 1)) * height))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = [png_chunk(b"IHDR", header), *beside, png_chunk(b"IDAT", pixels), png_chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def bomb(size: int) -> bytes:
    """`size` zero bytes, compressed with zlib to a thousandth."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join((*parts, packer.flush()))


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg(width: int, height: int, scans: int, segments: Sequence[bytes] = ()) -> bytes:
    """A grey progressive JPEG whose scans are empty: some 30 bytes each, and a pass through all blocks."""
    quantization = jpeg_segment(0xDB, b"\x00" + bytes([1] * 64))
    frame = jpeg_segment(0xC2, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
    huffman = jpeg_segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")  # AC table 0: the code 0 is a run of 2¹⁴ + 14 bits
    blocks = -(-width // 8) * -(-height // 8)
    bits = ("0" + "1" * 14) * -(-blocks // 32767)
    coded = int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8)).replace(b"\xff", b"\xff\x00")
    scan = jpeg_segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + coded
    return b"".join((b"\xff\xd8", *segments, quantization, frame, huffman, scan * scans, b"\xff\xd9"))


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """A WebP that claims a canvas, and holds 4 bytes of pixels."""
    if kind == b"VP8X":
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<II", 10, 0) + canvas
    else:
        chunks = b""
    bits = 0x2F | (width - 1 & 0x3FFF) << 8 | (height - 1 & 0x3FFF) << 22
    chunks += b"VP8L" + struct.pack("<I", 10) + (bits & (1 << 40) - 1).to_bytes(5, "little") + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def gif(width: int, height: int, frame: tuple[int, int, int, int], extensions: bytes = b"") -> bytes:
    """A GIF with a screen, a frame (left, top, width, height), and one coded pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    image = b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\x00;"
    return screen + extensions + image


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    """A BMP of 8 bits with a grey palette."""
    palette = b"".join(bytes((level, level, level ^ 1, 0)) for level in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


Tag = tuple[int, int, int, int | bytes]


def tiff(tags: Sequence[Tag], data: bytes = b"", order: str = "<", following: int = 0) -> bytes:
    """A TIFF with `data` at byte 8, then a directory of (tag, type, count, value); bytes are put elsewhere."""
    body, directory = bytearray(b"\x00" * 8 + data), bytearray()
    for tag, kind, count, value in sorted(tags, key=lambda one: one[0]):
        if isinstance(value, bytes):
            at, value = len(body), value.ljust(4, b"\x00")
            body += value
            field = struct.pack(order + "L", at)
        else:
            field = struct.pack(order + ("H" if kind == 3 and count == 1 else "L"), value).ljust(4, b"\x00")
        directory += struct.pack(order + "HHL", tag, kind, count) + field
    head = (b"II\x2a\x00" if order == "<" else b"MM\x00\x2a") + struct.pack(order + "L", len(body))
    body[:8] = head
    return bytes(body) + struct.pack(order + "H", len(tags)) + bytes(directory) + struct.pack(order + "L", following)


def grey_tiff(width: int, height: int, *more: Tag, data: bytes | None = None) -> bytes:
    """A grey uncompressed TIFF in one strip, with the tags `more` in place of its own or beside them."""
    data = bytes(width * height) if data is None else data
    own = {
        256: (256, 4, 1, width),
        257: (257, 4, 1, height),
        258: (258, 3, 1, 8),
        259: (259, 3, 1, 1),
        262: (262, 3, 1, 1),
        273: (273, 4, 1, 8),
        277: (277, 3, 1, 1),
        278: (278, 4, 1, height),
        279: (279, 4, 1, len(data)),
    }
    return tiff([*(own | {tag[0]: tag for tag in more}).values()], data)
