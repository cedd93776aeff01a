"""A float32 graph of convolutions → the same graph with explicit quantisation for ONNX Runtime's CPU kernels (U8S8).

before: Conv(x, w, b)      after: DQ(Q(Conv(DQ(Q(x)), DQ(w int8), DQ(b int32))))

Activations are uint8 with a scale and a zero point per tensor, weights int8 with a scale per output channel, biases
int32 in units of both. ONNX Runtime replaces such a group by QLinearConv, and likewise a Sigmoid, Mul, Add or
GlobalAveragePool between DQ and Q, when *every* tensor between them is quantised; one that is not costs two conversions
and is slower than float32. TensorRT wants signed activations and nothing inside a swish: its graph is another one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams
from align_exporter.int8.constants import constant
from align_exporter.int8.fold_normalization import read_step
from align_exporter.int8.units import unit_of
from align_exporter.int8.weights import quantized_weights

MOST_UNITS = 2.0**30  # of an int32 bias: the other half is left to the sum of products
FUSED_OPERATORS = ("Conv", "Sigmoid", "Mul", "Add", "GlobalAveragePool")


def quantized_nodes(graph: ir.Graph, kept: Collection[str] = ()) -> list[ir.Node]:
    """The operators that compute in INT8: between the first and the last convolution, both included.

    Before are the bytes and their normalisation; after are the last residual, the mean over the image and the L2
    norm, which cost next to nothing and end in the embedding. Sums and products with a constant, as older opsets spell
    an activation with, stay float: there is no scale for the constant. So do the parts `kept`, see
    `align_exporter.int8.units`.
    """
    after = _reached(graph, forwards=True)
    before = _reached(graph, forwards=False)
    between = (node for node in graph if node in after and node in before)
    return [node for node in between if _has_kernel(node) and unit_of(node) not in kept]


def _has_kernel(node: ir.Node) -> bool:
    constant_operand = any(value is not None and value.is_initializer() for value in node.inputs)
    return node.op_type in FUSED_OPERATORS and (node.op_type == "Conv" or not constant_operand)


def quantized_tensors(graph: ir.Graph, kept: Collection[str] = ()) -> list[str]:
    """Names of the activations that are quantised: all that those operators read or write, in the graph's order, but
    for pixels that are read as bytes."""
    nodes = quantized_nodes(graph, kept)
    values = [value for node in nodes for value in (*node.inputs, *node.outputs)]
    activations = (value for value in values if value is not None and not value.is_initializer())
    return list(dict.fromkeys(value.name or "" for value in activations if read_step(value) is None))


def quantize_statically(model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = ()) -> None:
    """Quantises `model` in place, but for the parts `kept`; `scales` of all its `quantized_tensors`."""
    graph = model.graph
    nodes, tensors = quantized_nodes(graph, kept), quantized_tensors(graph, kept)
    results = (value for node in graph for value in node.outputs)
    values = {value.name or "": value for value in [*graph.inputs, *results]}
    for node in nodes:
        if node.op_type == "Conv":
            _quantize_weights(graph, node, scales)
    for name in tensors:
        _quantize_activation(graph, values[name], scales[name])


def _reached(graph: ir.Graph, forwards: bool) -> set[ir.Node]:
    """The convolutions and all nodes behind them, or all before them."""
    found: set[ir.Node] = set()
    for node in graph if forwards else reversed(graph):
        if forwards:
            others = [value.producer() for value in node.inputs if value is not None]
        else:
            others = [use.node for value in node.outputs for use in value.uses()]
        if node.op_type == "Conv" or any(other in found for other in others):
            found.add(node)
    return found


def _quantize_weights(graph: ir.Graph, node: ir.Node, scales: Mapping[str, QuantParams]) -> None:
    features, kernel, bias = (*node.inputs, None)[:3]
    assert features is not None
    assert kernel is not None
    assert kernel.const_value is not None
    if bias is None:
        _replace_constant(graph, node, 1, *quantized_weights(kernel.const_value.numpy()))
        return
    assert bias.const_value is not None
    step = read_step(features) or scales[features.name or ""].scale
    biases = bias.const_value.numpy().astype(np.float64)
    # A bias is counted in steps of weights times inputs. Beside one that would need more of them than an int32 holds,
    # weights are next to nothing: they get larger steps, down to one number for all.
    numbers, steps = quantized_weights(kernel.const_value.numpy(), (np.abs(biases) / (step * MOST_UNITS)).astype("f4"))
    units = (steps.astype(np.float64) * step).astype(np.float32)
    _replace_constant(graph, node, 1, numbers, steps)
    _replace_constant(graph, node, 2, np.rint(biases / units.astype(np.float64)).astype(np.int32), units)


def _replace_constant(
    graph: ir.Graph, node: ir.Node, index: int, numbers: NDArray[np.integer], steps: NDArray[np.float32]
) -> None:
    """Makes input `index` of `node` the dequantised `numbers` (channels, …), one of `steps` for each channel."""
    old = node.inputs[index]
    assert old is not None
    name = old.name or ""
    operands = [
        constant(graph, f"{name}/quantized", numbers),
        constant(graph, f"{name}/scale", steps),
        constant(graph, f"{name}/zero_point", np.zeros(len(steps), dtype=numbers.dtype)),
    ]
    output = ir.val(f"{name}/dequantized", dtype=ir.DataType.FLOAT, shape=old.shape)
    graph.insert_before(node, ir.node("DequantizeLinear", operands, {"axis": 0}, outputs=[output], name=output.name))
    node.replace_input_with(index, output)


def _quantize_activation(graph: ir.Graph, value: ir.Value, scale: QuantParams) -> None:
    """Every reader of `value` reads it quantised and dequantised."""
    name = value.name or ""
    step = constant(graph, f"{name}/scale", np.float32(scale.scale))
    zero_point = constant(graph, f"{name}/zero_point", np.dtype(scale.dtype).type(scale.zero_point))
    numbers = ir.val(f"{name}/quantized", dtype=zero_point.dtype, shape=value.shape)
    output = ir.val(f"{name}/dequantized", dtype=ir.DataType.FLOAT, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, output)
    pair = [
        ir.node("QuantizeLinear", [value, step, zero_point], outputs=[numbers], name=numbers.name),
        ir.node("DequantizeLinear", [numbers, step, zero_point], outputs=[output], name=output.name),
    ]
    producer = value.producer()
    if producer is None:
        first = next(node for node in graph if output in node.inputs)
        graph.insert_before(first, pair)
    else:
        graph.insert_after(producer, pair)
