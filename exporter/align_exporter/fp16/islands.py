"""Finds the FP32 islands of an FP16 graph.

An island is a group of connected operators that stays FP32 because FP16 cannot hold their values for this checkpoint
(overflow or underflow), or because ``--fp16-keep`` names them. Islands come on top of the operators that stay FP32 in
every FP16 graph, see `align_exporter.fp16.rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from align_calibration.ranges import FP16_MAX, TensorRange
from align_exporter.fp16.rules import MAC_OPERATORS, float32_by_rule
from align_exporter.graph.ir_helpers import (
    constant_values,
    float_values,
    is_float,
    name_of,
    neighbors,
    readers_of,
)
from align_runtime.errors import BuildError
from align_runtime.graph_entry import Island

# Rounding a tensor to FP16 changes it by about 2⁻¹² of its norm. Four times as much means underflow to subnormals.
MAX_ROUNDING_ERROR = 2.0**-10
# With more islands, an FP16 graph would spend its time on casts.
MAX_ISLANDS = 12


@dataclass(frozen=True)
class Assignment:
    """The nodes of a graph that stay FP32, by rule or in an island, and the islands."""

    float32: frozenset[ir.Node]
    islands: tuple[Island, ...]


def assign_islands(model: ir.Model, ranges: Iterable[TensorRange], keep: Sequence[str], headroom: float) -> Assignment:
    """Decides which operators of the float32 graph `model` stay FP32.

    Args:
        ranges: activation ranges of the tensors of `model`.
        keep: patterns (``*``, ``?``, ``[…]``) of the names of more operators that stay FP32.
        headroom: a tensor stays FP32 where its largest value times this exceeds the FP16 maximum (65504).

    Raises:
        BuildError: there are more than `MAX_ISLANDS` islands.
    """
    graph = model.graph
    ruled = float32_by_rule(graph)
    found = _unsafe(graph, {entry.tensor: entry for entry in ranges}, headroom)
    for node in graph:
        for pattern in keep:
            if fnmatchcase(name_of(node), pattern) and is_float(node):
                found.setdefault(node, []).append(f"{node.name} matches --fp16-keep")
    float32 = _without_gaps(graph, ruled | found.keys())
    islands = tuple(_islands(graph, float32 - ruled, found))
    if len(islands) > MAX_ISLANDS:
        raise BuildError(
            f"FP16 needs {len(islands)} FP32 islands, expected at most {MAX_ISLANDS}; the first because "
            f"{islands[0].reasons[0]}. Join adjacent islands with --fp16-keep PATTERN, or export without --fp16"
        )
    return Assignment(float32, islands)


def weight_range(value: ir.Value) -> TensorRange:
    """Range and FP16 rounding error of the initializer `value`."""
    exact = constant_values(value).astype(np.float64)
    with np.errstate(over="ignore"):
        change = exact - exact.astype(np.float16)
    norm = float(np.linalg.norm(exact))
    largest = float(np.abs(exact).max(initial=0.0))
    error = float("inf") if not largest <= FP16_MAX else float(np.linalg.norm(change)) / norm if norm else 0.0
    return TensorRange(name_of(value), "weight", largest, norm / max(exact.size, 1) ** 0.5, error)


def _unsafe(graph: ir.Graph, ranges: dict[str, TensorRange], headroom: float) -> dict[ir.Node, list[str]]:
    """Nodes that read or write a tensor that FP16 cannot hold → reasons. Its producer and all readers stay FP32."""
    found: dict[ir.Node, list[str]] = {}
    for value in _values(graph):
        if value.is_initializer():
            # Weights are known exactly, so they need no headroom.
            reason = _refusal(weight_range(value), 1.0)
        else:
            reason = _refusal(ranges[name_of(value)], headroom)
        if reason is None:
            continue
        producer = value.producer()
        for node in ([] if producer is None else [producer]) + readers_of(value):
            if is_float(node):
                found.setdefault(node, []).append(reason)
    return found


def _refusal(entry: TensorRange, headroom: float) -> str | None:
    """Why FP16 cannot hold the tensor; None where it can."""
    if not entry.max_abs * headroom <= FP16_MAX:
        return f"{entry.tensor} reaches {entry.max_abs:.3g}"
    if entry.rounding_error > MAX_ROUNDING_ERROR:
        return f"{entry.tensor} underflows: RMS {entry.rms:.2g}, rounding error {entry.rounding_error:.1%}"
    return None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from float_values(graph.inputs)
    yield from float_values(graph.initializers.values())
    for node in graph:
        yield from float_values(node.outputs)


def _without_gaps(graph: ir.Graph, float32: Collection[ir.Node]) -> frozenset[ir.Node]:
    """Adds every cheap node whose neighbors are all FP32: FP16 would cost two casts there and gain nothing."""
    closed = set(float32)
    grown = True
    while grown:
        gaps = [
            node
            for node in graph
            if node not in closed
            and is_float(node)
            and node.op_type not in MAC_OPERATORS
            and all(neighbor in closed for neighbor in neighbors(node))
        ]
        closed |= set(gaps)
        grown = bool(gaps)
    return frozenset(closed)


def _islands(graph: ir.Graph, nodes: Collection[ir.Node], found: dict[ir.Node, list[str]]) -> Iterator[Island]:
    """The connected parts of `nodes` that contain a node with a reason."""
    order = {node: index for index, node in enumerate(graph)}
    left = set(nodes)
    while left:
        part = {min(left, key=order.__getitem__)}
        border = set(part)
        while border:
            border = {neighbor for node in border for neighbor in neighbors(node)} & left - part
            part |= border
        left -= part
        ordered = sorted(part, key=order.__getitem__)
        reasons = dict.fromkeys(reason for node in ordered for reason in found.get(node, []))
        if reasons:
            yield Island(tuple(name_of(node) for node in ordered), tuple(reasons))
