"""Weights rounded by what their layer reads: smaller errors of its outputs, and none in their mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from align_calibration.second_moments import Moments
from align_exporter.int8.biases import bias_operand
from align_exporter.int8.insert_qdq import round_scales_to_fp16
from align_exporter.int8.quantize_weights import INT8_MAX, quantize_weights
from align_exporter.int8.round_weights import RoundedWeights, layer_scales, replace_weights, round_weights
from support.graphs import constants, typed

INPUTS, OUTPUTS, ROWS = 24, 12, 4000
DENSE = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, {INPUTS}] x) => (float[1, n, {OUTPUTS}] y)
<
  float[{INPUTS}, {OUTPUTS}] w = {{{", ".join(["1"] * INPUTS * OUTPUTS)}}},
  float[{OUTPUTS}] b = {{{", ".join(["0"] * OUTPUTS)}}}
>
{{
  [layer] p = MatMul (x, w)
  [sum] y = Add (p, b)
}}
"""
WITHOUT_BIAS = DENSE.replace("[sum] y = Add (p, b)", "[sum] y = Neg (p)")


def weights(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(INPUTS, OUTPUTS)).astype(np.float32)


def layer(text: str, values: NDArray[np.float32]) -> tuple[ir.Model, ir.Node]:
    model = typed(text)
    model.graph.initializers["w"].const_value = ir.tensor(values, name="w")
    return model, model.graph[0]


def rows(correlated: bool) -> NDArray[np.float64]:
    random = np.random.default_rng(1)
    found = random.normal(size=(ROWS, INPUTS))
    if correlated:
        found = found[:, :4] @ random.normal(size=(4, INPUTS)) + 0.1 * found
    return found + 3


def moments(of: NDArray[np.float64]) -> Moments:
    return Moments(of.mean(axis=0)[None], np.cov(of, rowvar=False, bias=True)[None].astype(np.float32))


def rounded(text: str, values: NDArray[np.float32], measured: Moments) -> RoundedWeights:
    _, node = layer(text, values)
    return round_weights(node, layer_scales(node, np.asarray), measured)


def nearest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    integers, scales = quantize_weights(np.ascontiguousarray(values.T))
    return (integers * scales[:, None]).T


def test_correlated_inputs_make_up_for_each_others_rounding() -> None:
    x, w = rows(correlated=True), weights()
    found = rounded(DENSE, w, moments(x))
    assert found.bias is not None
    error = np.mean((x @ (found.weights - w) + found.bias) ** 2)
    to_nearest = x @ (nearest(w) - w)
    assert error < 0.2 * np.mean((to_nearest - to_nearest.mean(axis=0)) ** 2)


def test_the_mean_of_the_outputs_is_kept() -> None:
    x, w = rows(correlated=True), weights()
    found = rounded(DENSE, w, moments(x))
    shift = (x @ (found.weights - w) + found.bias).mean(axis=0)
    assert np.abs((x @ (found.weights - w)).mean(axis=0)).max() > 1e-3
    np.testing.assert_allclose(shift, 0, atol=1e-5)


def test_inputs_without_correlation_are_rounded_to_nearest() -> None:
    x, w = rows(correlated=False), weights()
    measured = Moments(x.mean(axis=0)[None], np.eye(INPUTS, dtype=np.float32)[None])
    np.testing.assert_allclose(rounded(DENSE, w, measured).weights, nearest(w), atol=1e-6)


def test_without_a_bias_the_mean_is_part_of_the_error() -> None:
    x, w = rows(correlated=True), weights()
    found = rounded(WITHOUT_BIAS, w, moments(x))
    assert found.bias is None
    assert np.mean((x @ (found.weights - w)) ** 2) < 0.2 * np.mean((x @ (nearest(w) - w)) ** 2)


@pytest.mark.parametrize("scale_type", [np.asarray, round_scales_to_fp16])
def test_the_integers_are_found_again(scale_type: object) -> None:
    """Whoever quantizes the rounded weights gets them back, because the largest of each channel keeps its place."""
    _, node = layer(DENSE, weights())
    found = round_weights(node, layer_scales(node, scale_type), moments(rows(correlated=True)))  # type: ignore[arg-type]
    integers, scales = quantize_weights(np.ascontiguousarray(found.weights.T))
    assert (np.abs(integers).max(axis=1) == INT8_MAX).all()
    np.testing.assert_allclose((integers * scales[:, None]).T, found.weights, rtol=1e-6)


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param(Moments(np.ones((1, INPUTS)), np.zeros((1, INPUTS, INPUTS), dtype=np.float32)), id="constant"),
        pytest.param(
            Moments(np.ones((1, INPUTS)), (1 - 1.2 * np.eye(INPUTS, dtype=np.float32))[None] * np.float32(0.01)),
            id="not a covariance by rounding",
        ),
    ],
)
def test_any_moments_give_finite_weights(measured: Moments) -> None:
    w = weights()
    w[:, 3] = 0
    found = rounded(DENSE, w, measured)
    assert np.isfinite(found.weights).all()
    assert not found.weights[:, 3].any()
    assert np.abs(found.weights - w).max() < 0.2


def test_parts_that_stay_float_keep_weights_and_bias() -> None:
    model, node = layer(DENSE, weights())
    found = {"layer": round_weights(node, layer_scales(node, np.asarray), moments(rows(correlated=True)))}
    replace_weights(model, found, kept=["layer"])
    np.testing.assert_array_equal(constants(model)["w"], weights())
    assert not constants(model)["b"].any()
    replace_weights(model, found, kept=[])
    np.testing.assert_array_equal(constants(model)["w"], found["layer"].weights)
    np.testing.assert_array_equal(constants(model)["b"], found["layer"].bias)


def test_a_depthwise_convolution_is_rounded_channel_by_channel() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 2, 5, 5] x) => (float[1, 2, a, b] y)
    <float[2, 1, 2, 2] w = {0.9, -0.4, 0.31, 0.2, 5, 1.03, 2.2, -3.7}>
    { [layer] y = Conv <group = 2> (x, w) }
    """
    model = typed(text)
    (node,) = model.graph
    x = np.random.default_rng(0).normal(size=(2, 500, 1)) + 0.05 * np.random.default_rng(1).normal(size=(2, 500, 4))
    measured = Moments(x.mean(axis=1), np.stack([np.cov(part.T) for part in x]).astype(np.float32))
    found = round_weights(node, layer_scales(node, np.asarray), measured)
    exact = constants(model)["w"].reshape(2, 4)
    errors = np.einsum("gpi,gi->gp", x, found.weights.reshape(2, 4) - exact)
    integers, scales = quantize_weights(exact)
    to_nearest = np.einsum("gpi,gi->gp", x, integers * scales[:, None] - exact)
    assert (errors.var(axis=1) <= to_nearest.var(axis=1)).all()
    assert found.bias is not None
    np.testing.assert_allclose(errors.mean(axis=1) + found.bias, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        pytest.param("[sum] y = Add (b, p)", ("sum", 0), id="either side"),
        pytest.param("[sum] y = Sum (p, b)", ("sum", 1), id="a sum that is not fused"),
        pytest.param("[sum] y = Add (p, x2)\n x2 = Identity (p)", None, id="not a constant"),
        pytest.param("q = Add (p, b)\n [sum] y = Add (p, q)", None, id="two readers"),
        pytest.param("[sum] y = Mul (p, b)", None, id="another operator"),
    ],
)
def test_the_bias_of_a_product_is_the_vector_added_to_it_alone(behind: str, expected: tuple[str, int] | None) -> None:
    if "x2" in behind:
        behind = "x2 = Identity (p)\n [sum] y = Add (p, x2)"
    found = bias_operand(typed(DENSE.replace("[sum] y = Add (p, b)", behind)).graph[0])
    assert (None if found is None else (found.node.name, found.position)) == expected


def test_without_a_covariance_weights_are_rounded_to_nearest_and_the_mean_is_corrected() -> None:
    values, of = weights(), rows(correlated=True)
    found = rounded(DENSE, values, replace(moments(of), covariance=None))
    np.testing.assert_allclose(found.weights, nearest(values), atol=1e-6)
    assert found.bias is not None
    np.testing.assert_allclose(found.bias, (values - found.weights).T.astype(np.float64) @ of.mean(axis=0), atol=1e-4)
    assert (rounded(DENSE, values, moments(of)).weights != found.weights).any()
