"""Nodes and initializers that no node reads → removed, by the pass of onnx-ir.

before: an initializer left behind by a pass, e.g. the axes of a reduction that became a pool     after: gone
algebra: no output changes. ONNX Runtime warns about such initializers whenever it loads the graph.
does not apply: graph inputs and outputs, which are the contract, are kept.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


class RemoveUnused:
    """Counts the nodes and initializers that it removed."""

    def __call__(self, model: ir.Model) -> int:
        before = _size(model)
        RemoveUnusedNodesPass()(model)
        return before - _size(model)


def _size(model: ir.Model) -> int:
    return len(model.graph) + len(model.graph.initializers)
