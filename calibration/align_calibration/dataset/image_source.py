"""From a path to the source of images that it is."""

from __future__ import annotations

from pathlib import Path

from align_calibration.dataset.image_archives import TarArchive, ZipArchive
from align_calibration.dataset.image_files import ImageFolder, ImageList
from align_calibration.dataset.source import Source
from align_runtime.errors import ConfigurationError


def open_images(path: Path) -> Source:
    """The images of `path`: a folder, or a file whose name says what it is.

    Raises:
        ConfigurationError: it is not there, or of another kind.
    """
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise ConfigurationError(f"{path} {'is no file' if path.exists() else 'does not exist'}; name some images")
    name = path.name.lower()
    if name.endswith(".txt"):
        return ImageList(path)
    if name.endswith(".zip"):
        return ZipArchive(path)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return TarArchive(path)
    raise ConfigurationError(
        f"{path} is neither a folder of images, nor a list of their paths (.txt), nor an archive (.zip, .tar, "
        ".tar.gz, .tgz)"
    )
