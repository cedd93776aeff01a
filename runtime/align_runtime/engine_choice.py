"""The choice of the TensorRT engine of a bundle that fits the machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from align_runtime.bundle import Bundle
from align_runtime.engines import (
    AMPERE_PLUS,
    BUILD,
    SAME_CAPABILITY,
    EngineEntry,
    Engines,
    Machine,
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


def choose_engine(bundle: Bundle, graph: Graph, machine: Machine) -> EngineEntry:
    """The engine of `graph` that runs on `machine`; of several, one that was built on such a machine.

    Descriptions that cannot be read are skipped, with a warning.

    Raises:
        BackendUnavailableError: there is none; the message says what differs, and what was skipped.
    """
    found = read_engines(bundle)
    for reason in found.skipped:
        logger.warning("skipped an engine: %s", reason)
    built = [entry for entry in found.entries if (entry.tower, entry.variant) == (graph.tower, graph.variant)]
    if not built:
        raise BackendUnavailableError(
            f"the bundle {bundle.folder} has no TensorRT engine of the {graph.tower} tower in {graph.variant}"
            f"{_skipped(bundle, found)}; {BUILD}"
        )
    reasons = {entry.file: list(_obstacles(entry, machine, source_of(bundle, graph))) for entry in built}
    usable = [entry for entry in built if not reasons[entry.file]]
    if not usable:
        differences = "; ".join(f"{file}: {' and '.join(found)}" for file, found in list(reasons.items())[:MAX_REASONS])
        raise BackendUnavailableError(
            f"no TensorRT engine of the bundle {bundle.folder} runs here. {differences}; {BUILD}"
        )
    return min(usable, key=lambda entry: (entry.machine != machine, entry.file))


def _skipped(bundle: Bundle, engines: Engines) -> str:
    if not engines.skipped:
        return ""
    first = engines.skipped[0].removeprefix(f"{bundle.folder}/")
    return f" ({len(engines.skipped)} skipped, first: {cut(first, MAX_REASON)})"


def _obstacles(entry: EngineEntry, machine: Machine, source: dict[str, str]) -> Iterator[str]:
    if entry.source != source:
        yield "it was built from another graph than the one now in the bundle"
    built, options = entry.machine, entry.options
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
