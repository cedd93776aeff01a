"""An FP16 graph → a float32 graph that rounds like it: every FP16 value is computed in float32 and rounded to FP16.

Why: ONNX Runtime has no FP16 kernels for a CPU. It computes such a graph in float32 and keeps float32 between the
operators, so a graph whose activations overflow FP16 gives perfect results on a CPU and infinity on a GPU. The rounded
graph shows on a CPU what storage in FP16 does, overflow and subnormals included. Products are summed in float32, as
tensor cores do by default; kernels that sum in FP16, and the rounding that fused kernels leave out, are not covered.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
# These move values and leave them as they are.
EXACT_OPERATORS = ("Reshape", "Transpose", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Flatten", "Expand")


def rounded(model: ir.Model) -> ir.Model:
    """The rounding float32 graph of `model`, which is left as it is."""
    copy = model.clone()
    graph = copy.graph
    for value in graph.initializers.values():
        constant = value.const_value
        if constant is not None and constant.dtype == HALF:
            value.const_value = ir.tensor(constant.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(SINGLE)
    for node in list(graph):
        halves = [value for value in node.outputs if value.dtype == HALF]
        for value in halves:
            value.type = ir.TensorType(SINGLE)  # a new one: the clone shares types with its original
            if node.op_type not in EXACT_OPERATORS:
                _round(graph, node, value)
        if node.op_type == "Cast" and halves:
            node.attributes.add(ir.AttrInt64("to", SINGLE))
    return copy


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    half = ir.val(f"{value.name}/half", dtype=HALF, shape=value.shape)
    single = ir.val(f"{value.name}/rounded", dtype=SINGLE, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, single)
    down = ir.node("Cast", [value], {"to": HALF}, outputs=[half], name=half.name)
    up = ir.node("Cast", [half], {"to": SINGLE}, outputs=[single], name=single.name)
    graph.insert_after(node, [down, up])
