"""The operators that stay FP32 in an FP16 graph: by rule, and as islands.

The rules hold whatever the weights are. An island is a group of connected operators that stays FP32 because FP16 cannot
hold their values for this checkpoint (overflow or underflow), or because ``--fp16-keep`` names them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from align_calibration.ranges import FP16_MAX, TensorRange
from align_exporter.graph.ir_helpers import (
    constant_values,
    float_values,
    is_float,
    name_of,
    neighbors,
    operand,
    producers,
    readers,
    readers_of,
)
from align_runtime.errors import BuildError
from align_runtime.graph_entry import Island

MAC_OPERATORS = ("Conv", "MatMul", "Gemm")
# Sums of squares and of exponentials: 256² overflows FP16, and a strongly typed TensorRT network adds no FP32 itself.
FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceL2")
# Between the last MAC operator and the L2 norm.
POOLING_OPERATORS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten", "Squeeze")


def float32_by_rule(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of `graph` that stay FP32 in every FP16 graph.

    - Layer norm, softmax, and the L2 norm with the pooling before it.
    - Squeeze-excite in blocks without a residual. The rounding error of a gate is the same for a whole channel, so no
      later mean averages it out, and without a residual nothing of the block bypasses it. On full-size weights the
      worst mean-centered cosine is 0.9995 with these seven blocks in FP16 and 0.9997 with them in FP32
      (benchmarks/measure_fp16.py).
    - Values cast from integers, up to the first MAC operator: the normalization of uint8 pixels, where a subtraction
      cancels digits, and the attention mask up to its addition to the scores, which holds the lowest float32.
    """
    ruled = {node for node in graph if node.op_type in FLOAT32_OPERATORS}
    for node in graph:
        from_integers = node.op_type == "Cast" and is_float(node) and not float_values(node.inputs)
        follows = node.op_type not in (*MAC_OPERATORS, *FLOAT32_OPERATORS) and any(
            producer in ruled and producer.op_type not in FLOAT32_OPERATORS for producer in producers(node)
        )
        if is_float(node) and (from_integers or follows):
            ruled.add(node)
    ruled |= squeeze_excite_without_residual(graph)
    for norm in [node for node in graph if node.op_type == "ReduceL2"]:
        ruled |= {reader for reader in readers(norm) if is_float(reader)}
        (producer,) = producers(norm)
        while producer.op_type in POOLING_OPERATORS:
            ruled.add(producer)
            (producer,) = producers(producer)
    return ruled


def squeeze_excite_without_residual(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of squeeze-excite, from the global mean to the product with its input, in blocks without a residual."""
    pools = [node for node in graph if node.op_type == "GlobalAveragePool"]
    return {node for pool in pools for node in _without_residual(squeeze_excite(pool))}


@dataclass(frozen=True)
class SqueezeExcite:
    """The nodes from a global mean to the product of the gates with the input.

    Attributes:
        features: the input.
        pool: the mean.
        nodes: all nodes, mean and product included; where there is no product, all nodes behind the mean.
        product: None for the mean at the end of the tower, which is not squeeze-excite.
    """

    features: ir.Value
    pool: ir.Node
    nodes: frozenset[ir.Node]
    product: ir.Node | None


def squeeze_excite(pool: ir.Node) -> SqueezeExcite:
    """The squeeze-excite that starts with the global mean `pool`."""
    features = operand(pool, 0)
    chain, border = {pool}, [pool]
    while border:
        for reader in readers(border.pop()):
            if reader not in chain:
                chain.add(reader)
                if features not in reader.inputs:
                    border.append(reader)
    products = [node for node in chain if node is not pool and features in node.inputs]
    return SqueezeExcite(features, pool, frozenset(chain), products[0] if len(products) == 1 else None)


def _without_residual(found: SqueezeExcite) -> frozenset[ir.Node]:
    """All nodes of `found` if no residual is added behind the projection that follows it; none otherwise."""
    if found.product is None:
        return frozenset()
    (projection,) = readers(found.product)
    has_residual = [reader.op_type for reader in readers(projection)] == ["Add"]
    return frozenset() if has_residual else found.nodes


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
            reason = _refusal(weight_range(value), FP16_MAX)
        else:
            reason = _refusal(ranges[name_of(value)], FP16_MAX / headroom)
        if reason is None:
            continue
        producer = value.producer()
        for node in ([] if producer is None else [producer]) + readers_of(value):
            if is_float(node):
                found.setdefault(node, []).append(reason)
    return found


def _refusal(entry: TensorRange, limit: float) -> str | None:
    """Why FP16 cannot hold the tensor, whose values may reach `limit`; None where it can."""
    if not entry.max_abs <= limit:
        return f"{entry.tensor} reaches {entry.max_abs:.5g}, more than {limit:.5g}"
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
