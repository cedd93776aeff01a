"""Dense layers with dynamic per-token quantization for ONNX Runtime's CPU kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.int8.cpu_text import dense_nodes, quantize_text_for_cpu
from align_exporter.int8.quantize_weights import quantize_weights
from align_exporter.int8.speed import check_fused
from align_runtime import BuildError
from support.graphs import constants, run_graph, typed

# Two layers on the same tensor, a projection with its weights transposed, and a product of two activations.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3] x) => (float[n, n] y, float[n, 2] z)
<float[3, 3] q = {1,2,3, -4,5,6, 7,8,-9}, float[3, 3] k = {0.1,0.2,0.3, 0,0,0, 0.7,-0.8,0.9},
 float[2, 3] p = {1,0,-1, 0.5,2,0}, float[2] b = {10,-10}, float t0 = {0.5}>
{
  h = Add (x, t0)
  [query] a = MatMul (h, q)
  [key] c = MatMul (h, k)
  d = Transpose <perm = [1, 0]> (c)
  [scores] y = MatMul (a, d)
  [projection] z = Gemm <transB = 1> (h, p, b)
}
"""
Q, K, P = (
    np.array(values, dtype=np.float32)
    for values in (
        [[1, 2, 3], [-4, 5, 6], [7, 8, -9]],
        [[0.1, 0.2, 0.3], [0, 0, 0], [0.7, -0.8, 0.9]],
        [[1, 0, -1], [0.5, 2, 0]],
    )
)
BIAS = np.array([10, -10])


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    return run_graph(model, {"x": x})


def uneven(rows: int) -> np.ndarray:
    """Rows of very different magnitudes; row 1 is 0 after the Add."""
    x = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32) * 10.0 ** np.arange(rows)[:, None]
    x[1] = -0.5
    return x.astype(np.float32)


def emulated(x: np.ndarray, weights: np.ndarray, zero_point: int) -> np.ndarray:
    """x (n, k) times weights (k, m) by the formula of the module, in float64."""
    scale = np.maximum.reduce([x.max(1) / (255 - zero_point), -x.min(1) / zero_point, np.full(len(x), 1e-30)])[:, None]
    integers = np.clip(np.rint(x / scale), -zero_point, 255 - zero_point)
    quantized, scales = quantize_weights(weights.T)
    return integers @ quantized.T.astype(np.float64) * scales * scale


def test_dense_layers_are_quantized_and_products_of_activations_are_not() -> None:
    model = typed(GRAPH)
    assert [node.name for node in dense_nodes(model.graph)] == ["query", "key", "projection"]
    assert quantize_text_for_cpu(model) == 3
    operators = Counter(node.op_type for node in model.graph)
    assert operators["MatMulInteger"] == 3
    assert operators["QuantizeLinear"] == 1  # of the tensor that all three read
    assert operators["MatMul"] == 1
    assert operators["Gemm"] == 0
    x = uneven(4)
    scores, projected = run(model, x)
    query, key = (emulated(x + 0.5, weights, 128) for weights in (Q, K))
    np.testing.assert_allclose(scores, query @ key.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(projected, emulated(x + 0.5, P.T, 128) + BIAS, rtol=1e-4, atol=1e-5)


def test_every_row_keeps_its_precision() -> None:
    """One scale for all rows would round the smaller ones to 0."""
    model = typed(GRAPH)
    quantize_text_for_cpu(model)
    x = uneven(5)
    exact, found = run(typed(GRAPH), x)[1], run(model, x)[1]
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact - BIAS, axis=1).clip(1e-30)
    assert error[1] < 1e-6  # zeros
    assert (error < 0.02).all()


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    model = typed(GRAPH)
    quantize_text_for_cpu(model)
    x = uneven(5)
    together = run(model, x)[1]
    for row in range(5):
        np.testing.assert_array_equal(run(model, x[row : row + 1])[1][0], together[row])


def test_outputs_of_gelu_have_a_low_zero_point() -> None:
    model = typed(GRAPH.replace("Add (x, t0)", "Gelu (x)"))
    quantize_text_for_cpu(model)
    assert constants(model)["projection/weight_zero_point"].tolist() == [0, 0]
    assert constants(model)["h/zero_point"] == 32
    x = np.array([[-0.75, -0.5, 0], [-3, 2, 8], [1e-3, 0, 0.02]], dtype=np.float32)
    shown = GRAPH.replace("Add (x, t0)", "Gelu (x)").replace("float[n, n] y", "float[n, 3] h")
    gelu = run(typed(shown), x)[0]
    np.testing.assert_allclose(run(model, x)[1], emulated(gelu, P.T, 32) + BIAS, rtol=1e-5, atol=1e-5)


def test_a_second_run_changes_nothing() -> None:
    model = typed(GRAPH)
    quantize_text_for_cpu(model)
    before = ir.to_onnx_text(model)
    assert quantize_text_for_cpu(model) == 0
    assert ir.to_onnx_text(model) == before


def test_scales_that_are_multiplied_with_each_other_first_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime would fuse them to a kernel that uses the scale of the first row for all rows."""
    model = typed(GRAPH)
    quantize_text_for_cpu(model)
    ir.save(model, tmp_path / "right.onnx")
    check_fused(tmp_path / "right.onnx", {"MatMul": 3})
    for node in list(model.graph):
        if node.name.endswith("/rows"):
            columns, step = node.inputs[0].producer(), node.inputs[1]
            _, scale = columns.inputs
            both = ir.node("Mul", [scale, step], outputs=[ir.val(f"{node.name}/both")])
            model.graph.insert_before(columns, both)
            columns.replace_input_with(1, both.outputs[0])
            ir.convenience.replace_all_uses_with(node.outputs[0], columns.outputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
    ir.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(BuildError, match="0 of 3 quantized MatMul"):
        check_fused(tmp_path / "wrong.onnx", {"MatMul": 3})
