"""Images in archives, read in place: nothing is extracted to disk, so the name of a member cannot do harm."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from align_calibration.dataset.image_files import MAX_BYTES, is_image, too_large
from align_calibration.dataset.sample_source import Candidate, Skipped, encode
from align_runtime.errors import ConfigurationError

READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)

GZIP_MAGIC = b"\x1f\x8b"


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
                if is_image(name) and not name.endswith("/"):
                    yield Candidate(name, encode(name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        with self._open() as archive:
            for name in sorted(set(names) & set(archive.namelist())):
                yield name, _read_member(archive, name)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        with _errors_named(self.path):
            archive = zipfile.ZipFile(self.path)
        with archive:
            yield archive


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes | Skipped:
    member = archive.getinfo(name)
    reason = too_large(member.file_size)  # zipfile never reads more than that
    if reason is not None:
        return Skipped(name, reason)
    try:
        return archive.read(name)
    except READ_ERRORS as error:  # RuntimeError: a password is needed
        return Skipped(name, f"cannot be read from the archive: {error}")


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
        with _errors_named(self.path), _open_tar(self.path) as archive:
            for member in _image_members(archive):
                yield Candidate(member.name, encode(member.name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        """In the order of the archive: a step back would decompress it again."""
        wanted = set(names)
        with _errors_named(self.path), _open_tar(self.path) as archive:
            for member in _image_members(archive):
                if member.name not in wanted:
                    continue
                wanted.remove(member.name)
                reason = too_large(member.size)
                file = archive.extractfile(member) if reason is None else None
                yield member.name, file.read() if file is not None else Skipped(member.name, reason or "is not a file")


def _image_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        if member.isreg() and is_image(member.name):
            yield member
    assert isinstance(archive.fileobj, _BoundedReader)
    if any(archive.fileobj.last):  # tarfile takes a damaged header for the end, which is zeros or nothing
        raise tarfile.ReadError(f"no header at byte {archive.offset}")


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        compressed = file.peek(2).startswith(GZIP_MAGIC)
        raw = gzip.GzipFile(fileobj=file) if compressed else file
        with _BoundedReader(raw) as bounded, tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


class _BoundedReader(io.BufferedReader):
    """Refuses to read more than `MAX_BYTES` at once: tarfile reads headers of any size that they claim.

    `last` holds the bytes of the last read.
    """

    last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes, the limit is {MAX_BYTES}")
        self.last = super().read(size)
        return self.last


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turns errors of reading the archive `path` into a ConfigurationError."""
    try:
        yield
    except ConfigurationError:
        raise
    except READ_ERRORS as error:
        raise ConfigurationError(f"cannot read the archive {path}: {error}; create it again") from None
