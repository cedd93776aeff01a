"""New constants of a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(graph: ir.Graph, name: str, values: NDArray[np.generic] | np.generic) -> ir.Value:
    """`values` as the initializer `name` of `graph`."""
    tensor = ir.tensor(np.asarray(values), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
    graph.register_initializer(value)
    return value
