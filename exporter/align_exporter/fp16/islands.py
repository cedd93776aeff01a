"""What else stays FP32 in an FP16 graph, beyond the rules: what this checkpoint's values do not fit, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from align_calibration.ranges import FP16_MAX, TensorRange
from align_exporter.fp16.rules import MAC_OPERATORS, rules
from align_exporter.graph.ir_helpers import floats, is_float, neighbours, readers_of
from align_runtime.errors import BuildError
from align_runtime.graph_entry import Island

# Rounding a tensor to FP16 changes it by 2⁻¹² of its norm; four times as much means that subnormals weigh in.
MAX_ROUNDING_ERROR = 2.0**-10
# An FP16 graph with more islands than this is a patchwork of casts.
MAX_ISLANDS = 12


@dataclass(frozen=True)
class Assignment:
    """Which nodes of a graph stay FP32: those of the rules and those of the islands."""

    float32: frozenset[ir.Node]
    islands: tuple[Island, ...]


def assign(model: ir.Model, ranges: Iterable[TensorRange], keep: Sequence[str], headroom: float) -> Assignment:
    """Decides for every operator of the float32 graph `model` whether it stays FP32.

    Args:
        ranges: of the tensors of `model`, from samples.
        keep: patterns (``*``, ``?``, ``[…]``) of the names of operators that have to stay, too.
        headroom: a tensor stays out of FP16 when its largest value times this exceeds 65504.

    Raises:
        BuildError: more than `MAX_ISLANDS` islands.
    """
    graph = model.graph
    ruled = rules(graph)
    found = _unsafe(graph, {entry.tensor: entry for entry in ranges}, headroom)
    for node in graph:
        for pattern in keep:
            if fnmatchcase(node.name or "", pattern) and is_float(node):
                found.setdefault(node, []).append(f"{node.name} was asked for")
    float32 = _without_gaps(graph, ruled | found.keys())
    islands = tuple(_islands(graph, float32 - ruled, found))
    if len(islands) > MAX_ISLANDS:
        raise BuildError(
            f"FP16 would need {len(islands)} separate FP32 islands (at most {MAX_ISLANDS}), the first at "
            f"{islands[0].reasons[0]}; join neighbouring ones with --fp16-keep PATTERN, or ship FP32"
        )
    return Assignment(float32, islands)


def weight_range(value: ir.Value) -> TensorRange:
    """The range of the initializer `value`."""
    constant = value.const_value
    assert constant is not None
    exact = constant.numpy().astype(np.float64)
    with np.errstate(over="ignore"):
        change = exact - exact.astype(np.float16)
    norm = float(np.linalg.norm(exact))
    largest = float(np.abs(exact).max(initial=0.0))
    error = float("inf") if not largest <= FP16_MAX else float(np.linalg.norm(change)) / norm if norm else 0.0
    return TensorRange(value.name or "", "weight", largest, norm / max(exact.size, 1) ** 0.5, error)


def _unsafe(graph: ir.Graph, ranges: dict[str, TensorRange], headroom: float) -> dict[ir.Node, list[str]]:
    """Nodes that read or write a tensor that FP16 cannot hold → why. Its writer and all its readers have to stay."""
    found: dict[ir.Node, list[str]] = {}
    for value in _values(graph):
        if value.is_initializer():
            # A weight is known and not sampled: it needs no headroom.
            reason = _refusal(weight_range(value), 1.0)
        else:
            reason = _refusal(ranges[value.name or ""], headroom)
        if reason is None:
            continue
        writer = value.producer()
        for node in ([] if writer is None else [writer]) + readers_of(value):
            if is_float(node):
                found.setdefault(node, []).append(reason)
    return found


def _refusal(entry: TensorRange, headroom: float) -> str | None:
    """Why FP16 cannot hold the tensor, None when it can."""
    if not entry.max_abs * headroom <= FP16_MAX:
        return f"{entry.tensor} reaches {entry.max_abs:.3g}"
    if entry.rounding_error > MAX_ROUNDING_ERROR:
        return f"{entry.tensor} is as small as {entry.rms:.2g} and loses {entry.rounding_error:.1%}"
    return None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from floats(graph.inputs)
    yield from floats(graph.initializers.values())
    for node in graph:
        yield from floats(node.outputs)


def _without_gaps(graph: ir.Graph, float32: Collection[ir.Node]) -> frozenset[ir.Node]:
    """`float32` and every cheap node whose neighbours are all FP32: FP16 there would be two casts for nothing."""
    closed = set(float32)
    grown = True
    while grown:
        gaps = [
            node
            for node in graph
            if node not in closed
            and is_float(node)
            and node.op_type not in MAC_OPERATORS
            and all(neighbour in closed for neighbour in neighbours(node))
        ]
        closed |= set(gaps)
        grown = bool(gaps)
    return frozenset(closed)


def _islands(graph: ir.Graph, nodes: Collection[ir.Node], found: dict[ir.Node, list[str]]) -> Iterator[Island]:
    """The connected parts of `nodes` in which something was found."""
    order = {node: index for index, node in enumerate(graph)}
    left = set(nodes)
    while left:
        part = {min(left, key=order.__getitem__)}
        border = set(part)
        while border:
            border = {neighbour for node in border for neighbour in neighbours(node)} & left - part
            part |= border
        left -= part
        ordered = sorted(part, key=order.__getitem__)
        reasons = dict.fromkeys(reason for node in ordered for reason in found.get(node, []))
        if reasons:
            yield Island(tuple(node.name or "" for node in ordered), tuple(reasons))
