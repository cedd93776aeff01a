"""Headers of tar files that claim what is not so, and zip files that do."""

from __future__ import annotations

import struct


def header(name: bytes = b"a.png", size: int | bytes = 0, kind: bytes = b"0") -> bytes:
    """A tar header with a valid checksum; `size` is a number, also a negative one, or the field itself."""
    if isinstance(size, int):
        octal = 0 <= size < 8**11
        size = b"%011o\x00" % size if octal else (b"\x80" if size >= 0 else b"\xff") + (size % 256**11).to_bytes(11)
    block = name[:100].ljust(100, b"\x00") + b"0000644\x00" * 3 + size + b"0" * 11 + b"\x00" + b" " * 8 + kind
    block = (block + bytes(100) + b"ustar\x0000").ljust(512, b"\x00")
    return block[:148] + b"%06o\x00 " % sum(block) + block[156:]


def member(name: bytes, content: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A record of an extended header, with its own length before it."""
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def attributes(*records: tuple[bytes, bytes]) -> bytes:
    return member(b"PaxHeader", b"".join(record(key, value) for key, value in records), b"x")


def empty_directory(entries: int) -> bytes:
    """A zip file with a directory of `entries` of the shortest kind, all of one member that is not there."""
    entry = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.png"
    directory = entry * entries
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, min(entries, 65535), min(entries, 65535), len(directory), 0, 0)
    return directory + end
