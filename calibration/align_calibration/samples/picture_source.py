"""From a path to the source of pictures that it is."""

from __future__ import annotations

from pathlib import Path

from align_calibration.samples.picture_archives import TarArchive, ZipArchive
from align_calibration.samples.picture_files import PictureFolder, PictureList
from align_calibration.samples.source import Source
from align_runtime.errors import ConfigurationError


def open_pictures(path: Path) -> Source:
    """The pictures of `path`: a folder, or a file whose name says what it is.

    Raises:
        ConfigurationError: it is not there, or of another kind.
    """
    if path.is_dir():
        return PictureFolder(path)
    if not path.is_file():
        raise ConfigurationError(f"{path} {'is no file' if path.exists() else 'does not exist'}; name some pictures")
    name = path.name.lower()
    if name.endswith(".txt"):
        return PictureList(path)
    if name.endswith(".zip"):
        return ZipArchive(path)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return TarArchive(path)
    raise ConfigurationError(
        f"{path} is neither a folder of pictures, nor a list of their paths (.txt), nor an archive (.zip, .tar, "
        ".tar.gz, .tgz)"
    )
