"""Normalisation of pixels in the graph → none: bytes are numbers of 8 bits already.

before: Cast → Transpose → Mul(x, s) → Add(·, o) → Conv(·, W, b)
after: Transpose → DequantizeLinear(x, s, z) → Conv(·, W, b′), b′ = b + ΣW·(o + s·z), z the byte nearest to −o/s
algebra: s·x + o = s·(x − z) + (o + s·z), and a constant input adds W's sum times itself. Only where the convolution
computes with padded zeros does the constant not belong: at most half a step there, which is what rounding to bytes
again would cost everywhere (ALIGN's −1 … 1 has its 0 at 127.5, so every byte falls between two numbers; its 289 pixels
never reach the padding). ONNX Runtime lays images out with the channels last, where a product with three numbers, one
per channel, is slow.
does not apply: pixels as float; another factor for each channel, or one that is not positive, as steps are; 0 that no
byte is near to in all channels; a convolution without bias.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.int8.constants import constant

CHAIN = ("Cast", "Transpose", "Mul", "Add", "Conv")
HALF_A_BYTE = 0.5 + 1e-3  # for −o/s of float32


def read_bytes(model: ir.Model) -> bool:
    """Rewrites the vision graph `model` in place; False, and nothing is done, where it does not apply."""
    nodes = _normalisation(model.graph)
    if nodes is None:
        return False
    cast, transposition, product, addition, convolution = nodes
    scales, offsets = _channels(product), _channels(addition)
    step = scales[0]
    if step <= 0 or (scales != step).any():
        return False
    zeros = -offsets / step
    zero = np.rint(zeros.mean())
    if not 0 <= zero <= 255 or np.abs(zeros - zero).max() > HALF_A_BYTE:
        return False
    _shift_bias(convolution, offsets + step * zero)
    transposition.replace_input_with(0, cast.inputs[0])
    numbers = transposition.outputs[0]
    numbers.dtype = ir.DataType.UINT8
    constants = [
        constant(model.graph, "pixels/scale", np.float32(step)),
        constant(model.graph, "pixels/zero_point", np.uint8(zero)),
    ]
    values = ir.val("pixels/dequantized", dtype=ir.DataType.FLOAT, shape=numbers.shape)
    reading = ir.node("DequantizeLinear", [numbers, *constants], outputs=[values], name=values.name)
    model.graph.insert_after(transposition, reading)
    convolution.replace_input_with(0, values)
    model.graph.remove([addition, product, cast], safe=True)
    return True


def read_step(value: ir.Value) -> float | None:
    """The step between two numbers of pixels that are read as bytes; None for any other value."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    operand = node.inputs[1]
    assert operand is not None
    assert operand.const_value is not None
    return float(operand.const_value.numpy())


def _normalisation(graph: ir.Graph) -> list[ir.Node] | None:
    """The nodes of the chain, from Cast to Conv; None where the graph's input takes another way."""
    nodes: list[ir.Node] = []
    (value,) = graph.inputs
    if value.dtype != ir.DataType.UINT8:
        return None
    for operator in CHAIN:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or (uses[0].node.op_type, uses[0].idx) != (operator, 0):
            return None
        nodes.append(uses[0].node)
        value = nodes[-1].outputs[0]
    return nodes if len(nodes[-1].inputs) == 3 else None


def _channels(node: ir.Node) -> NDArray[np.float64]:
    """The three constants that `node` takes."""
    operand = node.inputs[1]
    assert operand is not None
    assert operand.const_value is not None
    return np.broadcast_to(operand.const_value.numpy().astype(np.float64).ravel(), 3)


def _shift_bias(convolution: ir.Node, constants: NDArray[np.float64]) -> None:
    """Adds what the convolution makes of inputs that are `constants`, one for each channel."""
    kernel, bias = convolution.inputs[1:]
    assert kernel is not None
    assert kernel.const_value is not None
    assert bias is not None
    assert bias.const_value is not None
    moved = kernel.const_value.numpy().astype(np.float64).sum(axis=(2, 3)) @ constants
    bias.const_value = ir.tensor((bias.const_value.numpy() + moved).astype(np.float32), name=bias.name)
