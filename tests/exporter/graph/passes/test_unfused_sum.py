"""The pass UnfusedSum: match, refusal, numerics, what ONNX Runtime makes of it, second run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.command import main
from align_exporter.graph.passes.unfused_sum import UnfusedSum
from align_exporter.int8.speed import count_kernels
from support.graphs import run_graph

NORMALIZED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, 8] x, float[1, n, 8] r) => (float[1, n, 8] y)
<float[8] scale = {1, 2, 3, 4, 5, 6, 7, 8}, float[8] bias = {1, 1, 1, 1, 2, 2, 2, 2}>
{
  sum = Add(x, r)
  y = LayerNormalization <axis = -1> (sum, scale, bias)
}
"""
GELU = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, 8] x) => (float[1, n, 8] y)
<float[8] b = {1, 2, 3, 4, 5, 6, 7, 8}>
{
  sum = Add(x, b)
  y = Gelu(sum)
}
"""
ERF_GELU = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[1, n, 8] x) => (float[1, n, 8] y)
<float[8] b = {1, 2, 3, 4, 5, 6, 7, 8}, float root = {1.4142135}, float one = {1}, float half = {0.5}>
{
  sum = Add(x, b)
  divided = Div(sum, root)
  erf = Erf(divided)
  above = Add(erf, one)
  product = Mul(sum, above)
  y = Mul(product, half)
}
"""
FUSED = {"SkipLayerNormalization", "BiasGelu"}  # ONNX Runtime's kernels that take longer than their parts


def written(model: ir.Model, folder: Path) -> Path:
    ir.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


@pytest.mark.parametrize(
    ("text", "fused"),
    [(NORMALIZED, "SkipLayerNormalization"), (GELU, "BiasGelu"), (ERF_GELU, "BiasGelu")],
    ids=["normalized", "gelu", "erf"],
)
def test_what_was_fused_no_longer_is_and_computes_the_same(text: str, fused: str, tmp_path: Path) -> None:
    model, random = ir.from_onnx_text(text), np.random.default_rng(0)
    feed = {value.name or "": random.standard_normal((1, 5, 8), dtype=np.float32) for value in model.graph.inputs}
    before = run_graph(model, feed)[0]
    assert count_kernels(written(model, tmp_path))[fused] == 1
    assert UnfusedSum()(model) == 1
    assert FUSED.isdisjoint(count_kernels(written(model, tmp_path)))
    np.testing.assert_allclose(run_graph(model, feed)[0], before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", [NORMALIZED, GELU, ERF_GELU], ids=["normalized", "gelu", "erf"])
def test_second_run_changes_nothing(text: str) -> None:
    model = ir.from_onnx_text(text)
    UnfusedSum()(model)
    after = str(model)
    assert UnfusedSum()(model) == 0
    assert str(model) == after


@pytest.mark.parametrize("reader", ['Gelu <approximate = "tanh"> (sum)', "Relu(sum)", "Div(sum, b)"])
def test_other_readers_are_left_alone(reader: str) -> None:
    model = ir.from_onnx_text(GELU.replace("Gelu(sum)", reader))
    assert UnfusedSum()(model) == 0
    assert next(node.op_type for node in model.graph) == "Add"


@pytest.mark.parametrize("variant", ["", "_int8"])
def test_no_text_graph_for_cpus_has_fused_sums(tiny_int8_bundle: Path, variant: str) -> None:
    found = count_kernels(tiny_int8_bundle / "onnx" / f"text_model{variant}_cpu.onnx")
    assert FUSED.isdisjoint(found)
    assert found["LayerNormalization"] > 0
    assert found["Gelu"] > 0


def test_the_graph_for_all_devices_is_left_alone(tiny_int8_bundle: Path) -> None:
    found = count_kernels(tiny_int8_bundle / "onnx" / "text_model.onnx")
    assert set(found) >= FUSED


def test_below_opset_20_as_well(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), "--opset", "18"]) == 0
    assert "rewrites, expected" not in capsys.readouterr().err
    assert FUSED.isdisjoint(count_kernels(tmp_path / "bundle" / "onnx" / "text_model_cpu.onnx"))
