"""The bundle: a folder with a manifest, opened for reading or written so that it is there whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from align_runtime.bundle_paths import MANIFEST_NAME
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.graph_entry import Graph, targets_on
from align_runtime.json_files import read_object
from align_runtime.manifest import FileEntry, Manifest


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: all files of the manifest exist and have the sizes that it gives."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Bundle:
        """Opens the bundle in `folder`. Contents are not hashed here: see `check_hashes`.

        Raises:
            BundleError: no folder, no manifest, a damaged or foreign manifest, a file that is missing, of another
                size, or a link to a place outside.
        """
        path = Path(folder)
        if not path.is_dir():
            raise BundleError(f"{path} is not a folder; a bundle is the folder that align-export wrote")
        if not (path / MANIFEST_NAME).is_file():
            raise BundleError(f"{path} holds no {MANIFEST_NAME}; it is not a bundle (align-export writes them)")
        where = str(path / MANIFEST_NAME)
        bundle = cls(path, Manifest.from_json(read_object(path / MANIFEST_NAME, BundleError), where))
        root = path.resolve()
        for name, entry in bundle.manifest.files.items():
            file = path / name
            if not file.is_file():
                raise BundleError(f"{path}: {name} is missing; the copy of the bundle is incomplete")
            if not file.resolve().is_relative_to(root):
                raise BundleError(f"{path}: {name} is a link that leaves the bundle")
            if file.stat().st_size != entry.bytes:
                raise BundleError(
                    f"{path}: {name} has {file.stat().st_size} bytes, the manifest says {entry.bytes}; "
                    "the file is damaged or was replaced"
                )
        return bundle

    def graph(self, tower: str, variant: str, device: str) -> Graph:
        """The graph of `tower` in `variant` that was made for `device`, or else the one that runs everywhere.

        `variant` may be exact, as in ``"int8_cpu"``: the graph for that target or none.

        Raises:
            ConfigurationError: the bundle has no such variant for this device.
        """
        usable = {
            (name, graph.target): graph
            for graph in self.manifest.graphs
            if graph.tower == tower and graph.target in targets_on(device)
            for name in (graph.variant, graph.exact_variant)
        }
        for target in targets_on(device):
            if (variant, target) in usable:
                return usable[variant, target]
        raise ConfigurationError(
            f"precision {variant!r} is not in the bundle {self.folder} for the {tower} tower on {device}; it holds: "
            f"{', '.join(dict.fromkeys(graph.variant for graph in usable.values())) or 'nothing'}"
        )

    def graphs_on(self, device: str) -> list[Graph]:
        """The graphs whose numbers can be checked on `device`: those that it runs, and on a CPU those for GPUs too."""
        return [graph for graph in self.manifest.graphs if device == "cpu" or graph.target in targets_on(device)]

    def path(self, name: str) -> Path:
        """Where the listed file `name` lies."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: the manifest lists no file {name!r}")
        return self.folder / name

    def check_hash(self, name: str) -> Path:
        """Path of the listed file `name`, once its sha256 was found right; BundleError otherwise."""
        path = self.path(name)
        digest = sha256_of(path)
        if digest != self.manifest.files[name].sha256:
            raise BundleError(
                f"{self.folder}: {name} has sha256 {digest[:16]}…, the manifest says "
                f"{self.manifest.files[name].sha256[:16]}…; the file is damaged or was replaced"
            )
        return path


def sha256_of(path: Path) -> str:
    """sha256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inventory(folder: Path) -> dict[str, FileEntry]:
    """Size and sha256 of every file in `folder` but the manifest, by path: `Manifest.files` of a bundle to be."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest` as the ``align.json`` of `folder`."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def check_destination(folder: Path) -> None:
    """Raises ConfigurationError unless `folder` is free, empty, or a bundle, and can be replaced in one step."""
    if folder.is_symlink():
        raise ConfigurationError(f"{folder} is a link to {folder.readlink()}; name the folder itself")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} exists and is no folder; choose another output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).is_file():
        raise ConfigurationError(
            f"{folder} exists and is no bundle (it holds no {MANIFEST_NAME}); nothing was touched, choose another one"
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{folder} holds the current folder and cannot be replaced; name a folder inside it")
    if folder.is_mount():
        raise ConfigurationError(f"{folder} is a mount point and cannot be replaced; name a folder inside it")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place in one step when the block ends well, and is removed else.

    Killed at any moment, what was in `folder` before is still there, whole. What killed builds left beside it is
    removed by the next one.

    Raises:
        ConfigurationError: `folder` exists and is no bundle.
    """
    check_destination(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    staging = folder.parent / f"{_leftover_prefix(folder)}{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
        check_destination(folder)  # once more: a build takes minutes, in which someone may have put files there
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _leftover_prefix(folder: Path) -> str:
    """Names the host too: on a shared disk, another host's processes cannot be asked whether they live."""
    return f".{folder.name}.building-{platform.node()}-"


def _remove_leftovers(folder: Path) -> None:
    prefix = _leftover_prefix(folder)
    for path in folder.parent.glob(f"{glob.escape(prefix)}*"):
        process = path.name.removeprefix(prefix).split("-")[0]
        if not (process.isdigit() and _alive(int(process))):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _replace(staging: Path, folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        staging.rename(folder)  # POSIX: an empty folder is replaced in the same step
        return
    if _exchange(staging, folder):  # `staging` is now the previous bundle, which the caller removes
        return
    # No exchange on this system: two steps, with the previous bundle beside its place for the moment in between.
    previous = folder.parent / f".{folder.name}.previous-{secrets.token_hex(4)}"
    folder.rename(previous)
    staging.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _exchange(left: Path, right: Path) -> bool:
    """Swaps two folders in one step with Linux's ``renameat2(RENAME_EXCHANGE)``; False where it cannot be had."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    at_fdcwd, rename_exchange = -100, 2
    if libc.renameat2(at_fdcwd, os.fsencode(left), at_fdcwd, os.fsencode(right), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(right))
