"""Opens tar and zip files and bounds what they claim: headers, names, members, and bytes that they decompress to."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from align_runtime.archives.extents import Extent, zip_extent
from align_runtime.archives.tar_reader import Member, Stream, TarReader
from align_runtime.errors import AlignError, InputError
from align_runtime.foreign_text import printable, shortened
from align_runtime.regular_files import open_regular

READ_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
GZIP_MAGIC = b"\x1f\x8b"
MAX_DIRECTORY_BYTES = 32 << 20  # of a zip file: 700,000 of the shortest entries, which take 0.5 GB in memory
MAX_NAME = 4096  # characters, the longest path of Linux
MAX_EXPANSION = 100  # times the size of the archive, once more than 1 GiB was decompressed
FREE_EXPANSION = 1 << 30
# Of a member at once: zipfile decompresses what it reads of bzip2 and LZMA without a limit, 4 KiB to some 90 MB.
ZIP_CHUNK = 4096


class Archive(Protocol):
    """An open archive. The content of a member is read before the next one is asked for."""

    def members(self) -> Iterator[Member]: ...

    def content(self, member: Member) -> bytes: ...

    def extent(self, member: Member) -> Extent:
        """Where to read `member` again, without those before it; its content need not be read for that.

        Raises:
            InputError: that is not possible; the message says why.
        """
        ...


@contextmanager
def open_archive(path: Path, error: type[AlignError]) -> Iterator[Archive]:
    """The archive `path`: a zip file by its suffix, otherwise a tar file, compressed with gzip or not.

    Its members are regular files; links, devices and folders are left out.

    Raises:
        `error`: it cannot be opened or read further; the cause is the error of the reader.
        InputError: of a member alone, by `content`: it cannot be read; the next ones can.
    """
    try:
        with open_regular(path, error) as file:
            budget = _Budget(path)
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(_BoundedReads(file)) as archive:
                    yield _ZipReader(archive, budget, file)
            else:
                compressed = file.peek(2).startswith(GZIP_MAGIC)
                yield _TarArchive(_Counted(gzip.GzipFile(fileobj=file) if compressed else file, budget), compressed)
    except AlignError:
        raise
    except READ_ERRORS as reason:
        raise error(f"cannot read the archive {path}: {reason}; create it again") from reason


class _Budget:
    """Counts decompressed bytes, and refuses more than the archive `path` may give."""

    def __init__(self, path: Path) -> None:
        self._left = self._limit = max(FREE_EXPANSION, MAX_EXPANSION * path.stat().st_size)

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"it decompresses to more than {self._limit} bytes, {MAX_EXPANSION} times its size")


class _Counted:
    """Counts the bytes that are read of `stream`."""

    def __init__(self, stream: Stream, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._budget.take(len(data))
        return data


class _TarArchive(TarReader):
    """A tar file whose names are bounded."""

    def __init__(self, stream: Stream, compressed: bool) -> None:
        super().__init__(stream)
        self._compressed = compressed

    def members(self) -> Iterator[Member]:
        for member in super().members():
            _check_name(member.name)
            yield member

    def content(self, member: Member) -> bytes:
        if member.sparse:
            raise InputError("it is stored sparse; create the archive without --sparse")
        return super().content(member)

    def extent(self, member: Member) -> Extent:
        if self._compressed:
            raise InputError("a tar file that is compressed as a whole can only be read from its start")
        return Extent(member.position, member.size, member.size)


@dataclass(frozen=True)
class _ZipMember(Member):
    entry: zipfile.ZipInfo


class _ZipReader:
    """The files in a zip file, in the order of its directory."""

    def __init__(self, archive: zipfile.ZipFile, budget: _Budget, file: BinaryIO) -> None:
        self._archive = archive
        self._budget = budget
        self._file = file

    def members(self) -> Iterator[Member]:
        for entry in self._archive.infolist():
            _check_name(entry.filename)
            if not entry.is_dir():
                yield _ZipMember(entry.filename, entry.file_size, False, entry.header_offset, entry)

    def content(self, member: Member) -> bytes:
        """zipfile never gives more than the size that the directory claims."""
        assert isinstance(member, _ZipMember)
        parts = []
        try:
            with self._archive.open(member.entry) as file:
                while part := file.read(ZIP_CHUNK):
                    parts.append(part)
        except READ_ERRORS as error:  # RuntimeError: a password is needed
            raise InputError(f"it cannot be read from the archive: {printable(str(error), 200)}") from error
        self._budget.take(sum(map(len, parts)))
        return b"".join(parts)

    def extent(self, member: Member) -> Extent:
        assert isinstance(member, _ZipMember)
        return zip_extent(self._file, member.entry)


class _BoundedReads(io.BufferedReader):
    """Refuses to read a directory of more than `MAX_DIRECTORY_BYTES`, which zipfile reads and keeps whole."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its directory has {size} bytes; expected at most {MAX_DIRECTORY_BYTES}")
        return super().read(size)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise ValueError(f"the name {shortened(name)} has {len(name)} characters; expected at most {MAX_NAME}")
