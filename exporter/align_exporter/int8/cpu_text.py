"""A float32 graph of dense layers → the same graph with INT8 products whose activations are quantised as they come.

before: MatMul(x, w)
after:  s = max(max x / (255 − z), −min x / z) of each row;  q = QuantizeLinear(x / s, 1, z)
        Cast(MatMulInteger(q, w int8, z, 0)) · scale of each column · s

A row is a token: its numbers follow from nothing but itself. So nothing is calibrated, one token with large values
takes no digits from the others, and a text gives the same embedding whatever batch it is in. `DynamicQuantizeLinear`,
the usual way, has one scale for the whole batch: the same text in another batch was 6e-3 away.

The zero point z is the same for all rows, since kernels know one for each product: in the middle, but low behind a
GELU, which gives no values below −0.17. Weights are int8 with a scale per output column. Products of two activations,
those of attention, stay float32: they are 1 % of the full size, and softmax has its digits close to 0.

The product is multiplied by the two scales one after the other. Multiplied with each other first, ONNX Runtime 1.32
takes them for the scale of one tensor, makes MatMulIntegerToFloat of the group and uses the first row's scale for all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.int8.constants import constant
from align_exporter.int8.units import unit_of
from align_exporter.int8.weights import TINIEST, quantized_weights

FLOAT = ir.DataType.FLOAT
LARGEST_NUMBER = 255  # of uint8
MIDDLE = 128  # the zero point of values of either sign
LOW = 32  # that of GELU's: rows whose largest value is below 1.2 are the ones that could do with a lower one


def dense_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The products of activations (…, k) with weights."""
    return [
        node
        for node in graph
        if node.op_type in ("MatMul", "Gemm") and node.inputs[1] is not None and node.inputs[1].is_initializer()
    ]


def quantize_per_token(model: ir.Model, kept: Collection[str] = ()) -> int:
    """Quantises the dense layers of `model` in place, but for those named in `kept`; returns how many."""
    graph = model.graph
    activations: dict[ir.Value, _Rows] = {}
    nodes = [node for node in dense_nodes(graph) if unit_of(node) not in kept]
    for node in nodes:
        features = node.inputs[0]
        assert features is not None
        if features not in activations:
            activations[features] = _quantize_rows(graph, features)
        _quantize_product(graph, node, activations[features])
    return len(nodes)


@dataclass(frozen=True)
class _Rows:
    """An activation (…, k), quantised: `numbers` uint8 (…, k), `step` float32 (…, 1), the one `zero_point`."""

    numbers: ir.Value
    step: ir.Value
    zero_point: ir.Value


class _Chain:
    """New nodes, named after the tensor or node that they stand for, with outputs of one shape."""

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
    """Quantises `value` behind the node that computes it."""
    name, producer = value.name or "", value.producer()
    assert producer is not None
    assert value.shape is not None
    zero = LOW if producer.op_type == "Gelu" else MIDDLE
    axis = constant(graph, f"{name}/axis", np.array([-1]))
    above = constant(graph, f"{name}/above", np.float32(1 / (LARGEST_NUMBER - zero)))
    below = constant(graph, f"{name}/below", np.float32(-1 / zero))
    least = constant(graph, f"{name}/least", np.float32(TINIEST))
    one = constant(graph, f"{name}/one", np.float32(1))
    zero_point = constant(graph, f"{name}/zero_point", np.uint8(zero))
    steps = _Chain(name, ir.Shape([*value.shape[:-1], 1]))
    up = steps.add("Mul", [steps.add("ReduceMax", [value, axis], "max"), above], "up")
    down = steps.add("Mul", [steps.add("ReduceMin", [value, axis], "min"), below], "down")
    step = steps.add("Max", [up, down, least], "step")
    rows = _Chain(name, value.shape)
    numbers = rows.add(
        "QuantizeLinear", [rows.add("Div", [value, step], "scaled"), one, zero_point], "quantized", ir.DataType.UINT8
    )
    graph.insert_after(producer, [*steps.nodes, *rows.nodes])
    return _Rows(numbers, step, zero_point)


def _quantize_product(graph: ir.Graph, node: ir.Node, rows: _Rows) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    numbers, steps = quantized_weights(_weights(node).T)
    name, (old,) = node.name or "", node.outputs
    weights = constant(graph, f"{name}/weight", np.ascontiguousarray(numbers.T))
    zeros = constant(graph, f"{name}/weight_zero_point", np.zeros(len(steps), dtype=np.int8))
    columns = constant(graph, f"{name}/weight_scale", steps)
    chain = _Chain(name, old.shape)
    operands = [rows.numbers, weights, rows.zero_point, zeros]
    product = chain.add("MatMulInteger", operands, "MatMulInteger", ir.DataType.INT32)
    product = chain.add("Cast", [product], "Cast", to=FLOAT)
    product = chain.add("Mul", [product, columns], "columns")
    product = chain.add("Mul", [product, rows.step], "rows")
    if bias is not None:
        product = chain.add("Add", [product, bias], "Add")
    graph.insert_before(node, chain.nodes)
    ir.convenience.replace_all_uses_with(old, product, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _weights(node: ir.Node) -> NDArray[np.float32]:
    """Of a dense layer, float32 (k, n)."""
    weights = node.inputs[1]
    assert weights is not None
    assert weights.const_value is not None
    values = weights.const_value.numpy()
    return values.T if node.attributes.get_int("transB", 0) else values
