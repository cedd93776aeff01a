"""Converts an FP32 graph to FP16 with explicit casts, and emulates an FP16 graph on a CPU.

In the FP16 graph, valid for a strongly typed TensorRT network, every operator computes in one type. A tensor that is
read in the other type gets one Cast for all those readers. A weight is stored in the type of its readers, twice where
they differ. Inputs and outputs of the graph keep their types.

The emulation is a float32 graph that rounds every FP16 activation to FP16. ONNX Runtime has no FP16 kernels for CPUs.
It computes an FP16 graph in float32 and keeps float32 between the operators, so a graph whose activations overflow FP16
is exact on a CPU and gives infinity on a GPU. The emulation shows the effect of storing activations in FP16, including
overflow and subnormals. Products accumulate in float32, as tensor cores do by default. Kernels that accumulate in FP16,
and fused kernels that round less often, are not covered.
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


FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
# These rearrange values and do not change them.
MOVE_OPERATORS = ("Reshape", "Transpose", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Flatten", "Expand")


def emulate_fp16(model: ir.Model) -> ir.Model:
    """A float32 graph that computes what the FP16 graph `model` does; `model` is not changed."""
    copy = model.clone()
    graph = copy.graph
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == FLOAT16:
            replace_constant(value, constant_values(value).astype(np.float32))
            value.type = ir.TensorType(FLOAT32)
    for node in list(graph):
        outputs = [value for value in node.outputs if value.dtype == FLOAT16]
        for value in outputs:
            value.type = ir.TensorType(FLOAT32)  # a new object: the clone shares types with the original
            if node.op_type not in MOVE_OPERATORS:
                _round(graph, node, value)
        if node.op_type == "Cast" and outputs:
            node.attributes.add(ir.AttrInt64("to", FLOAT32))
    return copy


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Rounds `value`, an output of `node`, to FP16 for all its readers."""
    half = ir.val(f"{value.name}/half", dtype=FLOAT16, shape=value.shape)
    single = ir.val(f"{value.name}/rounded", dtype=FLOAT32, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, single)
    down = ir.node("Cast", [value], {"to": FLOAT16}, outputs=[half], name=half.name)
    up = ir.node("Cast", [half], {"to": FLOAT32}, outputs=[single], name=single.name)
    graph.insert_after(node, [down, up])
