"""Folding of the normalization of uint8 pixels: the same function, or an unchanged graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import UINT8
from align_exporter.graph.ir_helpers import operand, own_constant, set_constant
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_tensors
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.speed import count_kernels
from support.graphs import run_graph, typed

STEP = "0.0078431372549"  # 1 / 127.5
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (uint8[n, 8, 8, 3] pixels) => (float[n, 4, 4, 4] y)
<float[1, 3, 1, 1] scale = {SCALE}, float[1, 3, 1, 1] offset = {OFFSET}, float[4, 3, 3, 3] w = {WEIGHT},
 float[4] b = {0.5, -1, 2, 0}, float[4, 4, 1, 1] v = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
{
  [cast] f = Cast <to = 1> (pixels)
  [transposition] t = Transpose <perm = [0, 3, 1, 2]> (f)
  [product] m = Mul (t, scale)
  [sum] a = Add (m, offset)
  [stem] c = Conv <strides = [2, 2], pads = [0, 0, 1, 1], kernel_shape = [3, 3]> (a, w, b)
  [last] d = Conv (c, v)
  [end] y = Relu (d)
}
"""
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3, 3))


def graph(scale: str = ",".join([STEP] * 3), offset: str = "-1,-1,-1") -> ir.Model:
    weights = ",".join(f"{weight:.6f}" for weight in WEIGHTS.ravel())
    text = GRAPH.replace("{SCALE}", f"{{{scale}}}").replace("{OFFSET}", f"{{{offset}}}")
    return typed(text.replace("{WEIGHT}", f"{{{weights}}}"))


def run(model: ir.Model) -> np.ndarray:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    return run_graph(model, {"pixels": pixels})[0]


def test_pixels_are_dequantized_instead_of_normalized() -> None:
    model = graph()
    exact = run(model)
    assert fold_normalization(model)
    assert [node.op_type for node in model.graph] == ["Transpose", "DequantizeLinear", "Conv", "Conv", "Relu"]
    actual = run(model)
    np.testing.assert_allclose(actual[:, :, :3, :3], exact[:, :, :3, :3], rtol=0, atol=2e-6)
    # Padding of the last row and column is off by half a scale instead of 0.
    most = 0.5 / 127.5 * np.abs(WEIGHTS).sum(axis=(1, 2, 3)).max()
    assert 1e-4 < np.abs(actual - exact).max() <= most


def test_an_integer_zero_point_is_exact() -> None:
    model = graph(offset=",".join([str(-128 * float(STEP))] * 3))
    exact = run(model)
    assert fold_normalization(model)
    np.testing.assert_allclose(run(model), exact, rtol=0, atol=2e-6)


def test_the_first_convolution_reads_the_pixels(tmp_path: Path) -> None:
    model = graph()
    exact = run(model)
    assert fold_normalization(model)
    assert quantized_tensors(model.graph) == ["c", "d"]
    quantize_vision_for_cpu(model, {name: UINT8.fit(-16, 16) for name in ("c", "d")})
    assert np.abs(run(model) - exact).max() < 32 / 255 * 1.5
    ir.save(model, tmp_path / "graph.onnx")
    found = count_kernels(tmp_path / "graph.onnx")
    assert found["QLinearConv"] == 2
    assert found["QuantizeLinear"] == found["Cast"] == found["Mul"] == 0


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        (f"{STEP},{STEP},0.0079", "-1,-1,-1"),  # another factor for one channel
        (",".join([STEP] * 3), "1,1,1"),  # a zero point below 0
        (",".join([f"-{STEP}"] * 3), "1,1,1"),  # a negative scale
        (",".join([STEP] * 3), "-1,-1,-0.9"),  # different zero points
    ],
)
def test_other_normalizations_are_not_folded(scale: str, offset: str) -> None:
    model = graph(scale, offset)
    before = [node.op_type for node in model.graph]
    assert not fold_normalization(model)
    assert [node.op_type for node in model.graph] == before


def test_a_convolution_without_bias_gets_one() -> None:
    """Exporters drop a bias of zeros."""
    model, zero = graph(), graph()
    (stem,) = [node for node in model.graph if node.name == "stem"]
    stem.resize_inputs(2)
    set_constant(next(node for node in zero.graph if node.name == "stem"), 2, np.zeros(4, np.float32))
    assert fold_normalization(model)
    assert fold_normalization(zero)
    np.testing.assert_array_equal(run(model), run(zero))


def test_a_bias_that_another_convolution_shares_is_kept_for_that_one() -> None:
    model, shared = graph(), graph()
    for each in (model, shared):
        stem, last = (node for node in each.graph if node.op_type == "Conv")
        last.resize_inputs(3)
        last.replace_input_with(2, operand(stem, 2))
    own_constant(next(node for node in model.graph if node.name == "last"), 2)
    assert fold_normalization(model)
    assert fold_normalization(shared)
    np.testing.assert_array_equal(run(shared), run(model))


@pytest.mark.parametrize(("dropped", "neutral"), [("product", "1,1,1"), ("sum", "0,0,0")])
def test_a_neutral_factor_or_offset_need_not_be_there(dropped: str, neutral: str) -> None:
    scale, offset = ("1,1,1", "-128,-128,-128") if dropped == "product" else (",".join([STEP] * 3), neutral)
    model = graph(scale, offset)
    exact = run(model)
    (node,) = [node for node in model.graph if node.name == dropped]
    ir.convenience.replace_all_uses_with(node.outputs[0], operand(node, 0))
    model.graph.remove(node, safe=True)
    assert fold_normalization(model)
    np.testing.assert_allclose(run(model), exact, rtol=1e-5, atol=2e-4)


def test_normalized_values_that_are_also_an_output_are_kept() -> None:
    model = graph()
    (addition,) = [node for node in model.graph if node.name == "sum"]
    model.graph.outputs.append(addition.outputs[0])
    before = run(model)
    assert not fold_normalization(model)
    np.testing.assert_array_equal(run(model), before)
