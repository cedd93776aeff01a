"""What has to be known when the engine is built, and how bytes come in.

Source: onnx-tensorrt, docs/operators.md: "`axes` must be an initializer" of reductions, "UINT8 is only supported as
network input or output tensor types".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.trt_lint.finding import Finding, label, operand

# The operand of each operator that must be an initializer.
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
CONSTANT_OPERANDS = {f"Reduce{name}": 1 for name in REDUCTIONS} | {"Squeeze": 1, "Unsqueeze": 1}


def constant_axes(model: ir.Model) -> Iterator[Finding]:
    """Axes are initializers."""
    for node in model.graph:
        index = CONSTANT_OPERANDS.get(node.op_type)
        axes = None if index is None else operand(node, index)
        if axes is not None and not axes.is_initializer():
            yield Finding(
                "constant axes", label(node), f"the axes {axes.name!r} are computed; make them an initializer"
            )


def bytes_cast(model: ir.Model) -> Iterator[Finding]:
    """Bytes come in only to be cast at once, and no other value is bytes."""
    for value in model.graph.inputs:
        if value.dtype != ir.DataType.UINT8:
            continue
        for use in value.uses():
            if use.node.op_type != "Cast":
                problem = f"{use.node.op_type} reads the bytes of the input {value.name!r}; cast them to a float first"
                yield Finding("bytes", label(use.node), problem)
    for node in model.graph:
        if node.op_type != "QuantizeLinear" and any(value.dtype == ir.DataType.UINT8 for value in node.outputs):
            yield Finding("bytes", label(node), "it computes bytes, which only an input may be; use another type")


RULES = (constant_axes, bytes_cast)
