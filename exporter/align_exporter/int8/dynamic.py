"""A float32 graph of dense layers → the same graph with INT8 products whose activations are quantised as they come.

before: MatMul(x, w)
after:  q, s, z = DynamicQuantizeLinear(x);  Cast(MatMulInteger(q, w int8, z, 0)) · (s · scale of each column)

Standard ONNX operators, in the order in which ONNX Runtime knows them as one kernel. Weights are int8 with a scale per
output column. The scale of `x` follows from the tokens that are in the batch, so nothing is calibrated; for the same
reason the same text in another batch gives an embedding that differs in its last digits. Products of two activations,
those of attention, stay float32: they are 1 % of the full size, and softmax has its digits close to 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.int8.constants import constant
from align_exporter.int8.weights import quantized_weights

DYNAMIC_OUTPUTS = ("quantized", "scale", "zero_point")


def dense_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The products of activations (…, k) with weights."""
    return [
        node
        for node in graph
        if node.op_type in ("MatMul", "Gemm") and node.inputs[1] is not None and node.inputs[1].is_initializer()
    ]


def quantize_dynamically(model: ir.Model) -> int:
    """Quantises the dense layers of `model` in place; returns how many there are."""
    graph = model.graph
    activations: dict[ir.Value, tuple[ir.Value, ...]] = {}
    nodes = dense_nodes(graph)
    for node in nodes:
        features = node.inputs[0]
        assert features is not None
        if features not in activations:
            activations[features] = _quantize_activation(graph, features)
        _quantize_product(graph, node, activations[features])
    return len(nodes)


def _quantize_activation(graph: ir.Graph, value: ir.Value) -> tuple[ir.Value, ...]:
    """Numbers, step and zero point of `value`, behind the node that computes it."""
    shapes = (value.shape, ir.Shape([]), ir.Shape([]))
    dtypes = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
    outputs = tuple(
        ir.val(f"{value.name}/{kind}", dtype=dtype, shape=shape)
        for kind, dtype, shape in zip(DYNAMIC_OUTPUTS, dtypes, shapes, strict=True)
    )
    producer = value.producer()
    assert producer is not None
    node = ir.node("DynamicQuantizeLinear", [value], outputs=outputs, name=f"{value.name}/DynamicQuantizeLinear")
    graph.insert_after(producer, node)
    return outputs


def _quantize_product(graph: ir.Graph, node: ir.Node, activation: tuple[ir.Value, ...]) -> None:
    numbers, step, zero_point = activation
    weights, bias = _weights(node), node.inputs[2] if len(node.inputs) > 2 else None
    quantized, steps = quantized_weights(weights.T)
    name, (old,) = node.name or "", node.outputs
    operands = [
        constant(graph, f"{name}/weight", np.ascontiguousarray(quantized.T)),
        constant(graph, f"{name}/weight_zero_point", np.zeros(len(steps), dtype=np.int8)),
        constant(graph, f"{name}/weight_scale", steps),
    ]
    tape = ir.tape.Tape()

    def add(operator: str, inputs: list[ir.Value], suffix: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        attributes = {"to": dtype} if operator == "Cast" else {}
        output = tape.op(operator, inputs, attributes, name=f"{name}/{suffix}")
        output.name, output.dtype, output.shape = f"{name}/{suffix}", dtype, shape
        return output

    scale = add("Mul", [step, operands[2]], "scale", ir.DataType.FLOAT, operands[2].shape)
    sums = [numbers, operands[0], zero_point, operands[1]]
    product = add("MatMulInteger", sums, "MatMulInteger", ir.DataType.INT32, old.shape)
    product = add("Cast", [product], "Cast", ir.DataType.FLOAT, old.shape)
    product = add("Mul", [product, scale], "Mul", ir.DataType.FLOAT, old.shape)
    if bias is not None:
        product = add("Add", [product, bias], "Add", ir.DataType.FLOAT, old.shape)
    graph.insert_before(node, tape.nodes)
    ir.convenience.replace_all_uses_with(old, product, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _weights(node: ir.Node) -> NDArray[np.float32]:
    """Of a dense layer, float32 (k, n)."""
    weights = node.inputs[1]
    assert weights is not None
    assert weights.const_value is not None
    values = weights.const_value.numpy()
    return values.T if node.attributes.get_int("transB", 0) else values
