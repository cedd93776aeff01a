"""Images in archives, read in place: nothing is extracted to disk, so the name of a member cannot do harm.

What an archive claims is bounded: its headers, names, members, and the bytes that they decompress to.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from align_calibration.dataset.image_files import is_image, too_large
from align_calibration.dataset.sample_source import Candidate, Skipped, encode
from align_calibration.dataset.tar_reader import Stream, TarReader
from align_runtime.errors import ConfigurationError
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


class _Budget:
    """Counts decompressed bytes, and refuses more than the archive `path` may give."""

    def __init__(self, path: Path) -> None:
        self._left = self._limit = max(FREE_EXPANSION, MAX_EXPANSION * path.stat().st_size)

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"it decompresses to more than {self._limit} bytes, {MAX_EXPANSION} times its size")


def _checked_name(name: str) -> str:
    if len(name) > MAX_NAME:
        raise ValueError(f"the name {shortened(name)} has {len(name)} characters; expected at most {MAX_NAME}")
    return name


@dataclass(frozen=True)
class ZipArchive:
    """The images in the zip file `path`, named as its members. Of members with the same name the last counts."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        with self._open() as archive:
            for name in archive.namelist():
                if is_image(_checked_name(name)) and not name.endswith("/"):
                    yield Candidate(name, encode(name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        with self._open() as archive:
            budget = _Budget(self.path)
            for name in sorted(set(names) & set(archive.namelist())):
                yield name, _read_member(archive, name, budget)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        with (
            _errors_named(self.path),
            open_regular(self.path, ConfigurationError) as file,
            zipfile.ZipFile(_BoundedReads(file)) as archive,
        ):
            yield archive


class _BoundedReads(io.BufferedReader):
    """Refuses to read a directory of more than `MAX_DIRECTORY_BYTES`, which zipfile reads and keeps whole."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its directory has {size} bytes; expected at most {MAX_DIRECTORY_BYTES}")
        return super().read(size)


def _read_member(archive: zipfile.ZipFile, name: str, budget: _Budget) -> bytes | Skipped:
    reason = too_large(archive.getinfo(name).file_size)  # zipfile never gives more than that
    if reason is not None:
        return Skipped(name, reason)
    parts = []
    try:
        with archive.open(name) as member:
            while part := member.read(ZIP_CHUNK):
                parts.append(part)
    except READ_ERRORS as error:  # RuntimeError: a password is needed
        return Skipped(name, f"it cannot be read from the archive: {printable(str(error), 200)}")
    budget.take(sum(map(len, parts)))
    return b"".join(parts)


@dataclass(frozen=True)
class TarArchive:
    """The images in the tar file `path`, compressed with gzip or not, named as its members.

    Always read from start to end. Of members with the same name the first counts. Links and devices are ignored.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        with _open_tar(self.path) as archive:
            for member in archive.members():
                if is_image(_checked_name(member.name)):
                    yield Candidate(member.name, encode(member.name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        """In the order of the archive: a step back would decompress it again."""
        wanted = set(names)
        with _open_tar(self.path) as archive:
            for member in archive.members():
                if member.name not in wanted:
                    continue
                wanted.remove(member.name)
                reason = "it is stored sparse; create the archive without --sparse" if member.sparse else None
                reason = reason or too_large(member.size)
                yield member.name, archive.content(member) if reason is None else Skipped(member.name, reason)


@contextmanager
def _open_tar(path: Path) -> Iterator[TarReader]:
    with _errors_named(path), open_regular(path, ConfigurationError) as file:
        compressed = file.peek(2).startswith(GZIP_MAGIC)
        yield TarReader(_Counted(gzip.GzipFile(fileobj=file) if compressed else file, _Budget(path)))


class _Counted:
    """Counts the bytes that are read of `stream`."""

    def __init__(self, stream: Stream, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._budget.take(len(data))
        return data


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turns errors of reading the archive `path` into a ConfigurationError."""
    try:
        yield
    except ConfigurationError:
        raise
    except READ_ERRORS as error:
        raise ConfigurationError(f"cannot read the archive {path}: {error}; create it again") from None
