"""An FP32 graph → the same graph in FP16 with explicit casts, valid under strong typing.

Every operator computes in one type. Where a value goes from one type to the other, one Cast serves all its readers on
the other side. A weight is stored in the type of the operators that read it, twice where they differ. Inputs and
outputs of the graph stay as the contract has them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from align_exporter.graph.ir_helpers import is_float

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
NAMES = {HALF: "float16", SINGLE: "float32"}
Types = Mapping[ir.Node, ir.DataType]


def convert(model: ir.Model, float32: Collection[ir.Node]) -> int:
    """Converts `model` in place: all float operators but those in `float32`. Returns the number of casts added."""
    graph = model.graph
    types = {node: SINGLE if node in float32 else HALF for node in graph if is_float(node)}
    for value in list(graph.initializers.values()):
        if value.dtype == SINGLE:
            _store_weight(graph, value, types)
    inputs = [value for value in graph.inputs if value.dtype == SINGLE]
    results = [value for node in types for value in node.outputs if value.dtype == SINGLE]
    for value in results:
        producer = value.producer()
        assert producer is not None
        value.type = ir.TensorType(types[producer])  # a new one: values may share theirs
        if producer.op_type == "Cast":
            producer.attributes.add(ir.AttrInt64("to", types[producer]))
    return sum(_cast_for_readers(graph, value, types) for value in [*inputs, *results])


def _store_weight(graph: ir.Graph, value: ir.Value, types: Types) -> None:
    halves = _readers(value, HALF, types)
    if not halves:
        return
    constant = value.const_value
    assert constant is not None
    values = constant.numpy().astype(np.float16)
    if not _readers(value, SINGLE, types):
        value.const_value, value.type = ir.tensor(values, name=value.name), ir.TensorType(HALF)
        return
    name = f"{value.name}/{NAMES[HALF]}"
    twin = ir.val(name, dtype=HALF, shape=value.shape, const_value=ir.tensor(values, name=name))
    graph.register_initializer(twin)
    _reconnect(value, twin, halves)


def _cast_for_readers(graph: ir.Graph, value: ir.Value, types: Types) -> int:
    """Puts a Cast between `value` and those of its readers that compute in the other type; returns 1 where it did."""
    assert value.dtype is not None
    other = SINGLE if value.dtype == HALF else HALF
    readers = _readers(value, other, types)
    if not readers:
        return 0
    name = f"{value.name}/{NAMES[other]}"
    twin = ir.val(name, dtype=other, shape=value.shape)
    cast = ir.node("Cast", [value], {"to": other}, outputs=[twin], name=name)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph.node(0), cast)
    else:
        graph.insert_after(producer, cast)
    _reconnect(value, twin, readers)
    return 1


def _readers(value: ir.Value, dtype: ir.DataType, types: Types) -> list[ir.Node]:
    """The readers of `value` that compute in `dtype`; those that read only its shape compute in none."""
    return [use.node for use in value.uses() if types.get(use.node) == dtype]


def _reconnect(value: ir.Value, twin: ir.Value, readers: Collection[ir.Node]) -> None:
    for node in readers:
        for index, operand in enumerate(node.inputs):
            if operand is value:
                node.replace_input_with(index, twin)
