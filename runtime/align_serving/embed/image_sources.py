"""Images in folders, files and archives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from align_runtime.archives.opened import READ_ERRORS, Archive, open_archive
from align_runtime.archives.tar_reader import Member
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.foreign_text import printable
from align_runtime.image_options import is_image_name
from align_serving.embed.items import DIGEST_BYTES, Item, Kind, check_storage, file_identity, text_id

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
FILE_UNITS = 100_000  # bytes of a photograph, which is not opened for an estimate of the time left


@dataclass(frozen=True)
class ImageFile:
    """One image, whose id is its path."""

    path: Path
    kind: Kind = "images"
    in_files: bool = True
    units: int = FILE_UNITS

    @property
    def name(self) -> str:
        return str(self.path)

    def describe(self) -> dict[str, Any]:
        return {"image": text_id(self.name)}

    def items(self) -> Iterator[Item]:
        yield image_file(text_id(self.name), self.path)


def image_file(id: str, path: Path) -> Item:
    """The item of an image in a file, which is read when its turn comes."""
    return Item(id, file_identity(path), FILE_UNITS, lambda: path)


@dataclass(frozen=True)
class ImageFolder:
    """The images in the folder `path` and its subfolders, recognized by suffix, with their paths as ids.

    Hidden files and folders and links to folders are left out. The files of a folder come before those of its
    subfolders, in the order of their names, so that only one folder is held in memory.
    """

    path: Path
    kind: Kind = "images"
    in_files: bool = True

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def units(self) -> int:
        return self._listing[0] * FILE_UNITS

    def describe(self) -> dict[str, Any]:
        count, names = self._listing
        return {"folder": text_id(self.name), "images": count, "names": names}

    def items(self) -> Iterator[Item]:
        return (image_file(text_id(str(path)), path) for path in self._paths())

    @cached_property
    def _listing(self) -> tuple[int, str]:
        """Number of the images, and a digest of their names."""
        digest, count = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
        for count, path in enumerate(self._paths(), start=1):  # noqa: B007
            digest.update(os.fsencode(path) + b"\0")
        return count, digest.hexdigest()

    def _paths(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.path, onerror=_raise_unsearchable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if is_image_name(name):
                    yield Path(folder) / name


def _raise_unsearchable(error: OSError) -> None:
    raise ConfigurationError(
        f"cannot search {error.filename} for images: {error.strerror}; check that it exists and its permissions"
    )


@dataclass(frozen=True)
class ImageArchive:
    """The images in a tar or zip file, WebDataset shards among them, recognized by suffix, with their names as ids.

    They are read in the order of the archive. A name that occurs twice gives two items. Links, devices and other files
    are left out.

    Attributes:
        max_bytes: of an image.
        qualified: whether ids begin with the path of the archive.
    """

    path: Path
    max_bytes: int
    qualified: bool = False
    kind: Kind = "images"
    in_files: bool = False

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def units(self) -> int:
        return self.path.stat().st_size

    def describe(self) -> dict[str, Any]:
        return {"archive": text_id(self.name), "bytes": self.units}

    def items(self) -> Iterator[Item]:
        whole = file_identity(self.path)
        with open_archive(self.path, InputError) as archive:
            for member in archive.members():
                if is_image_name(member.name):
                    name = f"{self.path}/{member.name}" if self.qualified else member.name
                    identity = whole + b" %d" % member.size
                    load, place = partial(self._content, archive, member), partial(archive.extent, member)
                    yield Item(text_id(name), identity, member.size, load, place)

    def _content(self, archive: Archive, member: Member) -> bytes:
        if member.size > self.max_bytes and not member.sparse:
            raise InputError(f"it has {member.size} bytes; expected at most {self.max_bytes}")
        try:
            return archive.content(member)
        except InputError as error:
            check_storage(self.name, error.__cause__)
            raise
        except READ_ERRORS as error:  # the archive ends here, as asking for the next member will tell
            check_storage(self.name, error)
            raise InputError(f"it cannot be read from the archive: {printable(str(error), 200)}") from None
