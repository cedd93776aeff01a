"""The choice of the engine of a bundle that fits the machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from align_runtime.bundle import Bundle
from align_runtime.engine_targets import BUILD, TITLES, Machine, RtxTarget
from align_runtime.engines import (
    AMPERE_PLUS,
    SAME_CAPABILITY,
    EngineEntry,
    EngineOptions,
    Engines,
    read_engines,
    source_of,
)
from align_runtime.errors import BackendUnavailableError
from align_runtime.foreign_text import cut
from align_runtime.graph_entry import Graph
from align_runtime.versions import version

AMPERE = (8, 0)
MAX_REASONS = 2  # engines that an error describes
MAX_REASON = 160  # characters of why one was skipped

logger = logging.getLogger(__name__)


def choose_engine(bundle: Bundle, graph: Graph, machine: Machine, runtime: str) -> EngineEntry:
    """The engine of `graph` that runs on `machine`; of several, one that was built on such a machine or for its GPU.

    Descriptions that cannot be read are skipped, with a warning.

    Args:
        machine: with the version of what runs the engine.
        runtime: what that is, ``"tensorrt"`` or ``"rtx"``.

    Raises:
        BackendUnavailableError: there is none; the message says what differs, and what was skipped.
    """
    found = read_engines(bundle)
    for reason in found.skipped:
        logger.warning("skipped an engine: %s", reason)
    wanted = (graph.tower, graph.variant, runtime)
    built = [entry for entry in found.entries if (entry.tower, entry.variant, entry.runtime) == wanted]
    if not built:
        raise BackendUnavailableError(
            f"the bundle {bundle.folder} has no {TITLES[runtime]} engine of the {graph.tower} tower in {graph.variant}"
            f"{_skipped(bundle, found)}; {BUILD[runtime]}"
        )
    reasons = {entry.file: list(_obstacles(entry, machine, source_of(bundle, graph))) for entry in built}
    usable = [entry for entry in built if not reasons[entry.file]]
    if not usable:
        differences = "; ".join(f"{file}: {' and '.join(found)}" for file, found in list(reasons.items())[:MAX_REASONS])
        raise BackendUnavailableError(
            f"no {TITLES[runtime]} engine of the bundle {bundle.folder} runs here. {differences}; {BUILD[runtime]}"
        )
    return min(usable, key=lambda entry: (not _is_made_for(entry, machine), entry.file))


def _skipped(bundle: Bundle, engines: Engines) -> str:
    if not engines.skipped:
        return ""
    first = engines.skipped[0].removeprefix(f"{bundle.folder}/")
    return f" ({len(engines.skipped)} skipped, first: {cut(first, MAX_REASON)})"


def _obstacles(entry: EngineEntry, machine: Machine, source: dict[str, str]) -> Iterator[str]:
    if entry.source != source:
        yield "it was built from another graph than the one now in the bundle"
    if isinstance(entry.machine, Machine):
        yield from _differences(entry.machine, entry.options, machine)
    else:
        yield from _rtx_differences(entry.machine, machine)


def _differences(built: Machine, options: EngineOptions, machine: Machine) -> Iterator[str]:
    if options.version_compatible:
        if version(machine.tensorrt) < version(built.tensorrt):
            yield f"it needs TensorRT {built.tensorrt} or newer, here is {machine.tensorrt}"
    elif version(machine.tensorrt) != version(built.tensorrt):
        yield f"it needs TensorRT {built.tensorrt}, here is {machine.tensorrt}"
    capability = version(machine.compute_capability)
    if options.hardware == AMPERE_PLUS:
        if capability < AMPERE:
            yield f"it needs compute capability 8.0 or newer, {machine.gpu} has {machine.compute_capability}"
    elif capability != version(built.compute_capability):
        yield f"it needs compute capability {built.compute_capability}, {machine.gpu} has {machine.compute_capability}"
    elif options.hardware != SAME_CAPABILITY and machine.gpu != built.gpu:
        yield f"it was built for {built.gpu}, here is {machine.gpu}"
    if version(machine.driver)[0] < version(built.driver)[0]:
        yield f"it needs a driver for CUDA {version(built.driver)[0]}, the one here supports {machine.driver}"


def _rtx_differences(built: RtxTarget, machine: Machine) -> Iterator[str]:
    if version(machine.tensorrt) != version(built.tensorrt):
        yield f"it needs TensorRT for RTX {built.tensorrt}, here is {machine.tensorrt}"
    capability, listed = version(machine.compute_capability), list(map(version, built.compute_capabilities))
    if capability not in listed and capability < listed[-1]:
        yield (
            f"it was built for compute capability {', '.join(built.compute_capabilities)} and newer, {machine.gpu} has "
            f"{machine.compute_capability}"
        )


def _is_made_for(entry: EngineEntry, machine: Machine) -> bool:
    if isinstance(entry.machine, Machine):
        return entry.machine == machine
    return machine.compute_capability in entry.machine.compute_capabilities
