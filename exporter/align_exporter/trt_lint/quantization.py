"""How numbers of 8 bits are written for TensorRT.

Source: NVIDIA's documentation, Working with Quantized Types (symmetric, signed, per tensor or per channel) and
docs/operators.md of onnx-tensorrt ("`x_zero_point` must be zero"). The parser reads UINT8 with a zero point of 0 as
INT8, which doubles what is above 127 into the negative: an error that only wrong embeddings show.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from align_exporter.int8.insert_qdq import output_axis
from align_exporter.trt_lint.finding import PRODUCTS, Finding, is_quantized, label, operand

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def signed_numbers(model: ir.Model) -> Iterator[Finding]:
    """What is quantised are signed numbers of 8 bits."""
    for node in _quantizers(model):
        numbers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        if numbers is None or numbers.dtype != ir.DataType.INT8:
            kind = None if numbers is None or numbers.dtype is None else numbers.dtype.name
            yield Finding(
                "signed numbers", label(node), f"the numbers are {kind}; INT8 is needed, quantise symmetrically"
            )


def zero_points(model: ir.Model) -> Iterator[Finding]:
    """Zero points are constants and 0."""
    for node in _quantizers(model):
        zero_point = operand(node, 2)
        if zero_point is None:
            continue  # 0, of a type that `signed_numbers` looks at
        if zero_point.const_value is None or zero_point.const_value.numpy().any():
            yield Finding(
                "zero points", label(node), f"the zero point {zero_point.name!r} is not 0; quantise symmetrically"
            )


def scales(model: ir.Model) -> Iterator[Finding]:
    """Scales are constants, positive and finite, in the type that the graph holds them in."""
    for node in _quantizers(model):
        scale = operand(node, 1)
        if scale is None or scale.const_value is None:
            yield Finding("scales", label(node), "the scale is computed; make it an initializer")
            continue
        values = scale.const_value.numpy().astype(np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            problem = f"the scale {scale.name!r} has the value {values.min():g}; positive finite ones are needed"
            yield Finding("scales", label(node), problem)


def scale_types(model: ir.Model) -> Iterator[Finding]:
    """A scale has the type of the floats beside it."""
    for node in _quantizers(model):
        floats, scale = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0], operand(node, 1)
        if floats is not None and scale is not None and scale.dtype != floats.dtype:
            kinds = [None if value.dtype is None else value.dtype.name for value in (scale, floats)]
            yield Finding(
                "scale types", label(node), f"the scale is {kinds[0]} and the floats are {kinds[1]}; use one type"
            )


def granularity(model: ir.Model) -> Iterator[Finding]:
    """Activations have one scale, weights have one for each output channel."""
    for node in _quantizers(model):
        scale, constant = operand(node, 1), node.inputs[0] is not None and node.inputs[0].is_initializer()
        if scale is not None and scale.shape is not None and len(scale.shape) > 0 and not constant:
            problem = f"an activation has scales of shape {scale.shape}; one scalar is needed"
            yield Finding("granularity", label(node), problem)
    for node in model.graph:
        if node.op_type in PRODUCTS and is_quantized(operand(node, 1)):
            yield from _weight_scales(node)


def _weight_scales(node: ir.Node) -> Iterator[Finding]:
    weights = node.inputs[1]
    dequantizer = weights.producer() if weights is not None else None
    scale = None if dequantizer is None else operand(dequantizer, 1)
    numbers = None if dequantizer is None else dequantizer.inputs[0]
    if dequantizer is None or scale is None or scale.shape is None or numbers is None or numbers.shape is None:
        return
    if not numbers.is_initializer():
        return  # a product of two activations, which another rule refuses
    axis, wanted = dequantizer.attributes.get_int("axis", 1), output_axis(node)
    if axis % len(numbers.shape) != wanted or list(scale.shape) != [numbers.shape[wanted]]:
        problem = (
            f"its weights {numbers.shape} have scales {scale.shape} along axis {axis}; one for each output channel is "
            f"needed, along axis {wanted}"
        )
        yield Finding("granularity", label(dequantizer), problem)


def float_bias(model: ir.Model) -> Iterator[Finding]:
    """Biases are float: TensorRT adds them to the sums of products."""
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm") and is_quantized(operand(node, 2)):
            yield Finding("float bias", label(node), "its bias is quantised; leave it float")


def _quantizers(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type in QUANTIZERS)


RULES = (signed_numbers, zero_points, scales, scale_types, granularity, float_bias)
