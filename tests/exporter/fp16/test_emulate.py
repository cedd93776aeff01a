"""The emulation of FP16 storage: equal to NumPy's, and showing what ONNX Runtime hides on a CPU."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime

from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.emulate import emulate_fp16
from support.graphs import typed

TWO_PRODUCTS = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 4] y)
<float[4, 4] v = {LARGE}, float[4, 4] w = {SMALL}>
{
  [first] a = MatMul (x, v)
  [second] b = MatMul (a, w)
  [last] y = Mul (b, b)
}
"""


def half_graph(large: float, small: float) -> ir.Model:
    weights = {"LARGE": large, "SMALL": small}
    text = TWO_PRODUCTS
    for name, value in weights.items():
        text = text.replace("{" + name + "}", "{" + ", ".join([repr(value)] * 16) + "}")
    model = typed(text)
    convert_to_fp16(model, {node for node in model.graph if node.name == "last"})
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_rounds_every_value_as_numpy_does() -> None:
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)

    def half(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    v, w = (half(np.full((4, 4), value, dtype=np.float32)) for value in (0.3, 0.7))
    expected = half(half(half(x) @ v) @ w) ** 2
    graph = half_graph(0.3, 0.7)
    actual = run(emulate_fp16(graph), x)
    # The order of the sums differs from NumPy's: where that crosses the middle between two FP16 numbers, by one step.
    same = actual == expected
    assert same.mean() > 0.9
    np.testing.assert_allclose(actual, expected, rtol=2.0**-9)
    assert (run(emulate_fp16(graph), x) != x).all()


def test_overflow_shows_where_the_graph_itself_hides_it() -> None:
    """Why the gate needs the emulation: on a CPU, ONNX Runtime keeps 160,000 between two FP16 operators."""
    graph, x = half_graph(400.0, 0.001), np.full((1, 4), 100, dtype=np.float32)
    assert np.isfinite(run(graph, x)).all()
    assert np.isinf(run(emulate_fp16(graph), x)).all()


def test_values_below_the_smallest_subnormal_become_zero() -> None:
    graph, x = half_graph(1e-5, 1.0), np.full((1, 4), 1e-4, dtype=np.float32)
    assert (run(emulate_fp16(graph), x) == 0).all()


def test_leaves_the_graph_as_it_is_and_fp32_alone() -> None:
    graph = half_graph(0.5, 0.5)
    before = ir.to_onnx_text(graph)
    emulation = emulate_fp16(graph)
    assert ir.to_onnx_text(graph) == before
    last = next(node for node in emulation.graph if node.name == "last")
    assert last.outputs[0].is_graph_output()
    assert not last.outputs[0].uses()
