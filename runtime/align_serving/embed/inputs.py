"""The inputs of a command: patterns expanded, each opened by what it is."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_runtime.errors import ConfigurationError
from align_runtime.image_options import DEFAULT_IMAGES, SUFFIXES, ImageOptions
from align_runtime.user_path import user_path
from align_serving.embed.image_sources import ARCHIVE_SUFFIXES, ImageArchive, ImageFile, ImageFolder
from align_serving.embed.items import Kind, Source
from align_serving.embed.parquet_rows import ParquetRows
from align_serving.embed.rows import DEFAULT_COLUMNS, READERS, Columns, TextRows


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read.

    Attributes:
        kind: what they hold; None where it follows from each: text files are texts then, and not lists of images.
        columns: of .jsonl, .csv and Parquet.
        qualified: whether ids of images in archives begin with the path of the archive.
        images: their limits bound what is read of an image.
    """

    kind: Kind | None = None
    columns: Columns = DEFAULT_COLUMNS
    qualified: bool = False
    images: ImageOptions = DEFAULT_IMAGES


def open_inputs(names: Sequence[str], options: InputOptions) -> list[Source]:
    """A source for each of `names`, which may be patterns; all of one kind.

    Raises:
        ConfigurationError: one does not exist, cannot be read, is of no known type or of another kind, or a column is
            missing.
        BackendUnavailableError: pyarrow is not installed, and one is a Parquet file.
    """
    sources = [_open(path, options) for name in names for path in _expanded(name)]
    kinds = {source.kind: source.name for source in sources}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"{kinds['images']} holds images and {kinds['texts']} texts; embed them into outputs of their own, or say "
            "--images where text files are lists of images"
        )
    return sources


def _expanded(name: str) -> Iterator[Path]:
    path = user_path(name)
    if os.path.lexists(path) or not glob.has_magic(name):
        yield path
        return
    found = sorted(glob.iglob(str(path), recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if not found:
        raise ConfigurationError(f"no file matches {name}; check the pattern")
    yield from map(Path, found)


def _open(path: Path, options: InputOptions) -> Source:
    if path.is_dir():
        return _checked(ImageFolder(path), options, "folder")
    if not path.is_file():
        raise ConfigurationError(f"{path} {'is not a file or folder' if path.exists() else 'does not exist'}")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{path} cannot be read; check its permissions")
    suffix, limit = path.suffix.lower(), options.images.max_file_bytes
    if suffix in READERS:
        return TextRows(path, options.kind or "texts", options.columns)
    if suffix == ".parquet":
        return ParquetRows(path, options.kind, options.columns, limit)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return _checked(ImageArchive(path, limit, options.qualified), options, "archive")
    if suffix in SUFFIXES:
        return _checked(ImageFile(path), options, "image")
    raise ConfigurationError(
        f"{path} is of no type that is read; expected a folder, an image, an archive ({' '.join(ARCHIVE_SUFFIXES)}), "
        f".parquet, or a text file ({' '.join(READERS)})"
    )


def _checked(source: Source, options: InputOptions, what: str) -> Source:
    if options.kind == "texts":
        raise ConfigurationError(f"{source.name} holds images ({what}), and --texts was given; leave one out")
    return source
