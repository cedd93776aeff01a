"""Where the bias of a convolution or dense layer is: an operand of its own, or the constant that is added behind it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.graph.ir_helpers import constant_values, operand, optional_operand, shape_of

SUMS = ("Add", "Sum")  # of two; see `align_exporter.graph.passes.unfused_sum`


class Bias(NamedTuple):
    """Input `position` of `node`, which may be left out."""

    node: ir.Node
    position: int


def bias_operand(node: ir.Node) -> Bias | None:
    """The bias of `node`: third operand of a Conv or Gemm; behind a MatMul the constant vector of the sum that alone
    reads it, None where there is none."""
    if node.op_type != "MatMul":
        return Bias(node, 2)
    (output,) = node.outputs
    readers = [use.node for use in output.uses()]
    if len(readers) != 1 or readers[0].op_type not in SUMS or output.is_graph_output():
        return None
    index = 1 if readers[0].inputs[0] is output else 0
    addend = operand(readers[0], index)
    is_vector = addend.const_value is not None and len(shape_of(addend)) == 1
    return Bias(readers[0], index) if is_vector else None


def bias_values(bias: Bias) -> NDArray[np.float64]:
    """The values of `bias`, (channels,); a single 0 where it is left out."""
    found = optional_operand(*bias)
    return np.zeros(1) if found is None else constant_values(found).astype(np.float64)
