"""Typed access to onnx_ir graphs.

In onnx_ir an input may be absent, a name unset and a value without a constant, so most attributes are optional. The
functions here return the thing itself, or raise a `BuildError` that names the node or tensor where it is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_runtime.errors import BuildError

SHAPE_OPERATORS = ("Shape", "Size")  # read the shape of their input, not its values

# ── parts that must be there ─────────────────────────────────────────────────────────────────────────────────────────


def name_of(value: ir.Value | ir.Node) -> str:
    """The name of a tensor or node; "" where it has none."""
    return value.name or ""


def operand(node: ir.Node, index: int) -> ir.Value:
    """Input `index` of `node`.

    Raises:
        BuildError: the node has no such input.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise BuildError(f"the {node.op_type} node {node.name!r} has no input {index}")
    return value


def optional_operand(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`; None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def producer_of(value: ir.Value) -> ir.Node:
    """The node that computes `value`.

    Raises:
        BuildError: no node does; it is an input or an initializer.
    """
    node = value.producer()
    if node is None:
        raise BuildError(f"no node computes the tensor {value.name!r}")
    return node


def shape_of(value: ir.Value) -> ir.Shape:
    """The shape of `value`.

    Raises:
        BuildError: it is not known.
    """
    if value.shape is None:
        raise BuildError(f"the shape of the tensor {value.name!r} is not known")
    return value.shape


# ── constants ────────────────────────────────────────────────────────────────────────────────────────────────────────


def constant_values(value: ir.Value) -> NDArray[Any]:
    """The values of the constant `value`.

    Raises:
        BuildError: it is not a constant.
    """
    if value.const_value is None:
        raise BuildError(f"the tensor {value.name!r} is not a constant")
    return value.const_value.numpy()


def replace_constant(value: ir.Value, values: NDArray[Any]) -> None:
    """Gives the constant `value` other values for all its readers, in a tensor of its own: the old one may be shared
    with other graphs. `set_constant` changes it for one reader."""
    value.const_value = ir.tensor(values, name=value.name)


def own_constant(node: ir.Node, index: int) -> ir.Value:
    """Input `index` of `node`, a constant, as an initializer that nothing else reads: a shared one is copied first.

    Exporters merge equal constants, so whoever changes one changes it for readers that have nothing to do with it.

    Raises:
        BuildError: the node has no such input, or it is not a constant.
    """
    value = operand(node, index)
    values = constant_values(value)
    if value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        return value
    assert node.graph is not None
    copy = add_constant(node.graph, own_name(node, index), values)
    node.replace_input_with(index, copy)
    return copy


def set_constant(node: ir.Node, index: int, values: NDArray[Any]) -> None:
    """Makes `values` the constant input `index` of `node` and of nothing else; an input that is left out is added."""
    if optional_operand(node, index) is not None:
        replace_constant(own_constant(node, index), values)
        return
    assert node.graph is not None
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, add_constant(node.graph, own_name(node, index), values))


def own_name(node: ir.Node, index: int) -> str:
    """A name for a constant that only input `index` of `node` reads: unique, as those of tensors are."""
    return f"{name_of(node.outputs[0])}/{index}"


def add_constant(graph: ir.Graph, name: str, values: NDArray[Any] | np.generic) -> ir.Value:
    """Adds `values` to `graph` as the initializer `name`."""
    tensor = ir.tensor(np.asarray(values), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
    graph.register_initializer(value)
    return value


# ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_float(node: ir.Node) -> bool:
    """Whether `node` reads or writes float32 values."""
    return node.op_type not in SHAPE_OPERATORS and bool(float_values(node.inputs) or float_values(node.outputs))


def float_values(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """The float32 tensors among `values`."""
    return [value for value in values if value is not None and value.dtype == ir.DataType.FLOAT]


def producers(node: ir.Node) -> list[ir.Node]:
    """The nodes that compute the float32 inputs of `node`."""
    return [producer for value in float_values(node.inputs) if (producer := value.producer()) is not None]


def readers_of(value: ir.Value) -> list[ir.Node]:
    """The nodes that read `value`, one entry per input."""
    return [use.node for use in value.uses()]


def readers(node: ir.Node) -> list[ir.Node]:
    """The nodes that read the float32 outputs of `node`, one entry per input."""
    return [reader for value in float_values(node.outputs) for reader in readers_of(value)]


def neighbors(node: ir.Node) -> list[ir.Node]:
    """Producers and readers of `node` that read or write float32 values."""
    return [neighbor for neighbor in [*producers(node), *readers(node)] if is_float(neighbor)]


def reconnect(old: ir.Value, new: ir.Value, nodes: Collection[ir.Node]) -> None:
    """Makes `nodes` read `new` wherever they read `old`."""
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is old:
                node.replace_input_with(index, new)
