"""A float32 graph → the same graph with explicit signed quantisation as TensorRT wants it (S8, symmetric).

before: Conv(x, w, b), MatMul(x, w)      after: Conv(DQ(Q(x)), DQ(w int8), b), MatMul(DQ(Q(x)), DQ(w int8))

Activations have one step per tensor, weights one per output channel: axis 0 of a convolution and of a Gemm with
transB, axis 1 of the weights (k, n) of a MatMul. All zero points are 0 and biases stay float. One QuantizeLinear serves
all quantised readers of a tensor; where such a pair belongs is in placement.py.

The graph becomes FP16 afterwards, and there a step has the type of the floats beside it. Steps are therefore numbers
that FP16 holds exactly: what is calibrated in float32 is what the FP16 graph computes. A step that FP16 cannot hold
belongs to a tensor that FP16 cannot hold either, which stays in an FP32 island.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.quant_params import QuantParams
from align_exporter.int8.constants import constant
from align_exporter.int8.qdq_placement import place
from align_exporter.int8.weights import channel_steps, in_steps

LEAST_HALF = np.float32(2.0**-24)  # the smallest positive FP16 number


def quantize_signed(
    model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = (), float32: Collection[ir.Node] = ()
) -> frozenset[ir.Node]:
    """Quantises the float32 graph `model` in place.

    Args:
        scales: of all the tensors of its placement, signed.
        kept: parts that stay float, see `align_exporter.int8.units`.
        float32: its operators that will stay FP32 in FP16. QuantizeLinear goes with what computes its input,
            DequantizeLinear with what reads its output, so that no cast comes between them and their operators.

    Returns:
        The new operators that have to stay FP32 then, too.
    """
    graph = model.graph
    placement = place(graph, kept)
    added: set[ir.Node] = set()
    for node in placement.products:
        dequantizer = _quantize_weights(graph, node)
        if node in float32:
            added.add(dequantizer)
    for value, readers in placement.readers.items():
        scale = scales[value.name or ""]
        added |= _quantize_activation(graph, value, readers, half_steps(np.float32(scale.scale)), float32)
    return frozenset(added)


def half_steps(steps: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """`steps` rounded to FP16, as float32; those that FP16 has no number for stay as they are."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(steps).astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(rounded) & (rounded > 0), rounded, steps).astype(np.float32)


def output_axis(node: ir.Node) -> int:
    """The axis of the output channels in the weights of the product `node`."""
    return 1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)) else 0


def _quantize_weights(graph: ir.Graph, node: ir.Node) -> ir.Node:
    """Returns the DequantizeLinear that takes the place of the weights of `node`."""
    old, axis = node.inputs[1], output_axis(node)
    assert old is not None
    assert old.const_value is not None
    weights = np.moveaxis(old.const_value.numpy(), axis, 0)  # (channels, …)
    steps = half_steps(np.maximum(channel_steps(weights), LEAST_HALF))
    numbers = np.ascontiguousarray(np.moveaxis(in_steps(weights, steps), 0, axis))
    # By the node, because two may share weights.
    name = f"{node.name}/weight"
    operands = [
        constant(graph, f"{name}/quantized", numbers),
        constant(graph, f"{name}/scale", steps),
        constant(graph, f"{name}/zero_point", np.zeros(len(steps), dtype=np.int8)),
    ]
    output = ir.val(f"{name}/dequantized", dtype=ir.DataType.FLOAT, shape=old.shape)
    dequantizer = ir.node("DequantizeLinear", operands, {"axis": axis}, outputs=[output], name=output.name)
    graph.insert_before(node, dequantizer)
    node.replace_input_with(1, output)
    return dequantizer


def _quantize_activation(
    graph: ir.Graph,
    value: ir.Value,
    readers: Sequence[ir.Node],
    step: NDArray[np.float32],
    float32: Collection[ir.Node],
) -> set[ir.Node]:
    """Makes `readers` read `value` quantised; returns the new operators that stay FP32."""
    name, producer = value.name or "", value.producer()
    operands = [constant(graph, f"{name}/scale", step), constant(graph, f"{name}/zero_point", np.int8(0))]
    numbers = ir.val(f"{name}/quantized", dtype=ir.DataType.INT8, shape=value.shape)
    quantizer = ir.node("QuantizeLinear", [value, *operands], outputs=[numbers], name=numbers.name)
    new, added = [quantizer], {quantizer} if producer is None or producer in float32 else set()
    for suffix, stays in (("dequantized", False), ("dequantized/float32", True)):
        chosen = [node for node in readers if (node in float32) == stays]
        if not chosen:
            continue
        output = ir.val(f"{name}/{suffix}", dtype=ir.DataType.FLOAT, shape=value.shape)
        new.append(ir.node("DequantizeLinear", [numbers, *operands], outputs=[output], name=output.name))
        if stays:
            added.add(new[-1])
        for node in chosen:
            for index, operand in enumerate(node.inputs):
                if operand is value:
                    node.replace_input_with(index, output)
    if producer is None:
        graph.insert_before(readers[0], new)
    else:
        graph.insert_after(producer, new)
    return added
