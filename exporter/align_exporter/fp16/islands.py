"""What stays FP32 in an FP16 graph, and why.

Two kinds of operators stay: those whose formula needs it whatever the weights are (the rules), and those that this
checkpoint's values do not fit (the islands). An island is listed with what was found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from align_calibration.ranges import FP16_MAX, TensorRange
from align_runtime.errors import BuildError
from align_runtime.manifest import Island

# Rounding a tensor to FP16 changes it by 2⁻¹² of its norm; four times as much means that subnormals weigh in.
MAX_ROUNDING_ERROR = 2.0**-10
# An FP16 graph with more islands than this is a patchwork of casts.
MAX_ISLANDS = 12

MAC_OPERATORS = ("Conv", "MatMul", "Gemm")
# Sums of squares and of exponentials: FP16 overflows at 256², and TensorRT computes what is written.
FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceL2")
# Between the last product and the L2 norm.
POOLING_OPERATORS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten", "Squeeze")
SHAPE_OPERATORS = ("Shape", "Size")  # read no values


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


def rules(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that stay FP32 in every FP16 graph.

    - layer norm, softmax, and the L2 norm with the pooling before it;
    - squeeze-excite in blocks without a residual: a gate is rounded once for a whole channel, which no later mean
      averages out, and such a block is all that its followers see. On conditioned full-size weights the worst
      mean-centred cosine is 0.9994 without and 0.9997 with these seven blocks in FP32;
    - what is made of integers, up to the first product: the normalisation of bytes, which cancels, and the attention
      mask with its addition to the scores, which ends in the lowest float32.
    """
    ruled = {node for node in graph if node.op_type in FLOAT32_OPERATORS}
    for node in graph:
        made_of_integers = node.op_type == "Cast" and is_float(node) and not _floats(node.inputs)
        follows = node.op_type not in (*MAC_OPERATORS, *FLOAT32_OPERATORS) and any(
            producer in ruled and producer.op_type not in FLOAT32_OPERATORS for producer in _producers(node)
        )
        if is_float(node) and (made_of_integers or follows):
            ruled.add(node)
    ruled |= {node for pool in graph for node in _undiluted_gates(pool)}
    for norm in [node for node in graph if node.op_type == "ReduceL2"]:
        ruled |= {reader for reader in _readers(norm) if is_float(reader)}
        (producer,) = _producers(norm)
        while producer.op_type in POOLING_OPERATORS:
            ruled.add(producer)
            (producer,) = _producers(producer)
    return ruled


def _undiluted_gates(pool: ir.Node) -> set[ir.Node]:
    """From the global mean `pool` to the product of its gates and its input, where no residual is added to what the
    next product makes of that; nothing elsewhere."""
    if pool.op_type != "GlobalAveragePool":
        return set()
    (features,) = pool.inputs
    chain, border = {pool}, [pool]
    while border:
        for reader in _readers(border.pop()):
            if reader not in chain:
                chain.add(reader)
                if features not in reader.inputs:
                    border.append(reader)
    products = [node for node in chain if node is not pool and features in node.inputs]
    if len(products) != 1:  # the pool at the end has none
        return set()
    (projection,) = _readers(products[0])
    diluted = [reader.op_type for reader in _readers(projection)] == ["Add"]
    return set() if diluted else chain


def is_float(node: ir.Node) -> bool:
    """Whether `node` computes with float32 values."""
    return node.op_type not in SHAPE_OPERATORS and bool(_floats(node.inputs) or _floats(node.outputs))


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
        for node in ([] if writer is None else [writer]) + _readers_of(value):
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
    yield from _floats(graph.inputs)
    yield from _floats(graph.initializers.values())
    for node in graph:
        yield from _floats(node.outputs)


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
            and all(neighbour in closed for neighbour in _neighbours(node))
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
            border = {neighbour for node in border for neighbour in _neighbours(node)} & left - part
            part |= border
        left -= part
        ordered = sorted(part, key=order.__getitem__)
        reasons = dict.fromkeys(reason for node in ordered for reason in found.get(node, []))
        if reasons:
            yield Island(tuple(node.name or "" for node in ordered), tuple(reasons))


def _floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None and value.dtype == ir.DataType.FLOAT]


def _producers(node: ir.Node) -> list[ir.Node]:
    """The nodes that compute the float inputs of `node`."""
    return [producer for value in _floats(node.inputs) if (producer := value.producer()) is not None]


def _readers_of(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


def _readers(node: ir.Node) -> list[ir.Node]:
    return [reader for value in _floats(node.outputs) for reader in _readers_of(value)]


def _neighbours(node: ir.Node) -> list[ir.Node]:
    return [neighbour for neighbour in [*_producers(node), *_readers(node)] if is_float(neighbour)]
