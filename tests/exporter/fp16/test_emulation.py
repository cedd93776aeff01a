"""The emulation of FP16: equal to rounding with NumPy, and showing the overflow that a CPU hides."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from support.graphs import run_graph, typed

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


def fp16_graph(large: float, small: float) -> ir.Model:
    weights = {"LARGE": large, "SMALL": small}
    text = TWO_PRODUCTS
    for name, value in weights.items():
        text = text.replace("{" + name + "}", "{" + ", ".join([repr(value)] * 16) + "}")
    model = typed(text)
    convert_to_fp16(model, {node for node in model.graph if node.name == "last"})
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return run_graph(model, {"x": x})[0]


def test_rounds_every_value_as_numpy_does() -> None:
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)

    def to_fp16(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    v, w = (to_fp16(np.full((4, 4), value, dtype=np.float32)) for value in (0.3, 0.7))
    expected = to_fp16(to_fp16(to_fp16(x) @ v) @ w) ** 2
    graph = fp16_graph(0.3, 0.7)
    actual = run(emulate_fp16(graph), x)
    # NumPy sums in another order. Near the middle between two FP16 values, results may differ by one spacing.
    same = actual == expected
    assert same.mean() > 0.9
    np.testing.assert_allclose(actual, expected, rtol=2.0**-9)
    assert (run(emulate_fp16(graph), x) != x).all()


def test_shows_an_overflow_that_a_cpu_hides() -> None:
    """Why the parity gate needs the emulation: ONNX Runtime keeps 160,000 between two FP16 operators on a CPU."""
    graph, x = fp16_graph(400.0, 0.001), np.full((1, 4), 100, dtype=np.float32)
    assert np.isfinite(run(graph, x)).all()
    assert np.isinf(run(emulate_fp16(graph), x)).all()


def test_values_below_the_smallest_subnormal_become_zero() -> None:
    graph, x = fp16_graph(1e-5, 1.0), np.full((1, 4), 1e-4, dtype=np.float32)
    assert (run(emulate_fp16(graph), x) == 0).all()


def test_changes_neither_the_graph_nor_fp32_operators() -> None:
    graph = fp16_graph(0.5, 0.5)
    before = ir.to_onnx_text(graph)
    emulation = emulate_fp16(graph)
    assert ir.to_onnx_text(graph) == before
    last = next(node for node in emulation.graph if node.name == "last")
    assert last.outputs[0].is_graph_output()
    assert not last.outputs[0].uses()
