"""Inserts Q/DQ into a float32 graph for TensorRT (S8, symmetric, static).

before: Conv(x, w, b), MatMul(x, w)      after: Conv(DQ(Q(x)), DQ(w int8), b), MatMul(DQ(Q(x)), DQ(w int8))

Activations have one scale per tensor. Weights have one per output channel: axis 0 for a convolution and a Gemm with
transB, axis 1 for the weights (k, n) of a MatMul. All zero points are 0, biases stay float. One QuantizeLinear serves
all quantized readers of a tensor. Which tensors and readers these are is decided in qdq_placement.py.

The graph is converted to FP16 afterwards, where a scale has the type of the float tensor beside it. Scales are
therefore rounded to FP16 here, so that the FP16 graph computes with the scales that were calibrated, and never to 0. A
scale above the FP16 maximum belongs to a tensor that FP16 cannot represent either, which stays in an FP32 island.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams
from align_exporter.graph.ir_helpers import (
    add_constant,
    constant_values,
    name_of,
    operand,
    optional_operand,
    reconnect,
    shape_of,
)
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.int8.quantize_weights import (
    MIN_SCALE,
    channel_scales,
    quantize_to_scales,
    replace_with_dequantized,
)

MIN_FP16_SCALE = np.float32(2.0**-24)  # the smallest positive FP16 value


def insert_qdq(
    model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = (), float32: Collection[ir.Node] = ()
) -> frozenset[ir.Node]:
    """Quantizes the float32 graph `model` in place.

    Args:
        scales: signed quantization parameters of all tensors of its placement, by name.
        kept: units that stay float, see `align_exporter.int8.mixed_precision`.
        float32: operators of `model` that will stay FP32 in the FP16 graph. QuantizeLinear gets the type of the
            producer of its input and DequantizeLinear that of its readers, so that no Cast separates them.

    Returns:
        The new operators that also have to stay FP32.
    """
    graph = model.graph
    placement = place_qdq(graph, kept)
    added: set[ir.Node] = set()
    for node in placement.weighted_nodes:
        dequantizer = _quantize_weights(graph, node, _least_scale([node], float32))
        if node in float32:
            added.add(dequantizer)
    for value, readers in placement.readers.items():
        least = _least_scale([value.producer(), *readers], float32)
        scale = round_scales_to_fp16(np.maximum(np.float32(scales[name_of(value)].scale), least))
        added |= _quantize_activation(graph, value, readers, scale, float32)
    added |= {addition for node, addition in _separate_biases(graph) if node in float32}
    return frozenset(added)


def _separate_biases(graph: ir.Graph) -> list[tuple[ir.Node, ir.Node]]:
    """Adds the biases of layers that only a QuantizeLinear reads behind them; returns each layer with its addition.

    ONNX Runtime's WeightBiasQuantization quantizes a bias there, and loses one in FP16: the embeddings of an ordinary
    session were wrong, silently. TensorRT takes the bias of a convolution apart itself before it fuses (docs/int8.md).
    """
    layers = [node for node in graph if node.op_type in ("Conv", "Gemm") and optional_operand(node, 2) is not None]
    found = []
    for node in layers:
        (output,), readers = node.outputs, {use.node.op_type for use in node.outputs[0].uses()}
        if readers != {"QuantizeLinear"} or output.is_graph_output():
            continue
        values, ones = constant_values(operand(node, 2)), [1] * (len(shape_of(output)) - 2)
        addend = add_constant(graph, f"{name_of(output)}/bias", values.reshape(-1, *ones))
        node.resize_inputs(2)  # TensorRT refuses an empty one
        total = ir.val(f"{name_of(output)}/total", dtype=output.dtype, shape=output.shape)
        ir.convenience.replace_all_uses_with(output, total)
        addition = ir.node("Add", [output, addend], outputs=[total], name=total.name)
        graph.insert_after(node, [addition])
        found.append((node, addition))
    return found


def _least_scale(nodes: Iterable[ir.Node | None], float32: Collection[ir.Node]) -> np.float32:
    """The smallest scale of a tensor that `nodes` compute with: 0 divides nothing, whatever the type."""
    return MIN_SCALE if all(node is None or node in float32 for node in nodes) else MIN_FP16_SCALE


def round_scales_to_fp16(scales: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """`scales` rounded to FP16, as float32; scales that would become 0 or infinity are not rounded."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(scales).astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(rounded) & (rounded > 0), rounded, scales).astype(np.float32)


def output_axis(node: ir.Node) -> int:
    """The axis of the output channels in the weights of the convolution or dense layer `node`."""
    return 1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)) else 0


def _quantize_weights(graph: ir.Graph, node: ir.Node, least: np.float32) -> ir.Node:
    """Quantizes the weights of `node` with scales from `least`; returns the DequantizeLinear that replaces them."""
    axis = output_axis(node)
    weights = np.moveaxis(constant_values(operand(node, 1)), axis, 0)  # (channels, …)
    scales = round_scales_to_fp16(np.maximum(channel_scales(weights), least))
    integers = np.ascontiguousarray(np.moveaxis(quantize_to_scales(weights, scales), 0, axis))
    # Named after the node and not after the weights, because two nodes may share weights.
    return replace_with_dequantized(graph, node, 1, f"{node.name}/weight", integers, scales, axis)


def _quantize_activation(
    graph: ir.Graph,
    value: ir.Value,
    readers: Sequence[ir.Node],
    scale: NDArray[np.float32],
    float32: Collection[ir.Node],
) -> set[ir.Node]:
    """Makes `readers` read `value` quantized; returns the new operators that stay FP32."""
    name, producer = name_of(value), value.producer()
    operands = [add_constant(graph, f"{name}/scale", scale), add_constant(graph, f"{name}/zero_point", np.int8(0))]
    integers = ir.val(f"{name}/quantized", dtype=ir.DataType.INT8, shape=value.shape)
    quantizer = ir.node("QuantizeLinear", [value, *operands], outputs=[integers], name=integers.name)
    new, added = [quantizer], {quantizer} if producer is None or producer in float32 else set()
    for suffix, stays in (("dequantized", False), ("dequantized/float32", True)):
        chosen = [node for node in readers if (node in float32) == stays]
        if not chosen:
            continue
        output = ir.val(f"{name}/{suffix}", dtype=ir.DataType.FLOAT, shape=value.shape)
        new.append(ir.node("DequantizeLinear", [integers, *operands], outputs=[output], name=output.name))
        if stays:
            added.add(new[-1])
        reconnect(value, output, chosen)
    if producer is None:
        graph.insert_before(readers[0], new)
    else:
        graph.insert_after(producer, new)
    return added
