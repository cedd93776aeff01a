"""The pass FoldQueryScale: match, refusal, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.graph.passes.query_scale import FoldQueryScale, refusal
from support.graphs import constants, run_graph

SCALE = 0.25
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, s, 6] h, float[n, 2, 3, s] k) => (float[n, 2, s, s] y)
<int64[4] heads = {0, 0, 2, 3}, float scale = {0.25}, float[6] b = {1, 2, 3, 4, 5, 6}, float[6, 6] w = {WEIGHT}>
{
  p = MatMul (h, w)
  q = Add (p, b)
  r = Reshape (q, heads)
  t = Transpose <perm = [0, 2, 1, 3]> (r)
  scores = MatMul (t, k)
  y_ = Mul (scores, scale)
  y = Identity (y_)
}
""".replace("{WEIGHT}", "{" + ", ".join(str(value) for value in range(36)) + "}")


def evaluate(model: ir.Model) -> np.ndarray:
    generator = np.random.default_rng(0)
    feed = {"h": generator.standard_normal((2, 5, 6)), "k": generator.standard_normal((2, 2, 3, 5))}
    return run_graph(model, {name: value.astype(np.float32) for name, value in feed.items()})[0]


@pytest.mark.parametrize(
    "text",
    [
        GRAPH,
        # The packed tower gathers the heads instead of transposing them.
        GRAPH.replace("Transpose <perm = [0, 2, 1, 3]> (r)", "Gather <axis = 2> (r, order)")
        .replace("int64[4] heads", "int64[2] order = {1, 0}, int64[4] heads")
        .replace("{0, 0, 2, 3}", "{0, 2, -1, 3}"),
    ],
)
def test_matches_and_computes_the_same(text: str) -> None:
    model = ir.from_onnx_text(text)
    before = evaluate(model)
    weight = constants(model)["w"]
    kept = weight.copy()
    assert FoldQueryScale()(model) == 1
    assert "Mul" not in [node.op_type for node in model.graph]
    np.testing.assert_array_equal(evaluate(model), before)  # a power of two: bit-identical
    np.testing.assert_array_equal(weight, kept)  # the traced tensor is a parameter of the reference
    assert constants(model)["w"].dtype == constants(model)["b"].dtype == np.float32


def test_another_head_size_rounds_the_weights_once() -> None:
    model = ir.from_onnx_text(GRAPH.replace("{0.25}", "{0.57735026}"))
    before = evaluate(model)
    assert FoldQueryScale()(model) == 1
    np.testing.assert_allclose(evaluate(model), before, rtol=1e-5)


# The weight is also that of the keys, and the bias that of the result.
SHARED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, s, 6] h) => (float[n, s, 6] y)
<float[1] scale = {0.25}, float[6] b = {1, 2, 3, 4, 5, 6}, float[6, 6] w = {WEIGHT}>
{
  p = MatMul (h, w)
  q = Add (p, b)
  h2 = Neg (h)
  k = MatMul (h2, w)
  t = Transpose <perm = [0, 2, 1]> (k)
  scores = MatMul (q, t)
  y_ = Mul (scores, scale)
  a = MatMul (y_, h)
  y = Add (a, b)
}
""".replace("{WEIGHT}", "{" + ", ".join(str(value % 5) for value in range(36)) + "}")


def test_other_readers_of_its_constants_keep_them() -> None:
    model = ir.from_onnx_text(SHARED)
    feed = {"h": np.random.default_rng(0).standard_normal((2, 6, 6)).astype(np.float32)}
    before = run_graph(model, feed)[0]
    assert FoldQueryScale()(model) == 1
    assert "Mul" not in [node.op_type for node in model.graph]
    np.testing.assert_array_equal(run_graph(model, feed)[0], before)
    assert FoldQueryScale()(model) == 0


def test_a_projection_whose_zero_bias_was_dropped_is_matched() -> None:
    model = ir.from_onnx_text(GRAPH.replace("  q = Add (p, b)\n", "").replace("(q, heads)", "(p, heads)"))
    before = evaluate(model)
    assert FoldQueryScale()(model) == 1
    assert "Mul" not in [node.op_type for node in model.graph]
    np.testing.assert_array_equal(evaluate(model), before)


def test_a_factor_of_any_rank_leaves_the_rank_of_weight_and_bias() -> None:
    model = ir.from_onnx_text(GRAPH.replace("float scale = {0.25}", "float[1, 1, 1, 1] scale = {0.25}"))
    before = evaluate(model)
    assert FoldQueryScale()(model) == 1
    assert (constants(model)["w"].shape, constants(model)["b"].shape) == ((6, 6), (6,))
    np.testing.assert_array_equal(evaluate(model), before)


def test_second_run_changes_nothing() -> None:
    model = ir.from_onnx_text(GRAPH)
    FoldQueryScale()(model)
    text = str(model)
    assert FoldQueryScale()(model) == 0
    assert str(model) == text


PROJECTION_READ = "the left factor is not a projection that only this product reads"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GRAPH.replace("float scale = {0.25}", "float[1, 2, 1, 1] scale = {1, 2}"),
            "the factor is not a constant scalar",
        ),
        (
            GRAPH.replace("Mul (scores, scale)", "Mul (t_, scale)").replace("scores = ", "t_ = Sqrt (k)\n scores = "),
            "the other input is not a product",
        ),
        # The operands are in the order of the tracer; the pass does not match another order.
        (GRAPH.replace("Mul (scores, scale)", "Mul (scale, scores)"), "the factor is not a constant scalar"),
        (GRAPH.replace("Add (p, b)", "Add (b, p)"), "the left factor is a sum, but not of a product and a bias"),
        (GRAPH.replace("Identity (y_)", "Add (y_, scores)"), "the unscaled product is read as well"),
        (GRAPH.replace("q = Add (p, b)", "q_ = Add (p, b)\n q = Relu (q_)"), PROJECTION_READ),
        (
            GRAPH.replace("MatMul (t, k)", "MatMul (t, u)").replace(
                "  scores", "  v = ReduceSum <keepdims = 0> (t)\n  u = Mul (k, v)\n  scores"
            ),
            PROJECTION_READ,
        ),
        (GRAPH.replace("Add (p, b)", "Add (h, b)"), "the left factor is a sum, but not of a product and a bias"),
        (
            GRAPH.replace("q = Add (p, b)", "c = Neg (b)\n  q = Add (p, c)"),
            "the projection's weight or bias is not constant",
        ),
        (GRAPH.replace("y_ = Mul", "z = Relu (p)\n  y_ = Mul"), "the projection is read before its bias is added"),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    model = ir.from_onnx_text(text)
    node = next(node for node in model.graph if node.op_type == "Mul" and node.outputs[0].name == "y_")
    assert (refusal(node) or "").startswith(reason)
    before = str(model)
    assert FoldQueryScale()(model) == 0
    assert str(model) == before
