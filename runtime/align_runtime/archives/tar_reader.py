"""Reads a tar file from start to end, with bounds on everything that a header claims.

tarfile believes sizes that are negative or huge, and follows headers that lead back: a loop without end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from align_runtime.foreign_text import shortened

BLOCK = 512
MAX_HEADERS = 1 << 22  # of members and extensions together
MAX_EXTENSION_BYTES = 1 << 20  # of a header that holds a long name or other attributes
MAX_SIZE = 1 << 40  # bytes of a member
CHUNK = 1 << 20
REGULAR = (b"0", b"\x00", b"7")
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, FIFOs
LONG_NAME, ATTRIBUTES, SPARSE = b"L", (b"x", b"X"), b"S"
BESIDE = (b"K", b"g")  # the target of a link, attributes of all members: of no use here, but before a member


class TarError(ValueError):
    """A tar file that cannot be read further; the message says where and why."""


class Stream(Protocol):
    """What is read forward, as much at once as asked for unless it ends."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        size: in bytes.
        sparse: whether its holes were left out (GNU sparse).
        position: byte of the archive, decompressed, at which its content begins; its own header, in a zip file.
    """

    name: str
    size: int
    sparse: bool
    position: int


@dataclass(frozen=True)
class _Header:
    """A block that begins a member or an extension; `place` says in messages which."""

    kind: bytes
    name: str
    size: int
    place: str
    extended: bool


class TarReader:
    """The regular files in the tar file that `stream` gives."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._position = 0
        self._left = 0  # bytes of the current member, with its padding, that were not read yet

    def members(self) -> Iterator[Member]:
        """Each regular file; links, folders and devices are left out.

        Raises:
            TarError: a header is malformed or out of bounds, or the archive ends early.
        """
        long_name: str | None = None
        attributes: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            self._skip(self._left)
            header = self._header()
            if header is None:
                return
            if header.kind == LONG_NAME:
                long_name = _text(self._extension(header).split(b"\x00")[0])
            elif header.kind in ATTRIBUTES:
                attributes |= _attributes(self._extension(header), header.place)
            elif header.kind in BESIDE:
                self._left = _padded(header.size)
            else:
                claimed = attributes.get("size")
                size = header.size if claimed is None else _size(_decimal(claimed), header.place)
                self._left = 0 if header.kind in WITHOUT_CONTENT else _padded(size)
                sparse = header.kind == SPARSE or any(key.startswith("GNU.sparse.") for key in attributes)
                if header.kind in REGULAR or sparse:
                    name = attributes.get("GNU.sparse.name") or attributes.get("path") or long_name or header.name
                    yield Member(name, size, sparse, self._position)
                long_name, attributes = None, {}
        raise TarError(f"it has more than {MAX_HEADERS} headers")

    def content(self, member: Member) -> bytes:
        """The content of the member that was yielded last.

        Raises:
            TarError: the archive ends in it.
        """
        data = self._read(member.size)
        self._left -= len(data)
        if len(data) < member.size:
            raise TarError(f"it ends in the member {shortened(member.name)}")
        return data

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._position += len(data)
        return data

    def _header(self) -> _Header | None:
        """The next header; None at the end, which is a block of zeros or nothing at all."""
        at = self._position
        block = self._read(BLOCK)
        if not block and at == 0:
            raise TarError("it is empty")
        if not block.strip(b"\x00"):
            return None
        if len(block) < BLOCK:
            raise TarError(f"it ends in the header at byte {at}")
        header = _parsed(block, at)
        while header.kind == SPARSE and header.extended:  # more of the map of its holes
            more = self._read(BLOCK)
            if len(more) < BLOCK:
                raise TarError(f"it ends in the header of {header.place}")
            if not more[504]:
                break
        return header

    def _extension(self, header: _Header) -> bytes:
        if header.size > MAX_EXTENSION_BYTES:
            raise TarError(f"{header.place} claims {header.size} bytes; expected at most {MAX_EXTENSION_BYTES}")
        data = self._read(_padded(header.size))
        if len(data) < _padded(header.size):
            raise TarError(f"it ends in the header of {header.place}")
        return data[: header.size]

    def _skip(self, count: int) -> None:
        while count > 0:
            data = self._read(min(count, CHUNK))
            if not data:
                raise TarError(f"it ends at byte {self._position}, {count} bytes before the end of a member")
            count -= len(data)
        self._left = 0


def _parsed(block: bytes, at: int) -> _Header:
    summed = sum(block[:148]) + sum(block[156:]) + 256
    signed = sum(struct.unpack("148b8x356b", block)) + 256  # as some old programs sum it up
    if _number(block[148:156]) not in (summed, signed):
        raise TarError(f"no header at byte {at}")
    name = _text(block[:100].split(b"\x00")[0])
    prefix = _text(block[345:500].split(b"\x00")[0]) if block[257:263] == b"ustar\x00" else ""
    name = f"{prefix}/{name}" if prefix else name
    kind = block[156:157]
    if kind == b"\x00" and name.endswith("/"):  # a folder, before there were types
        kind = b"5"
    place = f"{shortened(name)} at byte {at}"
    return _Header(kind, name, _size(_number(block[124:136]), place), place, bool(block[482]))


def _size(size: int | None, place: str) -> int:
    if size is None or not 0 <= size <= MAX_SIZE:
        raise TarError(f"{place} claims a size of {shortened(size)} bytes; expected 0 to {MAX_SIZE}")
    return size


def _number(field: bytes) -> int | None:
    """A number in octal digits, or in binary behind a byte of 128 or 255; None for anything else."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:]) - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\x00")[0].strip()
    return int(digits or b"0", 8) if all(digit in b"01234567" for digit in digits) else None


def _decimal(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _attributes(content: bytes, place: str) -> dict[str, str]:
    """The records ``LENGTH KEY=VALUE\\n`` of an extension."""
    found: dict[str, str] = {}
    position = 0
    while position < len(content):
        digits, separator, _ = content[position : position + 20].partition(b" ")
        length = _decimal(_text(digits)) if separator else None
        if length is None or not len(digits) + 2 < length <= len(content) - position:
            raise TarError(f"{place} has a malformed record")
        key, _, value = content[position + len(digits) + 1 : position + length - 1].partition(b"=")
        found[_text(key)] = _text(value)
        position += length
    return found


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
