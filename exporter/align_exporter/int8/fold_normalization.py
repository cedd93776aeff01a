"""Folds the normalization of uint8 pixels into the first convolution: the pixels are quantized already.

before: Cast → Transpose → Mul(x, s) → Add(·, o) → Conv(·, W, b)
after: Transpose → DequantizeLinear(x, s, z) → Conv(·, W, b′), b′ = b + ΣW·(o + s·z), z the integer nearest to −o/s
algebra: s·x + o = s·(x − z) + (o + s·z), and a convolution maps a constant input c to c·ΣW. This is exact except where
the convolution pads with zeros: there the constant is wrong by at most s/2, the error that quantizing the normalized
pixels again would have everywhere. (ALIGN normalizes to −1 … 1, so −o/s is 127.5, halfway between two integers. Its
289 × 289 images need no padding.)
gain: ONNX Runtime runs images in NHWC, where a product with one factor per channel is slow.
A factor of 1, an offset of 0 and a bias of 0, which exporters leave out, need not be there.
does not apply: float pixels; a scale that differs between channels or is not positive; a zero point outside uint8 or
different between channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.graph.ir_helpers import add_constant, constant_values, operand, optional_operand, set_constant

CHAIN = ("Cast", "Transpose", "Mul", "Add", "Conv")
NEUTRAL = {"Mul": 1.0, "Add": 0.0}  # the constants with which exporters leave an operator out
MAX_DISTANCE = 0.5 + 1e-3  # between −o/s and the zero point; float32 makes 0.5 inexact


def fold_normalization(model: ir.Model) -> bool:
    """Rewrites the vision graph `model` in place; returns False and changes nothing where it does not apply."""
    nodes = _normalization(model.graph)
    if nodes is None:
        return False
    cast, transposition, convolution = nodes["Cast"], nodes["Transpose"], nodes["Conv"]
    scales, offsets = _channels(nodes, "Mul"), _channels(nodes, "Add")
    scale = scales[0]
    if scale <= 0 or (scales != scale).any():
        return False
    exact_zeros = -offsets / scale
    zero_point = np.rint(exact_zeros.mean())
    if not 0 <= zero_point <= 255 or np.abs(exact_zeros - zero_point).max() > MAX_DISTANCE:
        return False
    _shift_bias(convolution, offsets + scale * zero_point)
    transposition.replace_input_with(0, cast.inputs[0])
    pixels = transposition.outputs[0]
    pixels.dtype = ir.DataType.UINT8
    constants = [
        add_constant(model.graph, "pixels/scale", np.float32(scale)),
        add_constant(model.graph, "pixels/zero_point", np.uint8(zero_point)),
    ]
    values = ir.val("pixels/dequantized", dtype=ir.DataType.FLOAT, shape=pixels.shape)
    dequantizer = ir.node("DequantizeLinear", [pixels, *constants], outputs=[values], name=values.name)
    model.graph.insert_after(transposition, dequantizer)
    convolution.replace_input_with(0, values)
    model.graph.remove([nodes[name] for name in ("Add", "Mul", "Cast") if name in nodes], safe=True)
    return True


def pixel_scale(value: ir.Value) -> float | None:
    """The scale of `value` if it is dequantized pixels, which need no calibration; None for any other tensor."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return float(constant_values(operand(node, 1)))


def _normalization(graph: ir.Graph) -> dict[str, ir.Node] | None:
    """The nodes of `CHAIN` behind the input of the graph, by operator; None where other nodes follow it."""
    nodes: dict[str, ir.Node] = {}
    (value,) = graph.inputs
    if value.dtype != ir.DataType.UINT8:
        return None
    for operator in CHAIN:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return None
        node, index = uses[0].node, uses[0].idx
        if (node.op_type, index) != (operator, 0):
            if operator in NEUTRAL:
                continue
            return None
        nodes[operator] = node
        value = node.outputs[0]
    return nodes


def _channels(nodes: Mapping[str, ir.Node], operator: str) -> NDArray[np.float64]:
    """The constant operand of `operator` per color channel, float64 (3,)."""
    values = constant_values(operand(nodes[operator], 1)) if operator in nodes else np.array(NEUTRAL[operator])
    return np.broadcast_to(values.astype(np.float64).ravel(), 3)


def _shift_bias(convolution: ir.Node, constants: NDArray[np.float64]) -> None:
    """Adds the output of the convolution for an input that is `constants` (3,) at every pixel to its bias."""
    kernel, bias = operand(convolution, 1), optional_operand(convolution, 2)
    shift = constant_values(kernel).astype(np.float64).sum(axis=(2, 3)) @ constants
    set_constant(convolution, 2, (shift if bias is None else constant_values(bias) + shift).astype(np.float32))
