"""Convolutions with Q/DQ for ONNX Runtime's CPU kernels: quantized tensors, weights and biases, and the results."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import UINT8, QuantParams
from align_exporter.graph.ir_helpers import producer_of
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_nodes, quantized_tensors
from align_exporter.int8.quantize_weights import INT8_MAX, quantize_weights
from support.graphs import constants, run_graph, typed, unshared

# Normalisation, a convolution, a gate, a second convolution, and what follows it.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 2, 4, 4] x) => (float[n, 3, 1, 1] y)
<float[1] half = {0.5}, float[3, 2, 1, 1] w = {1,-2, 3,4, 0,0}, float[3] b = {0.5,-1,2},
 float[3, 3, 1, 1] v = {1,0,0, 0,1,0, 0,0,1}>
{
  scaled = Mul (x, half)
  [first] a = Conv (scaled, w, b)
  [sigmoid] s = Sigmoid (a)
  [swish] m = Mul (a, s)
  [second] c = Conv (m, v)
  [residual] r = Add (c, a)
  [pool] y = GlobalAveragePool (r)
}
"""
TENSORS = ["scaled", "a", "s", "m", "c"]
SCALES = {"scaled": UINT8.fit(-2, 2), "a": UINT8.fit(-16, 16), "s": UINT8.fit(0, 1), "m": UINT8.fit(-1, 16)}
SCALES["c"] = UINT8.fit(-1, 16)


def quantized() -> ir.Model:
    model = typed(GRAPH)
    quantize_vision_for_cpu(model, SCALES)
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return run_graph(model, {"x": x})[0]


def test_operators_between_the_first_and_the_last_convolution_are_quantized() -> None:
    graph = typed(GRAPH).graph
    assert [node.name for node in quantized_nodes(graph)] == ["first", "sigmoid", "swish", "second"]
    assert quantized_tensors(graph) == TENSORS


def test_a_product_with_a_constant_stays_float() -> None:
    graph = typed(GRAPH.replace("[swish] m = Mul (a, s)", "[swish] m = Mul (a, half)")).graph
    assert [node.name for node in quantized_nodes(graph)] == ["first", "second"]


def test_every_reader_of_these_tensors_reads_them_quantized() -> None:
    model = quantized()
    graph = {node.name: node for node in model.graph}
    for name in TENSORS:
        (quantizer,) = [use.node for value in values_named(model, name) for use in value.uses()]
        assert quantizer.op_type == "QuantizeLinear"
    for name in ("first", "sigmoid", "swish", "second", "residual"):
        for value in graph[name].inputs:
            assert value is not None
            assert producer_of(value).op_type == "DequantizeLinear"


def values_named(model: ir.Model, name: str) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.name == name]


def test_weights_and_biases_are_integers_times_their_scales() -> None:
    found = constants(quantized())
    integers, scales = found["w/quantized"], found["w/scale"]
    assert integers.dtype == np.int8
    np.testing.assert_array_equal(integers.reshape(3, 2), [[64, -127], [95, 127], [0, 0]])
    np.testing.assert_allclose(scales[:2], [2 / 127, 4 / 127], rtol=1e-6)
    biases = found["b/quantized"]
    assert biases.dtype == np.int32
    np.testing.assert_array_equal(found["b/scale"], (scales.astype(np.float64) * SCALES["scaled"].scale).astype("f4"))
    # The weights of the third channel are 0; its bias is kept.
    np.testing.assert_allclose(biases * found["b/scale"], [0.5, -1, 2], atol=found["b/scale"].max())


def test_results_differ_by_a_few_scales() -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (5, 2, 4, 4)).astype(np.float32)
    exact, found = run(typed(GRAPH), x), run(quantized(), x)
    difference = np.abs(exact - found).max()
    assert 1e-4 < difference < 4 * SCALES["a"].scale


def test_a_wrong_scale_changes_the_results() -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (5, 2, 4, 4)).astype(np.float32)
    wrong = typed(GRAPH)
    scale = SCALES["m"]
    quantize_vision_for_cpu(wrong, SCALES | {"m": QuantParams(scale.scale / 4, scale.zero_point, scale.dtype)})
    assert np.abs(run(typed(GRAPH), x) - run(wrong, x)).max() > 1


def test_a_missing_scale_raises_a_key_error() -> None:
    with pytest.raises(KeyError, match="scaled"):
        quantize_vision_for_cpu(typed(GRAPH), {name: scale for name, scale in SCALES.items() if name != "scaled"})


def test_two_convolutions_may_share_weights_and_biases() -> None:
    """Each has its own integers: the scale of a bias is that of the convolution's input."""
    text = GRAPH.replace("float[3, 2, 1, 1] w = {1,-2, 3,4, 0,0}", "float[3, 3, 1, 1] w = {1,-2,1, 3,4,1, 0,0,1}")
    text = text.replace("float[n, 2, 4, 4] x", "float[n, 3, 4, 4] x").replace("Conv (m, v)", "Conv (m, w, b)")
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3, 4, 4)).astype(np.float32)
    shared, several = typed(text), unshared(typed(text))
    for model in (shared, several):
        quantize_vision_for_cpu(model, SCALES | {"c": UINT8.fit(-64, 64)})
    np.testing.assert_array_equal(run(shared, x), run(several, x))
    assert np.abs(run(shared, x) - run(typed(text), x)).max() < 2


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-30])
def test_zero_weights_with_a_zero_bias_behind_tiny_activations_give_zeros(scale: float) -> None:
    """The scale of the bias would be 0, and 0 / 0 no integer."""
    text = GRAPH.replace("{1,-2, 3,4, 0,0}", "{0,0, 0,0, 0,0}").replace("{0.5,-1,2}", "{0,0,0}")
    model = typed(text)
    quantize_vision_for_cpu(model, SCALES | {"scaled": QuantParams(scale, 0, "uint8")})
    assert not constants(model)["b/quantized"].any()
    assert (constants(model)["b/scale"] >= np.finfo(np.float32).tiny).all()
    assert not run(model, np.ones((1, 2, 4, 4), np.float32)).any()


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42, 1e30])
def test_weights_of_any_magnitude_are_quantized_within_half_a_scale(scale: float) -> None:
    weights = (np.random.default_rng(1).standard_normal((4, 3, 5, 5)) * scale).astype(np.float32)
    weights[2] = 0
    integers, scales = quantize_weights(weights)
    assert np.abs(integers.astype(int)).max() <= INT8_MAX
    assert (scales > 0).all()
    error = np.abs(integers * scales.astype(np.float64).reshape(-1, 1, 1, 1) - weights)
    assert (error <= 0.5001 * scales.reshape(-1, 1, 1, 1)).all()
