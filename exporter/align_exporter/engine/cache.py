"""Engines that exist already: whether one is up to date, and how they move into a new bundle."""

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
    """Returns the engine that is up to date, or None and the reason why there is none.

    Args:
        wanted: tower and variant.
        source: sha256 of the graph's files, by name.
        machine: on which the engine would be built; `options` and `profiles`: how.
    """
    try:
        built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == wanted]
    except BundleError as error:
        return None, str(error)
    nearest: list[str] | None = None
    for entry in built:
        changes = list(_changes(entry, source, machine, options, profiles))
        if not changes:
            try:
                check_plan(bundle, entry)
            except BundleError as error:
                return None, str(error)
            return entry, ""
        if nearest is None or len(changes) < len(nearest):
            nearest = changes
    return None, "no engine yet" if nearest is None else f"changed: {', '.join(nearest)}"


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
        yield f"GPU ({entry.machine.gpu} → {machine.gpu})"
    if entry.machine.tensorrt != machine.tensorrt:
        yield f"TensorRT ({entry.machine.tensorrt} → {machine.tensorrt})"


def keep_engines(previous: Path, folder: Path, manifest: Manifest) -> None:
    """Links engines and timing caches of the bundle `previous` into `folder`, the bundle that replaces it.

    Engines of graphs that `manifest` does not hold are left behind, and so are all of a damaged bundle.
    """
    try:
        bundle = Bundle.open(previous)
        built = engines_of(bundle)
    except BundleError:
        return
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()}
    files = list((previous / ENGINES).glob("*.timings"))
    for entry in built:
        plan = previous / entry.file
        if entry.source.items() <= hashes.items() and plan.is_file():
            files += [plan, sidecar_of(plan)]
    for file in files:
        target = folder / file.relative_to(previous)
        target.parent.mkdir(exist_ok=True)
        _link(file, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
