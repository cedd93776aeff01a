"""Emulates an FP16 graph on a CPU: a float32 graph that rounds every FP16 activation to FP16.

ONNX Runtime has no FP16 kernels for CPUs. It computes such a graph in float32 and keeps float32 between the operators,
so a graph whose activations overflow FP16 is exact on a CPU and gives infinity on a GPU. The emulation shows the effect
of storing activations in FP16, including overflow and subnormals. Products accumulate in float32, as tensor cores do by
default. Kernels that accumulate in FP16, and fused kernels that round less often, are not covered.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from align_exporter.graph.ir_helpers import constant_values, replace_constant

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
# These rearrange values and do not change them.
MOVE_OPERATORS = ("Reshape", "Transpose", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Flatten", "Expand")


def emulate_fp16(model: ir.Model) -> ir.Model:
    """A float32 graph that computes what the FP16 graph `model` does; `model` is not changed."""
    copy = model.clone()
    graph = copy.graph
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == FLOAT16:
            replace_constant(value, constant_values(value).astype(np.float32))
            value.type = ir.TensorType(FLOAT32)
    for node in list(graph):
        outputs = [value for value in node.outputs if value.dtype == FLOAT16]
        for value in outputs:
            value.type = ir.TensorType(FLOAT32)  # a new object: the clone shares types with the original
            if node.op_type not in MOVE_OPERATORS:
                _round(graph, node, value)
        if node.op_type == "Cast" and outputs:
            node.attributes.add(ir.AttrInt64("to", FLOAT32))
    return copy


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Rounds `value`, an output of `node`, to FP16 for all its readers."""
    half = ir.val(f"{value.name}/half", dtype=FLOAT16, shape=value.shape)
    single = ir.val(f"{value.name}/rounded", dtype=FLOAT32, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, single)
    down = ir.node("Cast", [value], {"to": FLOAT16}, outputs=[half], name=half.name)
    up = ir.node("Cast", [half], {"to": FLOAT32}, outputs=[single], name=single.name)
    graph.insert_after(node, [down, up])
