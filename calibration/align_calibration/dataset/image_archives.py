"""Images in archives, read where they are: nothing is ever written to disk, so a member's name cannot do harm."""

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
from align_calibration.dataset.source import Candidate, Skipped, identity
from align_runtime.errors import ConfigurationError

DAMAGES = (
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
    """The images in the zip file `path`, called as there. Of members of one name the last counts."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        with self._opened() as archive:
            for name in archive.namelist():
                if is_image(name) and not name.endswith("/"):
                    yield Candidate(name, identity(name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        with self._opened() as archive:
            for name in sorted(set(names) & set(archive.namelist())):
                yield name, _member(archive, name)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with _damage_named(self.path):
            archive = zipfile.ZipFile(self.path)
        with archive:
            yield archive


def _member(archive: zipfile.ZipFile, name: str) -> bytes | Skipped:
    member = archive.getinfo(name)
    reason = too_large(member.file_size)  # zipfile reads no more than that
    if reason is not None:
        return Skipped(name, reason)
    try:
        return archive.read(name)
    except DAMAGES as error:  # RuntimeError: a password is needed
        return Skipped(name, f"is damaged or encrypted: {error}")


@dataclass(frozen=True)
class TarArchive:
    """The images in the tar file `path`, also compressed by gzip, called as there; links are left out. Of members of
    one name the first counts. They come in the order of the archive: a step back would decompress it anew."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        with _damage_named(self.path), _open_tar(self.path) as archive:
            for member in _images(archive):
                yield Candidate(member.name, identity(member.name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        wanted = set(names)
        with _damage_named(self.path), _open_tar(self.path) as archive:
            for member in _images(archive):
                if member.name not in wanted:
                    continue
                wanted.remove(member.name)
                reason = too_large(member.size)
                file = archive.extractfile(member) if reason is None else None
                yield member.name, file.read() if file is not None else Skipped(member.name, reason or "is no file")


def _images(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept
        if member.isreg() and is_image(member.name):
            yield member
    assert isinstance(archive.fileobj, _Bounded)
    if any(archive.fileobj.last):  # tarfile takes a damaged header for the end, which is zeros or nothing
        raise tarfile.ReadError(f"no header at byte {archive.offset}")


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        compressed = file.peek(2).startswith(GZIP_MAGIC)
        raw = gzip.GzipFile(fileobj=file) if compressed else file
        with _Bounded(raw) as bounded, tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


class _Bounded(io.BufferedReader):
    """A file of which no piece larger than a image may be had: tarfile reads headers of any size that they claim.
    `last` is what was read last."""

    last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_BYTES:
            raise tarfile.ReadError(f"a header that claims {size} bytes")
        self.last = super().read(size)
        return self.last


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except ConfigurationError:
        raise
    except DAMAGES as error:
        raise ConfigurationError(f"{path} is no readable archive: {error}; make it anew") from None
