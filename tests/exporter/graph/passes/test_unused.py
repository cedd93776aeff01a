"""The pass RemoveUnused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from align_exporter.graph.passes.unused import RemoveUnused

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n] x, float[n] spare) => (float[n] y)
<float two = {2}, float left = {3}>
{
  dead = Mul (x, left)
  y = Mul (x, two)
}
"""


def test_removes_what_nothing_reads_and_keeps_the_contract() -> None:
    model = ir.from_onnx_text(GRAPH)
    x = np.arange(3, dtype=np.float32)
    assert RemoveUnused()(model) == 2
    assert [node.name for node in model.graph] == [node.name for node in model.graph if node.outputs[0].name == "y"]
    assert set(model.graph.initializers) == {"two"}
    assert [value.name for value in model.graph.inputs] == ["x", "spare"]
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x, "spare": x})[0], 2 * x)


def test_second_run_changes_nothing() -> None:
    model = ir.from_onnx_text(GRAPH)
    RemoveUnused()(model)
    text = str(model)
    assert RemoveUnused()(model) == 0
    assert str(model) == text
