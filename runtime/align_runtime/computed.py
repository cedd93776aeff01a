"""The graphs of a bundle as a device computes them.

A device may compute an FP32 graph in another precision, which then has a name of its own: OpenVINO's ``"bf16"``. Such a
graph is the entry of the file that it is computed from, with the precision, types and limits of the computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from align_runtime.devices import BACKENDS, backend_of, targets_on
from align_runtime.graph_entry import CPU_TARGET, TARGETS, TOWERS, Graph
from align_runtime.parity import WIDEST
from align_runtime.precision import RULES, GraphContent


def computed_on(device: str, graphs: Sequence[Graph]) -> list[Graph]:
    """Those of `graphs` that `device`, or a target's own device, runs; then those that it computes in another
    precision.

    Raises:
        ConfigurationError: there is no such device.
    """
    usable = [graph for graph in graphs if graph.target in targets_on(device)]
    if device in TARGETS and device not in BACKENDS:
        return usable
    backend = backend_of(device)
    written = [graph for graph in usable if backend.variants is None or graph.variant in backend.variants]
    recast = [
        _recast(graph, precision)
        for precision, variant in backend.recasts.items()
        for tower in TOWERS
        for graph in _preferred(written, tower, variant, targets_on(device))
    ]
    return [*written, *recast]


def devices_for(precision: str) -> list[str]:
    """The devices that compute graphs of another precision in `precision`."""
    return [name for name, backend in BACKENDS.items() if precision in backend.recasts]


def _preferred(graphs: Sequence[Graph], tower: str, variant: str, targets: Sequence[str]) -> list[Graph]:
    """The graph of `tower` in `variant` for the first of `targets` that has one; empty if none has."""
    found = [graph for graph in graphs if (graph.tower, graph.variant) == (tower, variant)]
    return sorted(found, key=lambda graph: targets.index(graph.target))[:1]


def _recast(graph: Graph, precision: str) -> Graph:
    """`graph` as it is computed in `precision` on a CPU: all its MACs, with weights as they are in the file."""
    dtype, _ = RULES[precision]
    content = GraphContent({dtype: sum(graph.content.macs.values())}, graph.content.weights)
    return replace(graph, variant=precision, target=CPU_TARGET, content=content, limits=WIDEST[precision])
