"""Explicit signed quantisation: which numbers, along which axes, in which types beside FP16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from align_calibration.quant_params import INT8, QuantParams
from align_exporter.fp16.convert import convert
from align_exporter.fp16.emulate import rounded
from align_exporter.int8.insert_qdq import half_steps, quantize_signed
from align_exporter.int8.qdq_placement import place
from support.graphs import typed

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
# A convolution that two read, one of them a mean over the image in FP32, and dense layers of three layouts.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 2, 4, 4] x) => (float[n, 2] y)
<float[3, 2, 1, 1] w = {1,-2, 3,4, 0,0}, float[3] b = {0.5,-1,2}, int64[2] flat = {-1, 3},
 float[3, 3] m = {1,2,3, -4,5,6, 7,8,-9}, float[2, 3] p = {1,0,-1, 0.5,2,0}, float[3, 3] q = {1,2,3, -4,5,6, 7,8,-9}>
{
  [tanh] t = Tanh (x)
  [conv] c = Conv (t, w, b)
  [pool] a = GlobalAveragePool (c)
  [rows] r = Reshape (a, flat)
  [dense] d = MatMul (r, m)
  [untransposed] e = Gemm (d, q)
  [transposed] y = Gemm <transB = 1> (e, p)
}
"""
SCALES = {"t": INT8.fit(-1, 1), "r": INT8.fit(-8, 8), "d": INT8.fit(-128, 128), "e": INT8.fit(-1000, 1000)}


def quantized(*float32: str, scales: dict[str, QuantParams] = SCALES) -> tuple[ir.Model, frozenset[ir.Node]]:
    model = typed(GRAPH)
    assert place(model.graph).tensors == list(SCALES)
    kept = {node for node in model.graph if node.name in float32}
    return model, kept | quantize_signed(model, scales, float32=kept)


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}


def run(model: ir.Model, x: np.ndarray, folder: Path) -> np.ndarray:
    file = folder / "graph.onnx"
    ir.save(model, file)
    onnx.checker.check_model(str(file), full_check=True)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("product", "axis", "largest"),
    [
        ("conv", 0, [2, 4, 0]),
        ("dense", 1, [7, 8, 9]),  # (k, n): the columns
        ("untransposed", 1, [7, 8, 9]),
        ("transposed", 0, [1, 2]),  # (n, k): the rows
    ],
)
def test_weights_have_a_step_for_each_output_channel(product: str, axis: int, largest: list[float]) -> None:
    model, _ = quantized()
    found = constants(model)
    numbers, steps = found[f"{product}/weight/quantized"], found[f"{product}/weight/scale"]
    node = next(node for node in model.graph if node.name == f"{product}/weight/dequantized")
    assert node.attributes.get_int("axis") == axis
    assert (numbers.dtype, steps.shape) == (np.int8, (len(largest),))
    wanted = np.maximum(np.array(largest) / 127, 2.0**-24)
    np.testing.assert_allclose(steps, wanted, rtol=2.0**-10)
    original = {"conv": "w", "dense": "m", "untransposed": "q", "transposed": "p"}[product]
    shape = [-1 if index == axis else 1 for index in range(numbers.ndim)]
    weights = constants(typed(GRAPH))[original]
    assert (np.abs(numbers * steps.reshape(shape) - weights) <= 0.5001 * steps.reshape(shape) + 2.0**-11 * 9).all()


def test_everything_is_signed_and_symmetric_and_biases_are_float() -> None:
    model, _ = quantized()
    points = {name: value for name, value in constants(model).items() if name.endswith("zero_point")}
    assert len(points) == 8
    assert all(value.dtype == np.int8 and not value.any() for value in points.values())
    conv = next(node for node in model.graph if node.name == "conv")
    assert conv.inputs[2] is not None
    assert conv.inputs[2].name == "b"


def test_it_computes_the_same_within_its_steps(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    exact, found = run(typed(GRAPH), x, tmp_path), run(quantized()[0], x, tmp_path)
    assert 1e-4 < np.abs(exact - found).max() < 0.05 * np.abs(exact).max()
    wrong = SCALES | {"r": QuantParams(SCALES["r"].scale / 8, 0, "int8")}
    assert np.abs(exact - run(quantized(scales=wrong)[0], x, tmp_path)).max() > 0.2 * np.abs(exact).max()


def test_in_fp16_scales_have_the_type_of_the_floats_beside_them(tmp_path: Path) -> None:
    """What stays FP32 writes and reads its tensors in FP32, and no cast comes between them and their numbers."""
    model, float32 = quantized("tanh", "transposed")
    convert(model, float32)
    types = {node.name: node.outputs[0].dtype for node in model.graph}
    assert types["conv"] == HALF
    assert types["t/dequantized"] == types["conv/weight/dequantized"] == HALF
    assert types["e/dequantized/float32"] == types["transposed/weight/dequantized"] == SINGLE
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            floats = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
            assert floats is not None
            assert node.inputs[1] is not None
            assert node.inputs[1].dtype == floats.dtype
        if node.op_type == "Cast":
            assert not any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    exact = run(quantized()[0], x, tmp_path)
    assert 0 < np.abs(run(rounded(model), x, tmp_path) - exact).max() < 0.02 * np.abs(exact).max()


def test_readers_in_both_types_have_a_dequantizer_each() -> None:
    text = GRAPH.replace(
        "[pool] a = GlobalAveragePool (c)", "[pool] a = GlobalAveragePool (c)\n  [other] o = Conv (t, w)"
    )
    model = typed(text)
    (other,) = [node for node in model.graph if node.name == "other"]
    added = quantize_signed(model, SCALES, float32={other})
    names = {node.name: node for node in model.graph}
    assert [use.node.name for use in names["t/dequantized"].outputs[0].uses()] == ["conv"]
    assert [use.node.name for use in names["t/dequantized/float32"].outputs[0].uses()] == ["other"]
    assert {node.name for node in added} == {"t/dequantized/float32", "other/weight/dequantized"}


def test_an_input_of_the_graph_is_quantised_in_its_own_type(tmp_path: Path) -> None:
    """Images that the caller normalised: float32 in, and the first convolution in FP16."""
    text = GRAPH.replace("[tanh] t = Tanh (x)\n", "").replace("Conv (t,", "Conv (x,")
    scales = {"x" if name == "t" else name: scale for name, scale in SCALES.items()}
    model = typed(text)
    assert place(model.graph).tensors == list(scales)
    kept = {node for node in model.graph if node.name == "transposed"}
    convert(model, kept | quantize_signed(model, scales, float32=kept))
    types = {node.name: node.inputs[1].dtype for node in model.graph if node.inputs[1:] and node.inputs[1]}
    assert (types["x/quantized"], types["x/dequantized"], types["conv"]) == (SINGLE, HALF, HALF)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 4, 4)).astype(np.float32)
    exact = run(typed(text), x, tmp_path)
    assert 0 < np.abs(run(rounded(model), x, tmp_path) - exact).max() < 0.05 * np.abs(exact).max()


def test_steps_are_numbers_of_fp16_where_it_has_one() -> None:
    steps = np.array([0.1, 1 / 3, 2.0**-24, 1e-9, 1e6], dtype=np.float32)
    found = half_steps(steps)
    np.testing.assert_array_equal(found[:3], steps[:3].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found[3:], steps[3:])
    assert found[0] != steps[0]


def test_a_tensor_without_a_scale_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError, match="'d'"):
        quantize_signed(typed(GRAPH), {name: scale for name, scale in SCALES.items() if name != "d"})
