"""The bundle: a folder with a manifest, opened for reading."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from align_runtime.devices import targets_on
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.folder_exchange import interrupted
from align_runtime.graph_entry import Graph
from align_runtime.hub import is_in_cache
from align_runtime.json_files import read_object
from align_runtime.manifest import MANIFEST_NAME, Manifest
from align_runtime.precision import RULES
from align_runtime.user_path import user_path


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, whose files all exist with the sizes that the manifest lists."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Bundle:
        """Opens the bundle in `folder`. Sizes of files are compared; hashes are not, see `check_hash`.

        Raises:
            BundleError: the folder or manifest is missing, the manifest is not valid or has another schema version, or
                a file is missing, has another size, or is a link that leaves the bundle and, in a cache of the
                Hugging Face hub, the repository of the bundle.
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
        if not (path / MANIFEST_NAME).is_file():
            advice = interrupted(path) or "expected the folder that align-export writes"
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_NAME}; {advice}")
        where = str(path / MANIFEST_NAME)
        bundle = cls(path, Manifest.from_json(read_object(path / MANIFEST_NAME, BundleError), where))
        root = path.resolve()
        for name, entry in bundle.manifest.files.items():
            file = path / name
            if not file.is_file():
                raise BundleError(
                    f"{path}: {name} is missing; {interrupted(path) or 'the copy of the bundle is incomplete'}"
                )
            if not (file.resolve().is_relative_to(root) or is_in_cache(file, root)):
                raise BundleError(f"{path}: {name} is a link that leaves the bundle; copy the files, not the links")
            if file.stat().st_size != entry.bytes:
                raise BundleError(
                    f"{path}: {name} has {file.stat().st_size} bytes, expected {entry.bytes}; the file was changed "
                    "after the export, or its copy is incomplete"
                )
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
        """Path of the file `name`.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: the manifest does not list a file {name!r}")
        return self.folder / name

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
