"""The folder ``engines/`` of a bundle: files written into it, and those that move from an old bundle into a new one.

An old bundle may have been changed by a stranger. Nothing here follows a link or writes over another file of a bundle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from glob import escape
from itertools import islice
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.devices import targets_on
from align_runtime.engine_targets import Machine
from align_runtime.engines import ENGINES, EngineEntry, engines_of, read_plan, sidecar_of
from align_runtime.errors import BuildError, BundleError
from align_runtime.manifest import Manifest
from align_runtime.regular_files import read_regular

logger = logging.getLogger(__name__)
TIMINGS = ".timings"
MAX_TIMINGS_BYTES = 1 << 28  # of a timing cache; TensorRT's have a few megabytes
MAX_TIMINGS = 64
COMPILED = ".compiled"  # what TensorRT for RTX compiled for one GPU and driver
MAX_COMPILED_BYTES = 1 << 30


def engines_folder(bundle: Path) -> Path:
    """The folder for engines in the bundle folder `bundle`, which need not exist.

    Raises:
        BuildError: it is a link or a file.
    """
    folder = bundle / ENGINES
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BuildError(f"{folder} is not a folder of the bundle; remove it")
    return folder


def put_file(path: Path, content: bytes | memoryview) -> None:
    """Writes `content` to `path` in one step, and makes its folder. A link at `path` is replaced, not followed."""
    path.parent.mkdir(exist_ok=True)
    staged = path.with_name(f"{path.name}.building")
    staged.unlink(missing_ok=True)
    try:
        with staged.open("xb") as file:
            file.write(content)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def put_engine(bundle: Path, entry: EngineEntry, plan: bytes) -> None:
    """Writes the plan of `entry` and its description.

    A process that is killed in between leaves a plan without a description, which the runtime ignores.
    """
    target = engines_folder(bundle) / Path(entry.file).name
    sidecar_of(target).unlink(missing_ok=True)
    for compiled in target.parent.glob(f"{escape(target.stem)}.*{COMPILED}"):  # from the engine that is replaced
        compiled.unlink()
    put_file(target, plan)
    put_file(sidecar_of(target), f"{json.dumps(entry.to_json(), indent=2, allow_nan=False)}\n".encode())


def read_timings(path: Path) -> bytes:
    """The timing cache in `path`; empty where there is none. A link is none."""
    if path.is_symlink() or not path.exists():
        return b""
    return read_regular(path, MAX_TIMINGS_BYTES, BuildError)


def compiled_kernels_file(bundle: Path, entry: EngineEntry, machine: Machine) -> Path:
    """Where what TensorRT for RTX compiled of the engine `entry` on `machine` is kept."""
    return (bundle / entry.file).with_suffix(f".{machine.gpu_name}.cuda{machine.driver}{COMPILED}")


def read_compiled_kernels(path: Path) -> bytes:
    """The content of `path`, a file of compiled kernels; empty, with a warning, where it cannot be used."""
    if path.is_symlink() or not path.exists():
        return b""
    try:
        return read_regular(path, MAX_COMPILED_BYTES, BundleError)
    except BundleError as error:
        logger.warning("%s; kernels are compiled again", error)
        return b""


def keep_engines(previous: Path, folder: Path, manifest: Manifest) -> None:
    """Copies engines and timing caches of the bundle `previous` into `folder`, the bundle that replaces it.

    Left behind: engines of other graphs than those of `manifest`, plans that differ from their description,
    descriptions and caches that cannot be read, links, and all of a bundle that cannot be opened.
    """
    try:
        bundle = Bundle.open(previous, complete=False)
    except BundleError:
        return
    if (previous / ENGINES).is_symlink():
        return
    for entry in engines_of(bundle):
        if _is_of(entry, manifest):
            try:
                plan = read_plan(bundle, entry)
            except BundleError:
                continue
            put_engine(folder, entry, plan)
    for file in _timings(previous):
        try:
            content = read_timings(file)
        except BuildError:
            continue
        if content:
            put_file(engines_folder(folder) / file.name, content)


def _timings(bundle: Path) -> Iterable[Path]:
    return sorted(islice((bundle / ENGINES).glob(f"*{TIMINGS}"), MAX_TIMINGS))


def _is_of(entry: EngineEntry, manifest: Manifest) -> bool:
    """Whether `entry` was built from a graph of `manifest` as it is now."""
    return any(
        dict(entry.source) == {name: manifest.files[name].sha256 for name in graph.files}
        for graph in manifest.graphs
        if (graph.tower, graph.variant) == (entry.tower, entry.variant) and graph.target in targets_on("tensorrt")
    )
