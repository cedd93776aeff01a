"""Q/DQ for TensorRT: scales and axes of weights, symmetry, types beside FP16, and the results."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import INT8, QuantParams
from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from align_exporter.graph.ir_helpers import operand
from align_exporter.int8.insert_qdq import insert_qdq, round_scales_to_fp16
from align_exporter.int8.qdq_placement import place_qdq
from support.graphs import constants, run_graph, typed

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
# A convolution with a global mean behind it, and dense layers of three layouts.
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
    assert place_qdq(model.graph).tensors == list(SCALES)
    kept = {node for node in model.graph if node.name in float32}
    return model, kept | insert_qdq(model, scales, float32=kept)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return run_graph(model, {"x": x})[0]


@pytest.mark.parametrize(
    ("product", "axis", "largest"),
    [
        ("conv", 0, [2, 4, 0]),
        ("dense", 1, [7, 8, 9]),  # (k, n): the columns
        ("untransposed", 1, [7, 8, 9]),
        ("transposed", 0, [1, 2]),  # (n, k): the rows
    ],
)
def test_weights_have_a_scale_per_output_channel(product: str, axis: int, largest: list[float]) -> None:
    model, _ = quantized()
    found = constants(model)
    integers, scales = found[f"{product}/weight/quantized"], found[f"{product}/weight/scale"]
    node = next(node for node in model.graph if node.name == f"{product}/weight/dequantized")
    assert node.attributes.get_int("axis") == axis
    assert (integers.dtype, scales.shape) == (np.int8, (len(largest),))
    wanted = np.maximum(np.array(largest) / 127, 2.0**-24)
    np.testing.assert_allclose(scales, wanted, rtol=2.0**-10)
    original = {"conv": "w", "dense": "m", "untransposed": "q", "transposed": "p"}[product]
    shape = [-1 if index == axis else 1 for index in range(integers.ndim)]
    weights = constants(typed(GRAPH))[original]
    scales = scales.reshape(shape)
    assert (np.abs(integers * scales - weights) <= 0.5001 * scales + 2.0**-11 * 9).all()


def test_everything_is_signed_and_symmetric_and_biases_are_float() -> None:
    model, _ = quantized()
    points = {name: value for name, value in constants(model).items() if name.endswith("zero_point")}
    assert len(points) == 8
    assert all(value.dtype == np.int8 and not value.any() for value in points.values())
    conv = next(node for node in model.graph if node.name == "conv")
    assert operand(conv, 2).name == "b"


def test_results_differ_by_a_few_scales_and_more_with_a_wrong_one() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    exact, found = run(typed(GRAPH), x), run(quantized()[0], x)
    assert 1e-4 < np.abs(exact - found).max() < 0.05 * np.abs(exact).max()
    wrong = SCALES | {"r": QuantParams(SCALES["r"].scale / 8, 0, "int8")}
    assert np.abs(exact - run(quantized(scales=wrong)[0], x)).max() > 0.2 * np.abs(exact).max()


def test_in_fp16_scales_have_the_type_of_the_floats_beside_them() -> None:
    """Operators that stay FP32 write and read quantized tensors in FP32, without a Cast between them and Q/DQ."""
    model, float32 = quantized("tanh", "transposed")
    convert_to_fp16(model, float32)
    types = {node.name: node.outputs[0].dtype for node in model.graph}
    assert types["conv"] == FLOAT16
    assert types["t/dequantized"] == types["conv/weight/dequantized"] == FLOAT16
    assert types["e/dequantized/float32"] == types["transposed/weight/dequantized"] == FLOAT32
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            floats = operand(node, 0) if node.op_type == "QuantizeLinear" else node.outputs[0]
            assert operand(node, 1).dtype == floats.dtype
        if node.op_type == "Cast":
            assert not any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    exact = run(quantized()[0], x)
    assert 0 < np.abs(run(emulate_fp16(model), x) - exact).max() < 0.02 * np.abs(exact).max()


def test_readers_in_both_types_get_a_dequantizer_each() -> None:
    text = GRAPH.replace(
        "[pool] a = GlobalAveragePool (c)", "[pool] a = GlobalAveragePool (c)\n  [other] o = Conv (t, w)"
    )
    model = typed(text)
    (other,) = [node for node in model.graph if node.name == "other"]
    added = insert_qdq(model, SCALES, float32={other})
    names = {node.name: node for node in model.graph}
    assert [use.node.name for use in names["t/dequantized"].outputs[0].uses()] == ["conv"]
    assert [use.node.name for use in names["t/dequantized/float32"].outputs[0].uses()] == ["other"]
    assert {node.name for node in added} == {"t/dequantized/float32", "other/weight/dequantized"}


def test_an_input_of_the_graph_is_quantized_in_its_own_type() -> None:
    """Images normalized by the caller: the input is float32 and the first convolution FP16."""
    text = GRAPH.replace("[tanh] t = Tanh (x)\n", "").replace("Conv (t,", "Conv (x,")
    scales = {"x" if name == "t" else name: scale for name, scale in SCALES.items()}
    model = typed(text)
    assert place_qdq(model.graph).tensors == list(scales)
    kept = {node for node in model.graph if node.name == "transposed"}
    convert_to_fp16(model, kept | insert_qdq(model, scales, float32=kept))
    types = {node.name: node.inputs[1].dtype for node in model.graph if node.inputs[1:] and node.inputs[1]}
    assert (types["x/quantized"], types["x/dequantized"], types["conv"]) == (FLOAT32, FLOAT16, FLOAT16)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 4, 4)).astype(np.float32)
    exact = run(typed(text), x)
    assert 0 < np.abs(run(emulate_fp16(model), x) - exact).max() < 0.05 * np.abs(exact).max()


def test_scales_are_rounded_to_fp16_where_it_can_represent_them() -> None:
    scales = np.array([0.1, 1 / 3, 2.0**-24, 1e-9, 1e6], dtype=np.float32)
    found = round_scales_to_fp16(scales)
    np.testing.assert_array_equal(found[:3], scales[:3].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found[3:], scales[3:])
    assert found[0] != scales[0]


def test_a_missing_scale_raises_a_key_error() -> None:
    with pytest.raises(KeyError, match="'d'"):
        insert_qdq(typed(GRAPH), {name: scale for name, scale in SCALES.items() if name != "d"})


def test_a_scale_that_fp16_rounds_to_0_is_the_smallest_beside_fp16_and_exact_beside_fp32() -> None:
    """A tensor that is almost 0 on the calibration samples; 0 would divide by 0."""
    tiny = SCALES | {"t": QuantParams(1e-9, 0, "int8")}
    model, float32 = quantized("transposed", scales=tiny)
    convert_to_fp16(model, float32)
    assert constants(model)["t/scale"] == np.float16(2.0**-24)
    assert np.isfinite(run(emulate_fp16(model), np.ones((2, 2, 4, 4), np.float32))).all()
    model, float32 = quantized("tanh", "conv", "transposed", scales=tiny)
    convert_to_fp16(model, float32)
    assert constants(model)["t/scale"] == np.float32(1e-9)
