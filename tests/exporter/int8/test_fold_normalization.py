"""Pixels that are read as numbers of 8 bits: the same function without normalisation, or nothing done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from align_calibration.quant_params import UINT8
from align_exporter.int8.cpu_vision import quantize_statically, quantized_tensors
from align_exporter.int8.fold_normalization import read_bytes
from align_exporter.int8.fusion import kernels
from support.graphs import typed

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


def run(model: ir.Model, folder: Path) -> np.ndarray:
    file = folder / "graph.onnx"
    ir.save(model, file)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]


def test_bytes_are_read_as_numbers(tmp_path: Path) -> None:
    model = graph()
    exact = run(model, tmp_path)
    assert read_bytes(model)
    assert [node.op_type for node in model.graph] == ["Transpose", "DequantizeLinear", "Conv", "Conv", "Relu"]
    actual = run(model, tmp_path)
    np.testing.assert_allclose(actual[:, :, :3, :3], exact[:, :, :3, :3], rtol=0, atol=2e-6)
    # Where the last row and column are padding, it counts as half a step instead of 0.
    most = 0.5 / 127.5 * np.abs(WEIGHTS).sum(axis=(1, 2, 3)).max()
    assert 1e-4 < np.abs(actual - exact).max() <= most


def test_with_a_byte_for_zero_nothing_differs(tmp_path: Path) -> None:
    model = graph(offset=",".join([str(-128 * float(STEP))] * 3))
    exact = run(model, tmp_path)
    assert read_bytes(model)
    np.testing.assert_allclose(run(model, tmp_path), exact, rtol=0, atol=2e-6)


def test_the_stem_computes_on_the_pixels_themselves(tmp_path: Path) -> None:
    model = graph()
    exact = run(model, tmp_path)
    assert read_bytes(model)
    assert quantized_tensors(model.graph) == ["c", "d"]
    quantize_statically(model, {name: UINT8.fit(-16, 16) for name in ("c", "d")})
    assert np.abs(run(model, tmp_path) - exact).max() < 32 / 255 * 1.5
    found = kernels(tmp_path / "graph.onnx")
    assert found["QLinearConv"] == 2
    assert found["QuantizeLinear"] == found["Cast"] == found["Mul"] == 0


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        (f"{STEP},{STEP},0.0079", "-1,-1,-1"),  # a factor of its own for one channel
        (",".join([STEP] * 3), "1,1,1"),  # 0 below every byte
        (",".join([f"-{STEP}"] * 3), "1,1,1"),  # no step is negative
        (",".join([STEP] * 3), "-1,-1,-0.9"),  # no byte is near to 0 in all channels
    ],
)
def test_what_bytes_cannot_stand_for_is_left_alone(scale: str, offset: str) -> None:
    model = graph(scale, offset)
    before = [node.op_type for node in model.graph]
    assert not read_bytes(model)
    assert [node.op_type for node in model.graph] == before


def test_a_convolution_without_bias_is_left_alone() -> None:
    model = graph()
    (stem,) = [node for node in model.graph if node.name == "stem"]
    stem.resize_inputs(2)
    assert not read_bytes(model)


def test_normalised_values_that_something_else_reads_stay(tmp_path: Path) -> None:
    model = graph()
    (addition,) = [node for node in model.graph if node.name == "sum"]
    model.graph.outputs.append(addition.outputs[0])
    before = run(model, tmp_path)
    assert not read_bytes(model)
    np.testing.assert_array_equal(run(model, tmp_path), before)
