"""Convolutions with explicit quantisation: which tensors, which numbers, and what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from align_calibration.quant_params import UINT8, QuantParams
from align_exporter.int8.cpu_vision import quantize_statically, quantized_nodes, quantized_tensors
from align_exporter.int8.weights import LARGEST, quantized_weights
from support.graphs import typed

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
    quantize_statically(model, SCALES)
    return model


def run(model: ir.Model, x: np.ndarray, folder: Path) -> np.ndarray:
    file = folder / "graph.onnx"
    ir.save(model, file)
    onnx.checker.check_model(str(file), full_check=True)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_quantised_is_what_lies_between_the_first_and_the_last_convolution() -> None:
    graph = typed(GRAPH).graph
    assert [node.name for node in quantized_nodes(graph)] == ["first", "sigmoid", "swish", "second"]
    assert quantized_tensors(graph) == TENSORS


def test_a_product_with_a_constant_stays_float() -> None:
    graph = typed(GRAPH.replace("[swish] m = Mul (a, s)", "[swish] m = Mul (a, half)")).graph
    assert [node.name for node in quantized_nodes(graph)] == ["first", "second"]


def test_every_such_tensor_is_quantised_and_every_reader_reads_it_so() -> None:
    model = quantized()
    graph = {node.name: node for node in model.graph}
    for name in TENSORS:
        (quantizer,) = [use.node for value in producers(model, name) for use in value.uses()]
        assert quantizer.op_type == "QuantizeLinear"
    for name in ("first", "sigmoid", "swish", "second", "residual"):
        for value in graph[name].inputs:
            assert value is not None
            producer = value.producer()
            assert producer is not None
            assert producer.op_type == "DequantizeLinear"


def producers(model: ir.Model, name: str) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.name == name]


def test_weights_and_biases_are_whole_numbers_of_their_steps() -> None:
    constants = {name: value.const_value.numpy() for name, value in quantized().graph.initializers.items()}
    numbers, steps = constants["w/quantized"], constants["w/scale"]
    assert numbers.dtype == np.int8
    np.testing.assert_array_equal(numbers.reshape(3, 2), [[64, -127], [95, 127], [0, 0]])
    np.testing.assert_allclose(steps[:2], [2 / 127, 4 / 127], rtol=1e-6)
    biases = constants["b/quantized"]
    assert biases.dtype == np.int32
    np.testing.assert_array_equal(
        constants["b/scale"], (steps.astype(np.float64) * SCALES["scaled"].scale).astype("f4")
    )
    # The third channel has no weights: its bias is there all the same.
    np.testing.assert_allclose(biases * constants["b/scale"], [0.5, -1, 2], atol=constants["b/scale"].max())


def test_it_computes_the_same_within_its_steps(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (5, 2, 4, 4)).astype(np.float32)
    exact, found = run(typed(GRAPH), x, tmp_path), run(quantized(), x, tmp_path)
    difference = np.abs(exact - found).max()
    assert 1e-4 < difference < 4 * SCALES["a"].scale


def test_a_wrong_scale_shows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (5, 2, 4, 4)).astype(np.float32)
    wrong = typed(GRAPH)
    scale = SCALES["m"]
    quantize_statically(wrong, SCALES | {"m": QuantParams(scale.scale / 4, scale.zero_point, scale.dtype)})
    assert np.abs(run(typed(GRAPH), x, tmp_path) - run(wrong, x, tmp_path)).max() > 1


def test_a_tensor_without_a_scale_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError, match="scaled"):
        quantize_statically(typed(GRAPH), {name: scale for name, scale in SCALES.items() if name != "scaled"})


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42, 1e30])
def test_weights_of_any_size_come_back_within_half_a_step(scale: float) -> None:
    weights = (np.random.default_rng(1).standard_normal((4, 3, 5, 5)) * scale).astype(np.float32)
    weights[2] = 0
    numbers, steps = quantized_weights(weights)
    assert np.abs(numbers.astype(int)).max() <= LARGEST
    assert (steps > 0).all()
    error = np.abs(numbers * steps.astype(np.float64).reshape(-1, 1, 1, 1) - weights)
    assert (error <= 0.5001 * steps.reshape(-1, 1, 1, 1)).all()
