"""The bundle: a folder with a manifest, opened for reading, and written atomically."""

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

from align_runtime.devices import targets_on
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.json_files import read_object
from align_runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from align_runtime.precision import RULES


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. A file that is asked for exists with the size that the manifest lists."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | os.PathLike[str], complete: bool = True) -> Bundle:
        """Opens the bundle in `folder`. Sizes of files are compared; hashes are not, see `check_hash`.

        Args:
            complete: whether every file must be there; if not, a file is looked at when it is asked for.

        Raises:
            BundleError: the folder or manifest is missing, the manifest is not valid or has another schema version, or
                a file is missing, has another size, or is a link that leaves the bundle.
        """
        path = Path(folder)
        if not path.is_dir():
            problem = "is not a folder" if path.exists() else "does not exist"
            raise BundleError(f"{path} {problem}; expected a bundle, the folder that align-export writes")
        if not (path / MANIFEST_NAME).is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST_NAME}; expected the folder that align-export writes"
            )
        where = str(path / MANIFEST_NAME)
        bundle = cls(path, Manifest.from_json(read_object(path / MANIFEST_NAME, BundleError), where))
        for name in bundle.manifest.files if complete else ():
            bundle.path(name)
        return bundle

    def graph(self, tower: str, variant: str, device: str) -> Graph:
        """The graph of `tower` in `variant` that was built for `device`, otherwise the one for any target.

        `variant` may be exact, e.g. ``"int8_cpu"``, which selects the graph for that target alone.

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
        if not any(graph.tower == tower for graph in self.manifest.graphs):
            others = tuple(dict.fromkeys(graph.tower for graph in self.manifest.graphs))
            raise ConfigurationError(
                f"the bundle {self.folder} has no {tower} graphs; load it with towers={others!r}, or export it again"
            )
        optional = RULES.keys() - {"fp32"}  # FP32 is always exported
        advice = f"; export it again with --{variant}, or choose one of these" if variant in optional else ""
        raise ConfigurationError(
            f"precision {variant!r} is not in the bundle {self.folder} for the {tower} tower on {device}; it has: "
            f"{', '.join(dict.fromkeys(graph.variant for graph in usable.values())) or 'none'}{advice}"
        )

    def graphs_on(self, device: str) -> list[Graph]:
        """The graphs that can be verified on `device`: those that it runs, and on a CPU also those for GPUs."""
        return [graph for graph in self.manifest.graphs if device == "cpu" or graph.target in targets_on(device)]

    def graph_file(self, graph: Graph, check_hashes: bool = False) -> Path:
        """Path of the ONNX file of `graph`.

        Args:
            check_hashes: compare the sha256 of the file and of its external data with the manifest.

        Raises:
            BundleError: a hash differs.
        """
        file, *_ = [self.check_hash(name) if check_hashes else self.path(name) for name in graph.files]
        return file

    def path(self, name: str) -> Path:
        """Path of the file `name`, which exists with the size that the manifest lists.

        Raises:
            BundleError: the manifest does not list it, or it is missing, has another size, or is a link that leaves the
                bundle.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: the manifest does not list a file {name!r}")
        file, size = self.folder / name, self.manifest.files[name].bytes
        if not file.is_file():
            raise BundleError(f"{self.folder}: {name} is missing; the copy of the bundle is incomplete")
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(f"{self.folder}: {name} is a link that leaves the bundle")
        if file.stat().st_size != size:
            raise BundleError(
                f"{self.folder}: {name} has {file.stat().st_size} bytes, expected {size}; the file was changed after "
                "the export, or its copy is incomplete"
            )
        return file

    def read_data(self, graph: Graph) -> dict[str, bytes]:
        """Content of the external data of `graph` by file name, as the graph refers to it; empty if it has none."""
        return {} if graph.data is None else {Path(graph.data).name: self.path(graph.data).read_bytes()}

    def check_hash(self, name: str) -> Path:
        """Path of the file `name`, after a comparison of its sha256 with the manifest.

        Raises:
            BundleError: the hash differs, or the manifest does not list the file.
        """
        path = self.path(name)
        digest = sha256_of(path)
        if digest != self.manifest.files[name].sha256:
            raise BundleError(
                f"{self.folder}: {name} has sha256 {digest[:16]}…, expected {self.manifest.files[name].sha256[:16]}…; "
                "the file was changed after the export"
            )
        return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def check_destination(folder: Path) -> None:
    """Raises ConfigurationError unless `folder` is missing, empty or a bundle, and can be replaced atomically."""
    if folder.is_symlink():
        raise ConfigurationError(f"{folder} is a link to {folder.readlink()}; name the folder itself")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} exists and is not a folder; choose another output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).is_file():
        raise ConfigurationError(
            f"{folder} exists and is not a bundle (it has no {MANIFEST_NAME}); nothing was changed, choose another"
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigurationError(
            f"{folder} contains the current folder and cannot be replaced; name a folder inside it"
        )
    if folder.is_mount():
        raise ConfigurationError(f"{folder} is a mount point and cannot be replaced; name a folder inside it")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which replaces it when the block ends without an error, otherwise is removed.

    The replacement is atomic on Linux: a process that is killed leaves the previous content of `folder` complete. The
    next call removes temporary folders that killed processes left behind.

    Raises:
        ConfigurationError: `folder` exists and is not a bundle.
    """
    check_destination(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    staging = folder.parent / f"{_leftover_prefix(folder)}{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
        check_destination(folder)  # again: files may have been put there during a build of minutes
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _leftover_prefix(folder: Path) -> str:
    """Contains the host's name: on a shared disk, processes of other hosts cannot be checked."""
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
    if _exchange(staging, folder):  # `staging` is now the previous bundle, which `staged` removes
        return
    # Without an exchange it takes two steps, between which the previous bundle has only its temporary name.
    previous = folder.parent / f".{folder.name}.previous-{secrets.token_hex(4)}"
    folder.rename(previous)
    staging.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _exchange(left: Path, right: Path) -> bool:
    """Swaps two folders atomically with Linux's ``renameat2(RENAME_EXCHANGE)``; False where that is not supported."""
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
