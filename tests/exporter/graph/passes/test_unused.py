"""The pass RemoveUnused: what it removes, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from align_exporter.graph.passes.unused import RemoveUnused
from support.graphs import run_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n] x, float[n] spare) => (float[n] y)
<float two = {2}, float left = {3}>
{
  dead = Mul (x, left)
  y = Mul (x, two)
}
"""


def test_removes_what_no_node_reads_and_keeps_inputs_and_outputs() -> None:
    model = ir.from_onnx_text(GRAPH)
    x = np.arange(3, dtype=np.float32)
    assert RemoveUnused()(model) == 2
    assert [node.outputs[0].name for node in model.graph] == ["y"]
    assert set(model.graph.initializers) == {"two"}
    assert [value.name for value in model.graph.inputs] == ["x", "spare"]
    np.testing.assert_array_equal(run_graph(model, {"x": x, "spare": x})[0], 2 * x)


def test_second_run_changes_nothing() -> None:
    model = ir.from_onnx_text(GRAPH)
    RemoveUnused()(model)
    text = str(model)
    assert RemoveUnused()(model) == 0
    assert str(model) == text
