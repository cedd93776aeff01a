"""Images in files: those in a folder, and those that a list names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from align_calibration.dataset.sample_source import Candidate, Skipped, encode, read_lines
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.image_options import is_image_name
from align_runtime.regular_files import read_regular

MAX_BYTES = 1 << 28  # of one image, which is held in memory


@dataclass(frozen=True)
class ImageFolder:
    """The images in the folder `path` and its subfolders, recognized by suffix and named by relative path.

    Hidden files and folders and links to folders are ignored.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def candidates(self) -> Iterator[Candidate]:
        for folder, folders, files in os.walk(self.path, onerror=_raise_unsearchable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                name = (Path(folder) / file).relative_to(self.path).as_posix()
                if is_image_name(name):
                    yield Candidate(name, encode(name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        return _read_files(self.path, names)


@dataclass(frozen=True)
class ImageList:
    """The images that the text file `path` names, one per line, by paths relative to the list's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        for number, line in read_lines(self.path):
            if not line.strip():
                continue
            name = PurePosixPath(line.rstrip("\r\n"))
            if name.is_absolute():
                raise ConfigurationError(
                    f"{self.path}, line {number} is an absolute path; write paths relative to the list's folder, "
                    "because the bundle records them and must not contain paths of this machine"
                )
            yield Candidate(str(name), encode(str(name)))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        return _read_files(self.path.parent, names)


def too_large(size: int) -> str | None:
    """The reason to skip an image of `size` bytes; None where it is small enough."""
    return f"it has {size} bytes; expected at most {MAX_BYTES}" if size > MAX_BYTES else None


def _read_files(folder: Path, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
    for name in sorted(names):
        yield name, _read_file(folder / name, name)


def _read_file(path: Path, name: str) -> bytes | Skipped:
    try:
        return read_regular(path, MAX_BYTES, InputError, name="it")  # the bundle records the reason, and not the path
    except InputError as error:
        return Skipped(name, error.message)


def _raise_unsearchable(error: OSError) -> None:
    raise ConfigurationError(
        f"cannot search {error.filename} for images: {error.strerror}; check that it exists and its permissions"
    )
