"""Converts an FP32 graph to FP16 with explicit casts, valid for a strongly typed TensorRT network.

Every operator computes in one type. A tensor that is read in the other type gets one Cast for all those readers. A
weight is stored in the type of its readers, twice where they differ. Inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from align_exporter.graph.ir_helpers import constant_values, is_float, producer_of, reconnect, replace_constant

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
TYPE_NAMES = {FLOAT16: "float16", FLOAT32: "float32"}
Types = Mapping[ir.Node, ir.DataType]


def convert_to_fp16(model: ir.Model, float32: Collection[ir.Node]) -> int:
    """Converts the float operators of `model` in place, all but those in `float32`; returns the number of new casts."""
    graph = model.graph
    types = {node: FLOAT32 if node in float32 else FLOAT16 for node in graph if is_float(node)}
    for value in list(graph.initializers.values()):
        if value.dtype == FLOAT32:
            _store_weight(graph, value, types)
    inputs = [value for value in graph.inputs if value.dtype == FLOAT32]
    results = [value for node in types for value in node.outputs if value.dtype == FLOAT32]
    for value in results:
        producer = producer_of(value)
        value.type = ir.TensorType(types[producer])  # a new object: tensors may share one
        if producer.op_type == "Cast":
            producer.attributes.add(ir.AttrInt64("to", types[producer]))
    return sum(_cast_for_readers(graph, value, types) for value in [*inputs, *results])


def _store_weight(graph: ir.Graph, value: ir.Value, types: Types) -> None:
    """Stores the float32 weight `value` in the type of its readers, in both where they differ."""
    fp16_readers = _readers(value, FLOAT16, types)
    if not fp16_readers:
        return
    values = constant_values(value).astype(np.float16)
    if not _readers(value, FLOAT32, types):
        replace_constant(value, values)
        value.type = ir.TensorType(FLOAT16)
        return
    name = f"{value.name}/{TYPE_NAMES[FLOAT16]}"
    twin = ir.val(name, dtype=FLOAT16, shape=value.shape, const_value=ir.tensor(values, name=name))
    graph.register_initializer(twin)
    reconnect(value, twin, fp16_readers)


def _cast_for_readers(graph: ir.Graph, value: ir.Value, types: Types) -> int:
    """Puts a Cast between `value` and its readers in the other type; returns the number of casts, 0 or 1."""
    other = FLOAT32 if value.dtype == FLOAT16 else FLOAT16
    readers = _readers(value, other, types)
    if not readers:
        return 0
    name = f"{value.name}/{TYPE_NAMES[other]}"
    twin = ir.val(name, dtype=other, shape=value.shape)
    cast = ir.node("Cast", [value], {"to": other}, outputs=[twin], name=name)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph.node(0), cast)
    else:
        graph.insert_after(producer, cast)
    reconnect(value, twin, readers)
    return 1


def _readers(value: ir.Value, dtype: ir.DataType, types: Types) -> list[ir.Node]:
    """The readers of `value` that compute in `dtype`. Operators that read only its shape have no type here."""
    return [use.node for use in value.uses() if types.get(use.node) == dtype]
