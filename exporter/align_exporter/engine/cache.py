"""Engines that are there already: whether one is still what a build would give, and its way into a new bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.engines import (
    ENGINES,
    EngineEntry,
    EngineOptions,
    Machine,
    Shapes,
    check_plan,
    engines_of,
    sidecar_of,
)
from align_runtime.errors import BundleError
from align_runtime.manifest import Manifest


def engine_staleness(
    bundle: Bundle,
    wanted: tuple[str, str],
    source: dict[str, str],
    machine: Machine,
    options: EngineOptions,
    profiles: tuple[Shapes, ...],
) -> tuple[EngineEntry | None, str]:
    """The engine of `wanted`, tower and variant, that a build would only repeat; or None and why there is none."""
    try:
        built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == wanted]
    except BundleError as error:
        return None, str(error)
    changes = [(list(_changes(entry, source, machine, options, profiles)), entry) for entry in built]
    for found, entry in changes:
        if not found:
            try:
                check_plan(bundle, entry)
            except BundleError as error:
                return None, str(error)
            return entry, ""
    if not changes:
        return None, "there is none yet"
    nearest = min((found for found, _ in changes), key=_count)
    return None, f"other {', '.join(nearest)}"


def _count(found: list[str]) -> int:
    return len(found)


def _changes(
    entry: EngineEntry, source: dict[str, str], machine: Machine, options: EngineOptions, profiles: tuple[Shapes, ...]
) -> Iterator[str]:
    if entry.source != source:
        yield "graph"
    if [dict(shapes) for shapes in entry.profiles] != [dict(shapes) for shapes in profiles]:
        yield "profiles"
    if entry.options != options:
        yield "options"
    if (entry.machine.gpu, entry.machine.compute_capability) != (machine.gpu, machine.compute_capability):
        yield f"GPU ({machine.gpu}, not {entry.machine.gpu})"
    if entry.machine.tensorrt != machine.tensorrt:
        yield f"TensorRT ({machine.tensorrt}, not {entry.machine.tensorrt})"


def keep_engines(previous: Path, folder: Path, manifest: Manifest) -> None:
    """Takes engines and timing caches of the bundle `previous` over into `folder`, a bundle that takes its place.

    Engines of graphs that `manifest` does not hold any more stay behind.
    """
    try:
        bundle = Bundle.open(previous)
        built = engines_of(bundle)
    except BundleError:
        return  # damaged: nothing of it is taken over
    (folder / ENGINES).mkdir(exist_ok=True)
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()}
    for entry in built:
        if entry.source.items() <= hashes.items() and (previous / entry.file).is_file():
            _link(previous / entry.file, folder / entry.file)
            _link(sidecar_of(previous / entry.file), sidecar_of(folder / entry.file))
    for timings in (previous / ENGINES).glob("*.timings"):
        _link(timings, folder / ENGINES / timings.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
