"""Types of operands, and how INT8 is written for TensorRT.

Source: NVIDIA's documentation, Strongly Typed Networks (operands of one type, conversions only by Cast and Q/DQ) and
Working with Quantized Types (symmetric and signed, activations per tensor, weights per channel), and docs/operators.md
of onnx-tensorrt ("`x_zero_point` must be zero"). The parser reads UINT8 with a zero point of 0 as INT8: values above
127 become negative, which only wrong embeddings show.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from align_exporter.trt_lint.finding import (
    FLOAT_TYPES,
    MAC_OPERATORS,
    QUANTIZERS,
    Finding,
    is_quantized,
    label,
    nodes_of,
    operand,
    producer_of,
    type_name,
)

CONVERSIONS = ("Cast", "CastLike", *QUANTIZERS)


def one_float_type(model: ir.Model) -> Iterator[Finding]:
    """All float operands and results of an operator have one type: TensorRT 11 builds in the types of the graph."""
    for node in model.graph:
        if node.op_type in CONVERSIONS:
            continue
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        types = sorted({type_name(value) for value in values if value.dtype in FLOAT_TYPES})
        if len(types) > 1:
            problem = f"{node.op_type} mixes {' and '.join(types)}; insert a Cast before it"
            yield Finding("strong typing", label(node), problem)


def known_types(model: ir.Model) -> Iterator[Finding]:
    """Every value has a type in the file; the other rules cannot check a value without one."""
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype is None:
                problem = f"the type of {value.name!r} is not in the file; run shape inference first"
                yield Finding("known types", label(node), problem)


def signed_integers(model: ir.Model) -> Iterator[Finding]:
    """Quantized values are INT8."""
    for node in nodes_of(model, *QUANTIZERS):
        integers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        if integers is None or integers.dtype != ir.DataType.INT8:
            kind = "missing" if integers is None else type_name(integers)
            problem = f"the quantized values are {kind}, not INT8; quantize symmetrically"
            yield Finding("signed integers", label(node), problem)


def zero_points(model: ir.Model) -> Iterator[Finding]:
    """Zero points are constants and 0. One that is left out is 0, of a type that `signed_integers` checks."""
    for node in nodes_of(model, *QUANTIZERS):
        zero_point = operand(node, 2)
        if zero_point is None:
            continue
        if zero_point.const_value is None or zero_point.const_value.numpy().any():
            problem = f"the zero point {zero_point.name!r} is not a constant 0; quantize symmetrically"
            yield Finding("zero points", label(node), problem)


def scales(model: ir.Model) -> Iterator[Finding]:
    """Scales are constants, positive and finite in the type in which they are stored."""
    for node in nodes_of(model, *QUANTIZERS):
        scale = operand(node, 1)
        if scale is None or scale.const_value is None:
            yield Finding("scales", label(node), "the scale is computed; make it an initializer")
            continue
        values = scale.const_value.numpy().astype(np.float64)
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if wrong.size:
            problem = f"the scale {scale.name!r} has the value {wrong[0]:g}; scales must be positive and finite"
            yield Finding("scales", label(node), problem)


def scale_types(model: ir.Model) -> Iterator[Finding]:
    """A scale has the type of the float tensor that it belongs to."""
    for node in nodes_of(model, *QUANTIZERS):
        tensor = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
        scale = operand(node, 1)
        if tensor is not None and scale is not None and scale.dtype != tensor.dtype:
            problem = f"the scale is {type_name(scale)} and the float tensor {type_name(tensor)}; use one type"
            yield Finding("scale types", label(node), problem)


def granularity(model: ir.Model) -> Iterator[Finding]:
    """Activations have one scale; weights have one per output channel."""
    for node in nodes_of(model, *QUANTIZERS):
        scale, constant = operand(node, 1), node.inputs[0] is not None and node.inputs[0].is_initializer()
        if scale is not None and scale.shape is not None and len(scale.shape) > 0 and not constant:
            problem = f"an activation has scales of shape {scale.shape}; use one scalar scale"
            yield Finding("granularity", label(node), problem)
    for node in nodes_of(model, *MAC_OPERATORS):
        dequantizer = producer_of(operand(node, 1), "DequantizeLinear")
        if dequantizer is not None:
            yield from _per_channel(node, dequantizer)


def _per_channel(node: ir.Node, dequantizer: ir.Node) -> Iterator[Finding]:
    integers, scale = dequantizer.inputs[0], operand(dequantizer, 1)
    if integers is None or integers.shape is None or scale is None or scale.shape is None:
        return
    if not integers.is_initializer():
        return  # the product of two activations, which `placement_rules.float_attention` refuses
    expected = _channel_axis(node, len(integers.shape))
    axis = dequantizer.attributes.get_int("axis", 1) % len(integers.shape)
    if axis != expected or list(scale.shape) != [integers.shape[expected]]:
        problem = (
            f"weights {integers.shape} have scales {scale.shape} along axis {axis}; use one scale per output channel, "
            f"along axis {expected}"
        )
        yield Finding("granularity", label(dequantizer), problem)


def _channel_axis(node: ir.Node, rank: int) -> int:
    """Axis of the output channels in the weights of `node`, whose layouts are those of ONNX's operators.

    Conv: (M, C/group, kH, kW). MatMul: (…, K, N). Gemm: (K, N), or (N, K) with ``transB``.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul":
        return rank - 1
    return 0 if node.attributes.get_int("transB", 0) else 1


def float_bias(model: ir.Model) -> Iterator[Finding]:
    """Biases are float: TensorRT adds them to the accumulator."""
    for node in nodes_of(model, "Conv", "Gemm"):
        if is_quantized(operand(node, 2)):
            yield Finding("float bias", label(node), "the bias is quantized; keep it float")


RULES = (
    one_float_type,
    known_types,
    signed_integers,
    zero_points,
    scales,
    scale_types,
    granularity,
    float_bias,
)
