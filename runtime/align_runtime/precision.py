"""Proof of precision: which types a graph computes and stores in, counted in its file, and what it may be called.

A MAC is one multiplication and addition of a convolution or matrix product. It is in INT8 where both operands are 8-bit
integers, multiplied as such or dequantised just before: that is how a graph with explicit quantisation says it. Whether
an engine then fuses the dequantisation is not in the file: the exporter asks ONNX Runtime (see
align_exporter/int8/fusion.py). Types of weights are those of their bytes, and ONNX Runtime loads no graph whose other
types do not follow from them. Shapes are taken as the file gives them: the exporter has ONNX's checker infer them again
before a graph is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from align_runtime.errors import BundleError, ConfigurationError, PrecisionError
from align_runtime.json_files import require
from align_runtime.onnx_file import DEFAULT_DOMAINS, ELEMENT_TYPES, Node, OnnxGraph, TensorType, read_graph

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
INT8_TYPES = ("int8", "uint8")
STORED_TYPES = (*FLOAT_TYPES, *INT8_TYPES, "int32")  # int32: biases of quantised convolutions
# Of the MACs, in the type that a variant is named for: what keeps more in FP32 is not FP16, nor INT8. Not more, because
# leaving sensitive layers in float is how INT8 becomes accurate; the share itself is in the manifest.
MIN_SHARE = 0.5
RULES = {"fp32": ("float32", 1.0), "fp16": ("float16", MIN_SHARE), "int8": ("int8", MIN_SHARE)}
MAX_COUNT = 1 << 63

# Operators that multiply, and the least rank of their second operand, the weights where there are any.
PRODUCTS = {"Conv": 3, "MatMul": 1, "Gemm": 2, "MatMulInteger": 1}
# Those that multiply too, or change the type in which others do, and that no graph of ours holds.
UNCOUNTED = {
    "Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "QLinearConv", "QLinearMatMul",
    "RNN",
}  # fmt: skip


@dataclass(frozen=True)
class GraphContent:
    """What a graph computes and holds, by type under numpy's name.

    Attributes:
        macs: multiplications of one image, or of one text of the model's maximal length.
        weights: elements of all float constants, and of the integer constants that are multiplied or dequantised.
    """

    macs: Mapping[str, int]
    weights: Mapping[str, int]

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> GraphContent:
        return cls(*(_counts(require(where, values, key, dict), f"{where}: {key}") for key in ("macs", "weights")))


def _counts(values: Mapping[str, Any], where: str) -> dict[str, int]:
    for dtype in values:
        if dtype not in STORED_TYPES:
            raise ConfigurationError(f"{where}: the type {dtype!r} is not known; known: {', '.join(STORED_TYPES)}")
        if not 0 <= require(where, values, dtype, int) < MAX_COUNT:
            raise ConfigurationError(f"{where}: {dtype} is {values[dtype]}; a count was expected")
    return dict(values)


def check_precision(subject: str, precision: str, content: GraphContent) -> None:
    """What a graph may call itself: ``fp32`` if all MACs are in float32, ``fp16`` if at least `MIN_SHARE` in float16,
    ``int8`` if as many are in INT8.

    Raises:
        PrecisionError: `precision` is not what `content` says, or has no rule.
    """
    if precision not in RULES:
        raise PrecisionError(f"{subject} calls itself {precision!r}; there are rules for {', '.join(RULES)} only")
    dtype, least = RULES[precision]
    total, computed = sum(content.macs.values()), content.macs.get(dtype, 0)
    if total == 0 or computed < least * total:
        raise PrecisionError(
            f"{subject} calls itself {precision} but computes {percentage(computed, total)} of its MACs in {dtype}; "
            f"at least {100 * least:.0f} % must be. Export it again in the precision that it is named for"
        )


def content_of(file: Path, sequence: int) -> GraphContent:
    """Counts what the ONNX graph in `file` computes for one item, and its weights. Weights are not read.

    Args:
        file: the graph; where its external data lies does not matter.
        sequence: tokens of a text, the value of every free dimension but ``batch``, which is 1. Of the packed text
            graph, too: with one text, all tokens of the batch and those of the longest text are the same.

    Raises:
        BundleError: the file cannot be read, a product has operands of different types or lacks a type or shape, or
            the graph holds an operator whose products are not counted.
    """
    graph = read_graph(file)
    macs: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    try:
        dequantized = _dequantized(graph)
        for node in graph.nodes:
            if node.op_type in UNCOUNTED or node.domain not in DEFAULT_DOMAINS:
                raise _UncountableError(f"{_label(node)} is there, whose products are not counted")
            if node.op_type in PRODUCTS:
                dtype, count = _product(node, graph, dequantized, sequence)
                macs[dtype] += count
        integers = _integer_weights(graph)
        for name, tensor in chain(graph.initializers.items(), *(_constants(node) for node in graph.nodes)):
            if tensor.dtype in FLOAT_TYPES or (name in integers and tensor.dtype in STORED_TYPES):
                weights[tensor.dtype] += prod(_sizes("a constant", tensor, sequence))
            elif tensor.dtype not in ELEMENT_TYPES.values():
                raise _UncountableError(f"a constant has the element {tensor.dtype}, which is not known")
    except _UncountableError as reason:
        raise BundleError(f"{file.name} cannot be checked: {reason}; export the checkpoint again") from None
    return GraphContent(dict(sorted(macs.items())), dict(sorted(weights.items())))


def product_types(file: Path) -> dict[str, str]:
    """The type that every convolution and matrix product of the graph in `file` computes in, by the operator's name.

    Raises:
        BundleError: the file cannot be read, or does not tell.
    """
    graph = read_graph(file)
    try:
        dequantized = _dequantized(graph)
        return {node.name: _computed_in(node, graph, dequantized) for node in graph.nodes if node.op_type in PRODUCTS}
    except _UncountableError as reason:
        raise BundleError(f"{file.name} cannot be checked: {reason}; export the checkpoint again") from None


class _UncountableError(ValueError):
    """Why a graph cannot be counted, without the file's name."""


def _constants(node: Node) -> list[tuple[str, TensorType]]:
    """The tensors that a node holds as attributes, under the name of its first output."""
    return [(node.outputs[0] if node.outputs else "", tensor) for tensor in node.tensors]


def _dequantized(graph: OnnxGraph) -> set[str]:
    """Names of the values that are dequantised from 8-bit integers."""
    return {
        name
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and node.inputs and _type_of(node.inputs[0], graph).dtype in INT8_TYPES
        for name in node.outputs
    }


def _integer_weights(graph: OnnxGraph) -> set[str]:
    """Names of what is dequantised or multiplied as integers. Zero points are neither."""
    operands = {"DequantizeLinear": 1, "MatMulInteger": 2}
    return {name for node in graph.nodes for name in node.inputs[: operands.get(node.op_type, 0)]}


def _product(node: Node, graph: OnnxGraph, dequantized: Collection[str], sequence: int) -> tuple[str, int]:
    """Type and number of MACs of a node: every element of its output is a sum over the weights' other dimensions."""
    if len(node.inputs) < 2 or len(node.outputs) != 1:
        raise _UncountableError(f"{_label(node)} has {len(node.inputs)} inputs and {len(node.outputs)} outputs")
    dtype = _computed_in(node, graph, dequantized)
    second, output = (_sizes(name, _type_of(name, graph), sequence) for name in (node.inputs[1], node.outputs[0]))
    if len(second) < PRODUCTS[node.op_type]:
        raise _UncountableError(f"{_label(node)} has a second operand of {len(second)} dimensions")
    return dtype, prod(output) * _terms(node, second)


def _computed_in(node: Node, graph: OnnxGraph, dequantized: Collection[str]) -> str:
    """The type of the operands of a product."""
    integers = node.op_type == "MatMulInteger"
    operands = node.inputs[:2] if integers else node.inputs
    dtypes = sorted({_type_of(name, graph).dtype for name in operands if name})
    if integers and all(dtype in INT8_TYPES for dtype in dtypes):
        return "int8"
    if len(dtypes) != 1:
        raise _UncountableError(f"{_label(node)} has operands of different types, {' and '.join(dtypes)}")
    if dtypes[0] not in FLOAT_TYPES:
        raise _UncountableError(f"{_label(node)} computes in {dtypes[0]}; known: {', '.join(FLOAT_TYPES)}")
    return "int8" if all(name in dequantized for name in node.inputs[:2]) else dtypes[0]


def _label(node: Node) -> str:
    return f"{node.op_type} {node.name or ' '.join(node.outputs)!r}"


def _terms(node: Node, second: list[int]) -> int:
    """How many products are added up in an element of the output, from the sizes of the second operand."""
    if node.op_type == "Conv":
        return prod(second[1:])  # (out, in / group, height, width)
    if node.op_type == "Gemm":
        return second[1] if node.integers.get("transB", 0) else second[0]
    return second[-2] if len(second) > 1 else second[0]


def _type_of(name: str, graph: OnnxGraph) -> TensorType:
    found = graph.initializers.get(name) or graph.values.get(name)
    if found is None:
        raise _UncountableError(f"the type of {name!r} is missing in the file")
    return found


def _sizes(name: str, tensor: TensorType, sequence: int) -> list[int]:
    """The shape of `tensor` in numbers."""
    if tensor.shape is None:
        raise _UncountableError(f"the shape of {name!r} is missing in the file")
    sizes = []
    for size in tensor.shape:
        if isinstance(size, int):
            sizes.append(size)
        elif size.isidentifier():
            sizes.append(1 if size == "batch" else sequence)
        else:  # no name, or an expression like 2*sequence
            raise _UncountableError(f"the shape of {name!r} has the dimension {size!r}, neither a number nor a name")
    return sizes


def describe(counts: Mapping[str, int]) -> str:
    """Shares of `counts` by type for a reader, the largest first: ``"float16 96.9 %, float32 3.1 %"``."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{dtype} {percentage(count, total)}" for dtype, count in ordered) or "nothing"


def percentage(part: int, whole: int) -> str:
    """Never rounded to all or nothing: ``"100 %"`` and ``"0 %"`` are exact."""
    if whole == 0 or part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(round(1000 * part / whole), 1), 999) / 10} %"
