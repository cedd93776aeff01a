"""Writing a bundle: beside its place, then into it as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from align_runtime.bundle import Bundle, sha256_of
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.folder_exchange import check_replaceable, finish_interrupted, is_empty, new_folder, replace
from align_runtime.manifest import MANIFEST_NAME, FileEntry, Manifest


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which replaces it when the block ends without an error, otherwise is removed.

    A process that is killed at any moment leaves the previous or the new content complete: at `folder`, or, where the
    file system has no atomic exchange, beside it, and then the next call puts it there.

    Raises:
        ConfigurationError: as in `prepare_destination`.
        BuildError: the finished folder cannot take the place of `folder`; the message says where it is.
    """
    prepare_destination(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as staging:
        yield staging
        check_destination(folder)  # again: files may have been put there during a build of minutes
        replace(staging, folder, MANIFEST_NAME)


def prepare_destination(folder: Path) -> None:
    """Checks that a bundle can be written at `folder`, and finishes a replacement there whose process was killed.

    Raises:
        ConfigurationError: as in `check_destination`, or nothing can be written there, or the bundle that is there can
            be neither moved nor removed, e.g. because it is a mount point.
    """
    check_destination(folder)
    check_replaceable(folder)
    finish_interrupted(folder, MANIFEST_NAME, lambda: _is_whole(folder))


def check_destination(folder: Path) -> None:
    """Raises ConfigurationError unless `folder` is missing, empty or a bundle."""
    if folder.is_symlink():
        raise ConfigurationError(f"{folder} is a link to {folder.readlink()}; name the folder itself")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} exists and is not a folder; choose another output")
    if not is_empty(folder) and not (folder / MANIFEST_NAME).is_file():
        raise ConfigurationError(
            f"{folder} exists and is not a bundle (it has no {MANIFEST_NAME}); nothing was changed, choose another"
        )
    with suppress(FileNotFoundError):  # the current folder was removed
        if Path.cwd().is_relative_to(folder.resolve()):
            raise ConfigurationError(
                f"{folder} contains the current folder and cannot be replaced; name a folder inside it"
            )


def _is_whole(folder: Path) -> bool:
    try:
        Bundle.open(folder)
    except BundleError:
        return False
    return True


def check_space(folder: Path, needed: int) -> None:
    """Checks, before minutes of work, that the disk of `folder` has `needed` bytes, a lower bound of what is written.

    Raises:
        ConfigurationError: it has less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"the disk of {folder} has {free / 1e6:.0f} MB free; the bundle takes at least {needed / 1e6:.0f} MB: free "
            "some space or choose another output"
        )


def inventory(folder: Path) -> dict[str, FileEntry]:
    """Size and sha256 by path of every file in `folder` except the manifest; the value of `Manifest.files`."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest` as the ``align.json`` of `folder`."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
