"""Inserts Q/DQ into a float32 graph of convolutions for ONNX Runtime's CPU kernels (U8S8, static).

before: Conv(x, w, b)      after: DQ(Q(Conv(DQ(Q(x)), DQ(w int8), DQ(b int32))))

Activations are uint8 with a scale and a zero point per tensor. Weights are int8 with a scale per output channel. Biases
are int32 with the product of both scales. ONNX Runtime fuses such a group to QLinearConv, and a Sigmoid, Mul, Add or
GlobalAveragePool between DQ and Q to its QLinear kernel. It does so only where *every* tensor of the group is
quantized; an operator that is not fused costs two conversions and is slower than float32. TensorRT needs signed
activations and no Q/DQ inside a swish, so it gets another graph (insert_qdq.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from align_calibration.quant_params import UINT8, QuantParams
from align_exporter.graph.ir_helpers import (
    add_constant,
    constant_values,
    name_of,
    operand,
    optional_operand,
    own_constant,
)
from align_exporter.int8.fold_normalization import pixel_scale
from align_exporter.int8.mixed_precision import stays_float
from align_exporter.int8.quantize_weights import quantize_weights, replace_with_dequantized
from align_exporter.int8.visible_ranges import saturation

MAX_BIAS = 2.0**30  # of an int32 bias; the other half of the range is for the accumulated products
MIN_BIAS_SCALE = 1e-37
FUSED_OPERATORS = ("Conv", "Sigmoid", "Mul", "Add", "GlobalAveragePool")


def quantized_nodes(graph: ir.Graph, kept: Collection[str] = ()) -> list[ir.Node]:
    """The operators that compute in INT8: those between the first and the last convolution, both included.

    Before them are the pixels and their normalization. Behind them are the last residual, the global mean and the L2
    norm, which cost little and compute the embedding. Sums and products with a constant, which activations consist of
    in older opsets, stay float: the constant has no scale. So do the units in `kept` (see mixed_precision.py).
    """
    after = _reachable(graph, forwards=True)
    before = _reachable(graph, forwards=False)
    between = (node for node in graph if node in after and node in before)
    return [node for node in between if _has_kernel(node) and not stays_float(node, kept)]


def _has_kernel(node: ir.Node) -> bool:
    """Whether ONNX Runtime has an INT8 kernel for `node`."""
    constant_operand = any(value is not None and value.is_initializer() for value in node.inputs)
    return node.op_type in FUSED_OPERATORS and (node.op_type == "Conv" or not constant_operand)


def quantized_tensors(graph: ir.Graph, kept: Collection[str] = ()) -> list[str]:
    """Names of the activations that need a scale, in the order of the graph.

    These are all that `quantized_nodes` read or write, except pixels, which are uint8 already, and what is read only
    by a Relu or Clip whose result is quantized: ONNX Runtime fuses that operator into the QuantizeLinear behind it.
    """
    nodes = quantized_nodes(graph, kept)
    values = [value for node in nodes for value in (*node.inputs, *node.outputs)]
    activations = (value for value in values if value is not None and not value.is_initializer())
    found = dict.fromkeys(value for value in activations if pixel_scale(value) is None)
    return [name_of(value) for value in found if not _is_saturated(value, found)]


def _is_saturated(value: ir.Value, quantized: Collection[ir.Value]) -> bool:
    """Whether all that is read of `value` is what a Relu or Clip leaves of it, and that is among the `quantized`."""
    results = [use.node.outputs[0] for use in value.uses() if use.idx == 0]
    read = [result for result in results if saturation(result) is not None and result in quantized]
    return bool(read) and len(read) == len(value.uses()) and not value.is_graph_output()


def quantize_vision_for_cpu(model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = ()) -> None:
    """Quantizes `model` in place, except the units in `kept`.

    Args:
        scales: quantization parameters of all its `quantized_tensors`, by name.
    """
    graph = model.graph
    nodes, tensors = quantized_nodes(graph, kept), quantized_tensors(graph, kept)
    results = (value for node in graph for value in node.outputs)
    values = {name_of(value): value for value in [*graph.inputs, *results]}
    for node in nodes:
        if node.op_type == "Conv":
            _quantize_weights(graph, node, scales)
    for name in tensors:
        bounds = saturation(values[name])
        params = scales[name] if bounds is None else scales[name].within(bounds.low, bounds.high, UINT8)
        _quantize_activation(graph, values[name], params)


def _reachable(graph: ir.Graph, forwards: bool) -> set[ir.Node]:
    """The convolutions and all nodes behind them (`forwards`) or before them."""
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
    """Quantizes weights and bias of the convolution `node`."""
    features, kernel = operand(node, 0), own_constant(node, 1)
    weights = constant_values(kernel)
    if optional_operand(node, 2) is None:
        replace_with_dequantized(graph, node, 1, name_of(kernel), *quantize_weights(weights))
        return
    bias, scale = own_constant(node, 2), pixel_scale(features) or scales[name_of(features)].scale
    biases = constant_values(bias).astype(np.float64)
    # The scale of a bias is that of the weights times that of the inputs, and must be a normal float32. Where the bias
    # would exceed int32, the weights are negligible beside it: they get a larger scale, up to where all of them are 0.
    min_scales = (np.maximum(np.abs(biases) / MAX_BIAS, MIN_BIAS_SCALE) / scale).astype(np.float32)
    integers, weight_scales = quantize_weights(weights, min_scales)
    bias_scales = (weight_scales.astype(np.float64) * scale).astype(np.float32)
    bias_integers = np.rint(biases / bias_scales.astype(np.float64)).astype(np.int32)
    replace_with_dequantized(graph, node, 1, name_of(kernel), integers, weight_scales)
    replace_with_dequantized(graph, node, 2, name_of(bias), bias_integers, bias_scales)


def _quantize_activation(graph: ir.Graph, value: ir.Value, params: QuantParams) -> None:
    """Inserts QuantizeLinear and DequantizeLinear between `value` and all its readers."""
    name = name_of(value)
    scale = add_constant(graph, f"{name}/scale", np.float32(params.scale))
    zero_point = add_constant(graph, f"{name}/zero_point", np.dtype(params.dtype).type(params.zero_point))
    integers = ir.val(f"{name}/quantized", dtype=zero_point.dtype, shape=value.shape)
    output = ir.val(f"{name}/dequantized", dtype=ir.DataType.FLOAT, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, output)
    pair = [
        ir.node("QuantizeLinear", [value, scale, zero_point], outputs=[integers], name=integers.name),
        ir.node("DequantizeLinear", [integers, scale, zero_point], outputs=[output], name=output.name),
    ]
    producer = value.producer()
    if producer is None:
        first = next(node for node in graph if output in node.inputs)
        graph.insert_before(first, pair)
    else:
        graph.insert_after(producer, pair)
