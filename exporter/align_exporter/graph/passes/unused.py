"""Nodes and initializers that nothing reads → removed (onnx-ir's own pass, counted).

before: an initializer left behind by a pass, e.g. the axes of a reduction that became a pool     after: gone
algebra: nothing that reaches an output changes. ONNX Runtime warns about such initializers at every load.
does not apply: graph inputs and outputs, which are the contract, are always kept.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


class RemoveUnused:
    def __call__(self, model: ir.Model) -> int:
        before = _size(model)
        RemoveUnusedNodesPass()(model)
        return before - _size(model)


def _size(model: ir.Model) -> int:
    return len(model.graph) + len(model.graph.initializers)
