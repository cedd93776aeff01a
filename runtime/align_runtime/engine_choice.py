"""Preflight: which engine of a bundle fits this machine, and what is in the way of those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from align_runtime.bundle import Bundle, sha256_of
from align_runtime.engine_entry import AMPERE_PLUS, ENGINES, SAME_CAPABILITY, EngineEntry, Machine
from align_runtime.errors import BackendUnavailableError, BundleError
from align_runtime.graph_entry import Graph

AMPERE = (8, 0)
BUILD = "build one on this machine: align-export … --engine"


def sidecar_of(plan: Path) -> Path:
    """Where the description of the engine in `plan` lies."""
    return plan.with_suffix(".json")


def engines_of(bundle: Bundle) -> list[EngineEntry]:
    """All engines that `bundle` describes, in the order of their names.

    Raises:
        BundleError: a description that cannot be read.
    """
    return [EngineEntry.read(file) for file in sorted((bundle.folder / ENGINES).glob("*.json"))]


def source_of(bundle: Bundle, graph: Graph) -> dict[str, str]:
    """sha256 of the files that an engine of `graph` is built from."""
    return {name: bundle.manifest.files[name].sha256 for name in graph.files}


def choose_engine(bundle: Bundle, graph: Graph, machine: Machine) -> EngineEntry:
    """The engine of `graph` that runs on `machine`; where several do, one that was built on the like of it.

    Raises:
        BackendUnavailableError: there is none; the message says what differs.
        BundleError: a description that cannot be read.
    """
    built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == (graph.tower, graph.variant)]
    if not built:
        raise BackendUnavailableError(
            f"the bundle {bundle.folder} holds no TensorRT engine of the {graph.tower} tower in {graph.variant}; "
            f"{BUILD}"
        )
    reasons = {entry.file: list(_obstacles(entry, machine, source_of(bundle, graph))) for entry in built}
    usable = [entry for entry in built if not reasons[entry.file]]
    if not usable:
        told = "; ".join(f"{file}: {' and '.join(found)}" for file, found in reasons.items())
        raise BackendUnavailableError(f"no TensorRT engine of the bundle {bundle.folder} runs here. {told}; {BUILD}")
    return min(usable, key=lambda entry: (entry.machine != machine, entry.file))


def _obstacles(entry: EngineEntry, machine: Machine, source: dict[str, str]) -> Iterator[str]:
    if entry.source != source:
        yield "it was built from another graph than the bundle holds now"
    built, options = entry.machine, entry.options
    if options.version_compatible:
        if version(machine.tensorrt) < version(built.tensorrt):
            yield f"it needs TensorRT {built.tensorrt} or newer, here is {machine.tensorrt}"
    elif machine.tensorrt != built.tensorrt:
        yield f"it needs TensorRT {built.tensorrt}, here is {machine.tensorrt}"
    capability = version(machine.compute_capability)
    if options.hardware == AMPERE_PLUS:
        if capability < AMPERE:
            yield f"it needs compute capability 8.0 or newer, {machine.gpu} has {machine.compute_capability}"
    elif machine.compute_capability != built.compute_capability:
        yield f"it needs compute capability {built.compute_capability}, {machine.gpu} has {machine.compute_capability}"
    elif options.hardware != SAME_CAPABILITY and machine.gpu != built.gpu:
        yield f"it was built for {built.gpu}, here is {machine.gpu}"
    if version(machine.driver)[0] < version(built.driver)[0]:
        yield f"it needs a driver for CUDA {version(built.driver)[0]}, the one here supports {machine.driver}"


def check_plan(bundle: Bundle, entry: EngineEntry) -> Path:
    """Path of the plan of `entry`, once it was found to be the file that was built: TensorRT trusts what it reads.

    Raises:
        BundleError: it is missing, another file, or a link that leaves the bundle.
    """
    path = bundle.folder / entry.file
    if not path.is_file() or not path.resolve().is_relative_to(bundle.folder.resolve()):
        raise BundleError(f"{bundle.folder}: {entry.file} is missing or leaves the bundle; {BUILD}")
    if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
        raise BundleError(f"{bundle.folder}: {entry.file} is not the engine that was built; {BUILD}")
    return path


def version(text: str) -> tuple[int, ...]:
    """``"11.4.0"`` → ``(11, 4, 0)``, for comparing."""
    return tuple(int(part) for part in text.split("."))
