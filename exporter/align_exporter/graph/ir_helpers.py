"""Which operators of a graph compute with floats, and which of them stand side by side."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

SHAPE_OPERATORS = ("Shape", "Size")  # read no values


def is_float(node: ir.Node) -> bool:
    """Whether `node` computes with float32 values."""
    return node.op_type not in SHAPE_OPERATORS and bool(floats(node.inputs) or floats(node.outputs))


def floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """The float32 tensors among `values`."""
    return [value for value in values if value is not None and value.dtype == ir.DataType.FLOAT]


def producers(node: ir.Node) -> list[ir.Node]:
    """The nodes that compute the float inputs of `node`."""
    return [producer for value in floats(node.inputs) if (producer := value.producer()) is not None]


def readers_of(value: ir.Value) -> list[ir.Node]:
    """The nodes that take `value`."""
    return [use.node for use in value.uses()]


def readers(node: ir.Node) -> list[ir.Node]:
    """The nodes that take the float outputs of `node`."""
    return [reader for value in floats(node.outputs) for reader in readers_of(value)]


def neighbours(node: ir.Node) -> list[ir.Node]:
    """Producers and readers of `node` that compute with floats."""
    return [neighbour for neighbour in [*producers(node), *readers(node)] if is_float(neighbour)]
