"""Counts what a graph computes and stores by element type, for the manifest and for the gate of its precision.

A MAC is one multiply-accumulate of a convolution or matrix product. It counts as INT8 where both operands are 8-bit
integers, multiplied as such or dequantized directly before: that is how a graph with explicit Q/DQ says it. Whether an
engine then fuses the dequantization is not in the graph; `align_exporter.int8.speed` asks ONNX Runtime. Types and
shapes are those of the graph; ONNX's checker infers them again for every file that the exporter writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path

import onnx_ir as ir

from align_runtime.errors import BuildError
from align_runtime.precision import FLOAT_TYPES, INT8_TYPES, STORED_TYPES, GraphContent, check_precision

# numpy's names. Smaller floats and integers are missing on purpose: nothing here counts them.
ELEMENT_TYPES = {
    ir.DataType.FLOAT: "float32", ir.DataType.UINT8: "uint8", ir.DataType.INT8: "int8", ir.DataType.UINT16: "uint16",
    ir.DataType.INT16: "int16", ir.DataType.INT32: "int32", ir.DataType.INT64: "int64", ir.DataType.STRING: "string",
    ir.DataType.BOOL: "bool", ir.DataType.FLOAT16: "float16", ir.DataType.DOUBLE: "float64",
    ir.DataType.UINT32: "uint32", ir.DataType.UINT64: "uint64", ir.DataType.COMPLEX64: "complex64",
    ir.DataType.COMPLEX128: "complex128", ir.DataType.BFLOAT16: "bfloat16",
}  # fmt: skip
DEFAULT_DOMAINS = ("", "ai.onnx")
# Operators that multiply, and the least rank of their second operand, which holds the weights where there are any.
PRODUCTS = {"Conv": 3, "MatMul": 1, "Gemm": 2, "MatMulInteger": 1}
# Operators that multiply too, or change the type in which others do, and that no graph of this project holds.
UNCOUNTED = {
    "Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "QLinearConv", "QLinearMatMul",
    "RNN",
}  # fmt: skip
HIDING = {
    ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.SPARSE_TENSOR, ir.AttributeType.SPARSE_TENSORS,
}  # fmt: skip


def checked_content(folder: Path, name: str, precision: str, sequence: int) -> GraphContent:
    """Counts the graph `name` in `folder`; `sequence` is the model's maximal length in tokens.

    Raises:
        BuildError: the graph cannot be counted, see `content_of`.
        PrecisionError: it does not compute in `precision`.
    """
    content = content_of(folder / name, sequence)
    check_precision(name, precision, content)
    return content


def content_of(graph: ir.Model | Path, sequence: int) -> GraphContent:
    """Counts what a graph computes for one item, and its weights. External data is not read and need not be there.

    Args:
        graph: a model in memory or its file.
        sequence: tokens of a text: the value of every free dimension but ``batch``, which is 1. Of the packed text
            graph too: with one text, all tokens of the batch and those of the longest text are the same.

    Raises:
        BuildError: the file cannot be read, a product has operands of different types or lacks a type or shape, or
            the graph holds an operator whose MACs are not counted.
    """
    name, model = _opened(graph)
    macs: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    try:
        _check_plain(model)
        dequantized = _dequantized(model)
        for node in model.graph:
            if node.op_type in UNCOUNTED or node.domain not in DEFAULT_DOMAINS:
                raise _UncountableError(f"the MACs of {_label(node)} are not counted")
            if node.op_type in PRODUCTS:
                dtype, count = _product(node, dequantized, sequence)
                macs[dtype] += count
        integers = _integer_weights(model)
        for value, tensor in _constants(model):
            dtype = _name_of(tensor.dtype)
            if dtype in FLOAT_TYPES or (value in integers and dtype in STORED_TYPES):
                weights[dtype] += prod(tensor.shape.numpy())
            elif dtype not in ELEMENT_TYPES.values():
                raise _UncountableError(f"a constant has the element type {dtype}, which is not counted")
    except _UncountableError as reason:
        raise BuildError(f"{name} cannot be counted: {reason}") from None
    return GraphContent(dict(sorted(macs.items())), dict(sorted(weights.items())))


def product_types(graph: ir.Model | Path) -> dict[str, str]:
    """The type that every convolution and matrix product of a graph computes in, by the node's name.

    Raises:
        BuildError: the file cannot be read, or the types of its operands are missing or differ.
    """
    name, model = _opened(graph)
    try:
        _check_plain(model)
        dequantized = _dequantized(model)
        return {node.name or "": _computed_in(node, dequantized) for node in model.graph if node.op_type in PRODUCTS}
    except _UncountableError as reason:
        raise BuildError(f"{name} cannot be counted: {reason}") from None


class _UncountableError(ValueError):
    """Why a graph cannot be counted, without the name of its file."""


def _opened(graph: ir.Model | Path) -> tuple[str, ir.Model]:
    """Name and model of `graph`, for messages and for counting."""
    if isinstance(graph, ir.Model):
        return f"the graph {graph.graph.name!r}", graph
    try:
        return graph.name, ir.load(graph)
    except OSError as error:
        raise BuildError(f"{graph.name} cannot be read: {error.strerror}") from None
    except Exception as error:  # of protobuf: not a message; of onnx_ir: not a valid graph
        raise BuildError(f"{graph.name} is not an ONNX graph that can be counted: {error}") from None


def _check_plain(model: ir.Model) -> None:
    """Refuses what would hide nodes or weights: functions, subgraphs, sparse tensors, a graph of nothing."""
    if model.functions:
        raise _UncountableError("it holds functions")
    if len(model.graph) == 0:
        raise _UncountableError("it holds no nodes")
    for node in model.graph:
        for attribute in node.attributes.values():
            if attribute.type in HIDING:
                raise _UncountableError(f"{_label(node)} holds a subgraph or a sparse tensor, {attribute.name!r}")


def _constants(model: ir.Model) -> Iterator[tuple[ir.Value | None, ir.TensorProtocol]]:
    """Initializers, and the tensors that nodes hold as attributes with the first output of the node."""
    for value in model.graph.initializers.values():
        if value.const_value is None:
            raise _UncountableError(f"the initializer {value.name!r} has no value")
        yield value, value.const_value
    for node in model.graph:
        output = node.outputs[0] if node.outputs else None
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield output, attribute.as_tensor()
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from ((output, tensor) for tensor in attribute.as_tensors())


def _dequantized(model: ir.Model) -> set[ir.Value]:
    """The values that are dequantized from 8-bit integers."""
    return {
        output
        for node in model.graph
        if node.op_type == "DequantizeLinear" and node.inputs and _dtype(node.inputs[0]) in INT8_TYPES
        for output in node.outputs
    }


def _integer_weights(model: ir.Model) -> set[ir.Value | None]:
    """What is dequantized or multiplied as integers. Zero points are neither."""
    operands = {"DequantizeLinear": 1, "MatMulInteger": 2}
    return {value for node in model.graph for value in node.inputs[: operands.get(node.op_type, 0)]}


def _product(node: ir.Node, dequantized: Collection[ir.Value], sequence: int) -> tuple[str, int]:
    """Element type and number of the MACs of a node: elements of its output × terms of each."""
    if len(node.inputs) < 2 or len(node.outputs) != 1:
        raise _UncountableError(f"{_label(node)} has {len(node.inputs)} inputs and {len(node.outputs)} outputs")
    dtype = _computed_in(node, dequantized)
    second, output = (_sizes(value, sequence) for value in (node.inputs[1], node.outputs[0]))
    if len(second) < PRODUCTS[node.op_type]:
        raise _UncountableError(f"{_label(node)} has a second operand of {len(second)} dimensions")
    return dtype, prod(output) * _terms(node, second)


def _computed_in(node: ir.Node, dequantized: Collection[ir.Value]) -> str:
    """The type of the operands of a product."""
    integers = node.op_type == "MatMulInteger"
    operands = node.inputs[:2] if integers else node.inputs
    dtypes = sorted({_dtype(value) for value in operands if value is not None})
    if integers and all(dtype in INT8_TYPES for dtype in dtypes):
        return "int8"
    if len(dtypes) != 1:
        raise _UncountableError(f"{_label(node)} has operands of different types, {' and '.join(dtypes)}")
    if dtypes[0] not in FLOAT_TYPES:
        raise _UncountableError(f"{_label(node)} computes in {dtypes[0]}; known: {', '.join(FLOAT_TYPES)}")
    return "int8" if all(value in dequantized for value in node.inputs[:2]) else dtypes[0]


def _terms(node: ir.Node, second: list[int]) -> int:
    """MACs of one element of the output, from the shape of the second operand."""
    if node.op_type == "Conv":
        return prod(second[1:])  # (out, in / group, height, width)
    if node.op_type == "Gemm":
        return second[1] if node.attributes.get_int("transB", 0) else second[0]
    return second[-2] if len(second) > 1 else second[0]


def _dtype(value: ir.Value | None) -> str:
    """The element type of `value` by numpy's name; of an initializer that of its bytes."""
    if value is not None and value.const_value is not None:
        return _name_of(value.const_value.dtype)
    if value is None or not isinstance(value.type, ir.TensorType):
        raise _UncountableError(f"the type of {'' if value is None else value.name!r} is missing")
    return _name_of(value.type.dtype)


def _name_of(dtype: ir.DataType) -> str:
    return ELEMENT_TYPES.get(dtype, dtype.name)


def _sizes(value: ir.Value | None, sequence: int) -> list[int]:
    """The shape of `value`, whose type has to be known too, with its free dimensions filled in."""
    _dtype(value)
    if value is not None and value.const_value is not None:
        return list(value.const_value.shape.numpy())
    if value is None or value.shape is None:
        raise _UncountableError(f"the shape of {'' if value is None else value.name!r} is missing")
    sizes = []
    for size in value.shape:
        if isinstance(size, int):
            sizes.append(size)
        elif (size.value or "").isidentifier():
            sizes.append(1 if size.value == "batch" else sequence)
        else:  # no name, or an expression like 2*sequence
            raise _UncountableError(
                f"the shape of {value.name!r} has the dimension {size.value or ''!r}, neither an integer nor a name"
            )
    return sizes


def _label(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or ' '.join(output.name or '' for output in node.outputs)!r}"
