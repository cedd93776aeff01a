"""The bundle: a folder with a manifest, opened for reading."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from align_runtime.computed import computed_on, devices_for
from align_runtime.devices import backend_of, targets_on
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.folder_exchange import interrupted
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import Graph
from align_runtime.graph_file import check_graph_file
from align_runtime.hub import is_in_cache
from align_runtime.json_files import parse_object
from align_runtime.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest
from align_runtime.precision import RULES
from align_runtime.regular_files import open_regular, read_regular
from align_runtime.user_path import user_path


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. A file that is asked for exists with the size that the manifest lists.

    Attributes:
        folder: where it is.
        manifest: the content of its ``align.json``.
        manifest_sha256: of the bytes that the manifest was read from, in hexadecimal.
    """

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, folder: str | os.PathLike[str], manifest_sha256: str | None = None, complete: bool = True) -> Bundle:
        """Opens the bundle in `folder`. Sizes of files are compared; hashes are not, see `check_hash`.

        Args:
            manifest_sha256: the sha256 that ``align.json`` must have, in hexadecimal; None for any. It stands for every
                file that the manifest lists, if their hashes are checked too.
            complete: whether every file must be there; if not, a file is looked at when it is asked for.

        Raises:
            BundleError: the folder or manifest is missing, the manifest is not valid, has another schema version or
                another sha256, or a file is missing, has another size, is not a regular file, or is a link that leaves
                the bundle and, in a cache of the Hugging Face hub, the repository of the bundle.
        """
        try:
            path = user_path(folder).absolute()  # files that are opened later are found after a change of folder
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as reason:  # a name that is too long, a current folder that was removed
            raise BundleError(f"{folder!s} cannot be opened: {reason.strerror}") from None
        if not is_folder:
            problem = "is not a folder" if exists else "does not exist"
            advice = interrupted(path) or "expected a bundle, the folder that align-export writes"
            raise BundleError(f"{path} {problem}; {advice}")
        if not os.path.lexists(path / MANIFEST_NAME):
            advice = interrupted(path) or "expected the folder that align-export writes"
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_NAME}; {advice}")
        where, root = str(path / MANIFEST_NAME), path.resolve()
        _check_place(path, root, MANIFEST_NAME)
        content = read_regular(path / MANIFEST_NAME, MAX_MANIFEST_BYTES, BundleError)
        digest = hashlib.sha256(content).hexdigest()
        if manifest_sha256 is not None and digest != manifest_sha256:
            raise BundleError(
                f"{where} has sha256 {digest}, expected {manifest_sha256}; this is not the bundle that was pinned"
            )
        bundle = cls(path, Manifest.from_json(parse_object(content, where, BundleError), where), digest)
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
            for graph in computed_on(device, self.manifest.graphs)
            if graph.tower == tower
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
        advice = ""
        if devices_for(variant):
            advice = f"; {variant} is computed by device={' or '.join(map(repr, devices_for(variant)))}"
        elif variant in RULES.keys() - {"fp32"} and backend_of(device).variants is None:  # FP32 is always exported
            advice = f"; export it again with --{variant}, or choose one of these"
        raise ConfigurationError(
            f"precision {variant!r} is not in the bundle {self.folder} for the {tower} tower on {device}; it has: "
            f"{', '.join(dict.fromkeys(graph.variant for graph in usable.values())) or 'none'}{advice}"
        )

    def graphs_on(self, device: str) -> list[Graph]:
        """The graphs that can be verified on `device`: those that it runs, and on a CPU also those for GPUs."""
        return list(self.manifest.graphs) if device == "cpu" else computed_on(device, self.manifest.graphs)

    def graph_file(self, graph: Graph, check_hashes: bool = False) -> Path:
        """Path of the ONNX file of `graph`, after a check that it needs no other file than the manifest says.

        Args:
            check_hashes: compare the sha256 of the file and of its external data with the manifest.

        Raises:
            BundleError: a hash differs, or the file is not a graph as `align_runtime.graph_file` allows it.
        """
        file, *_ = [self.check_hash(name) if check_hashes else self.path(name) for name in graph.files]
        check_graph_file(file, None if graph.data is None else PurePosixPath(graph.data).name)
        return file

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of the file `name`, whose sha256 is that of the manifest: what was hashed is what is used.

        Raises:
            BundleError: as in `check_hash`, or it has more than `max_bytes` bytes.
        """
        content = read_regular(self.path(name), max_bytes, BundleError)
        self.check_digest(name, hashlib.sha256(content).hexdigest())
        return content

    def path(self, name: str) -> Path:
        """Path of the file `name`, which exists with the size that the manifest lists.

        Raises:
            BundleError: the manifest does not list it, or it is missing, has another size, is not a regular file, or is
                a link that leaves the bundle (see `open`).
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: the manifest does not list a file {shortened(name)}")
        size, expected = _check_place(self.folder, self.folder.resolve(), name), self.manifest.files[name].bytes
        if size != expected:
            raise BundleError(
                f"{self.folder}: {name} has {size} bytes, expected {expected}; the file was changed after the export, "
                "or its copy is incomplete"
            )
        return self.folder / name

    def read_data(self, graph: Graph) -> dict[str, bytes]:
        """Content of the external data of `graph` by file name, as the graph refers to it; empty if it has none.

        Raises:
            BundleError: as in `read`.
        """
        if graph.data is None:
            return {}
        return {Path(graph.data).name: self.read(graph.data, self.manifest.files[graph.data].bytes)}

    def check_hash(self, name: str) -> Path:
        """Path of the file `name`, after a comparison of its sha256 with the manifest.

        Raises:
            BundleError: the hash differs, or the manifest does not list the file.
        """
        path = self.path(name)
        self.check_digest(name, sha256_of(path))
        return path

    def check_digest(self, name: str, digest: str) -> None:
        """Raises BundleError unless `digest` is the sha256 that the manifest lists for the file `name`."""
        expected = self.manifest.files[name].sha256
        if digest != expected:
            raise BundleError(
                f"{self.folder}: {name} has sha256 {digest[:16]}…, expected {expected[:16]}…; the file was changed "
                "after the export"
            )


def _check_place(folder: Path, root: Path, name: str) -> int:
    """Size of the file `name` of a bundle, which must be a regular file inside of `root`, the bundle's real folder.

    Raises:
        BundleError: it is not.
    """
    file = folder / name
    try:
        status = file.stat()
        inside = file.resolve().is_relative_to(root) or is_in_cache(file, root)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        advice = interrupted(folder) or "the copy of the bundle is incomplete"
        raise BundleError(f"{folder}: {name} is missing; {advice}") from None
    if not inside:
        raise BundleError(f"{folder}: {name} is a link that leaves the bundle; copy the files, not the links")
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{folder}: {name} is not a regular file; copy the bundle again")
    return status.st_size


def sha256_of(path: Path) -> str:
    """The sha256 of a regular file in hexadecimal. Raises BundleError where it cannot be read."""
    with open_regular(path, BundleError) as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
