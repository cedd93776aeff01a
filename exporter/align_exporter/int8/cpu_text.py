"""Quantizes the dense layers of a float32 graph for ONNX Runtime's CPU kernels: dynamic per-token quantization.

before: MatMul(x, w)
after:  s = max(max x / (255 − z), −min x / z) per row;  q = QuantizeLinear(x / s, 1, z)
        Cast(MatMulInteger(q, w int8, z, 0)) · scale per column · s

A row is a token, and its scale depends on that token alone. So nothing is calibrated, a token with large values takes
no precision from the others, and a text has the same embedding in every batch. `DynamicQuantizeLinear`, the common
choice, has one scale for the whole batch: the embedding of a text differed by 6e-3 between two batches.

The zero point z is the same for all rows because the kernels support only one per product: 128, but 32 behind a GELU,
which has no values below −0.17. Weights are int8 with a scale per output column. The products of two activations in
attention stay float32: they are 1 % of the MACs in the full size, and softmax needs precision close to 0.

The product is multiplied by the two scales one after the other. If they were multiplied with each other first, ONNX
Runtime 1.32 would fuse the group to MatMulIntegerToFloat, which takes one scale, and use that of the first row for all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.graph.ir_helpers import (
    add_constant,
    constant_values,
    name_of,
    operand,
    optional_operand,
    producer_of,
    shape_of,
)
from align_exporter.int8.mixed_precision import stays_float
from align_exporter.int8.quantize_weights import MIN_SCALE, quantize_weights

FLOAT = ir.DataType.FLOAT
UINT8_MAX = 255
PROJECTION = "text_projection"
ZERO_POINT = 128  # of values of either sign
GELU_ZERO_POINT = 32  # for a row maximum above 1.2, no other zero point gives a scale more than 13 % smaller


def dense_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The dense layers: products of activations (…, k) with constant weights.

    Without the projection to the embedding, which has one row for each text: in INT8 it saves nothing, and costs the
    embeddings as much as a layer of the encoder (docs/int8.md).
    """
    products = (node for node in graph if node.op_type in ("MatMul", "Gemm") and operand(node, 1).is_initializer())
    return [node for node in products if not name_of(node).startswith(PROJECTION)]


def quantize_text_for_cpu(model: ir.Model, kept: Collection[str] = ()) -> int:
    """Quantizes the dense layers of `model` in place, except those named in `kept`; returns their number."""
    graph = model.graph
    activations: dict[ir.Value, _Rows] = {}
    nodes = [node for node in dense_nodes(graph) if not stays_float(node, kept)]
    for node in nodes:
        features = operand(node, 0)
        if features not in activations:
            activations[features] = _quantize_rows(graph, features)
        _quantize_product(graph, node, activations[features])
    return len(nodes)


@dataclass(frozen=True)
class _Rows:
    """A quantized activation: `integers` uint8 (…, k), `scale` float32 (…, 1), `zero_point` uint8 scalar."""

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value


class _Chain:
    """New nodes with a common name prefix, whose outputs have one shape."""

    def __init__(self, name: str, shape: ir.Shape | None) -> None:
        self._tape, self._name, self._shape = ir.tape.Tape(), name, shape

    @property
    def nodes(self) -> Sequence[ir.Node]:
        return self._tape.nodes

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        suffix: str,
        dtype: ir.DataType = ir.DataType.FLOAT,
        **also: int,
    ) -> ir.Value:
        output = self._tape.op(operator, inputs, also, name=f"{self._name}/{suffix}")
        output.name, output.type, output.shape = f"{self._name}/{suffix}", ir.TensorType(dtype), self._shape
        return output


def _quantize_rows(graph: ir.Graph, value: ir.Value) -> _Rows:
    """Quantizes `value` (…, k) per row, behind the node that computes it."""
    name, producer = name_of(value), producer_of(value)
    zero = GELU_ZERO_POINT if producer.op_type == "Gelu" else ZERO_POINT
    axis = add_constant(graph, f"{name}/axis", np.array([-1]))
    above = add_constant(graph, f"{name}/above", np.float32(1 / (UINT8_MAX - zero)))
    below = add_constant(graph, f"{name}/below", np.float32(-1 / zero))
    least = add_constant(graph, f"{name}/least", np.float32(MIN_SCALE))
    one = add_constant(graph, f"{name}/one", np.float32(1))
    zero_point = add_constant(graph, f"{name}/zero_point", np.uint8(zero))
    scales = _Chain(name, ir.Shape([*shape_of(value)[:-1], 1]))
    up = scales.add("Mul", [scales.add("ReduceMax", [value, axis], "max"), above], "up")
    down = scales.add("Mul", [scales.add("ReduceMin", [value, axis], "min"), below], "down")
    scale = scales.add("Max", [up, down, least], "step")
    rows = _Chain(name, value.shape)
    integers = rows.add(
        "QuantizeLinear", [rows.add("Div", [value, scale], "scaled"), one, zero_point], "quantized", ir.DataType.UINT8
    )
    graph.insert_after(producer, [*scales.nodes, *rows.nodes])
    return _Rows(integers, scale, zero_point)


def _quantize_product(graph: ir.Graph, node: ir.Node, rows: _Rows) -> None:
    """Replaces the dense layer `node` by an integer product of the quantized `rows`."""
    bias = optional_operand(node, 2)
    integers, scales = quantize_weights(_weights(node).T)
    name, (old,) = name_of(node), node.outputs
    weights = add_constant(graph, f"{name}/weight", np.ascontiguousarray(integers.T))
    zeros = add_constant(graph, f"{name}/weight_zero_point", np.zeros(len(scales), dtype=np.int8))
    columns = add_constant(graph, f"{name}/weight_scale", scales)
    chain = _Chain(name, old.shape)
    operands = [rows.integers, weights, rows.zero_point, zeros]
    product = chain.add("MatMulInteger", operands, "MatMulInteger", ir.DataType.INT32)
    product = chain.add("Cast", [product], "Cast", to=FLOAT)
    product = chain.add("Mul", [product, columns], "columns")
    product = chain.add("Mul", [product, rows.scale], "rows")
    if bias is not None:
        product = chain.add("Add", [product, bias], "Add")
    graph.insert_before(node, chain.nodes)
    ir.convenience.replace_all_uses_with(old, product, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _weights(node: ir.Node) -> NDArray[np.float32]:
    """The weights of a dense layer, float32 (k, n)."""
    values = constant_values(operand(node, 1))
    return values.T if node.attributes.get_int("transB", 0) else values
