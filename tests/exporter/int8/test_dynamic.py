"""Dense layers whose activations are quantised as they come, against onnxruntime.quantization's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from align_exporter.int8.dynamic import dense_nodes, quantize_dynamically
from align_exporter.int8.fusion import kernels
from align_exporter.passes.unused import RemoveUnused
from align_runtime import golden
from align_runtime.bundle import Bundle
from support.graphs import typed

# Two layers on the same tensor, a projection with its weights transposed, and a product of two activations.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3] x) => (float[n, n] y, float[n, 2] z)
<float[3, 3] q = {1,2,3, -4,5,6, 7,8,-9}, float[3, 3] k = {0.1,0.2,0.3, 0,0,0, 0.7,-0.8,0.9},
 float[2, 3] p = {1,0,-1, 0.5,2,0}, float[2] b = {10,-10}, float[3, 3] t = {1,0,0, 0,1,0, 0,0,1}>
{
  h = Tanh (x)
  [query] a = MatMul (h, q)
  [key] c = MatMul (h, k)
  d = Transpose <perm = [1, 0]> (c)
  [scores] y = MatMul (a, d)
  [projection] z = Gemm <transB = 1> (h, p, b)
}
"""


def run(model: ir.Model, x: np.ndarray, folder: Path) -> list[np.ndarray]:
    file = folder / "graph.onnx"
    ir.save(model, file)
    onnx.checker.check_model(str(file), full_check=True)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})


def test_products_with_weights_are_quantised_and_those_of_activations_are_not(tmp_path: Path) -> None:
    model = typed(GRAPH)
    assert [node.name for node in dense_nodes(model.graph)] == ["query", "key", "projection"]
    assert quantize_dynamically(model) == 3
    operators = Counter(node.op_type for node in model.graph)
    assert operators["MatMulInteger"] == 3
    assert operators["DynamicQuantizeLinear"] == 1  # of the tensor that all three read
    assert operators["MatMul"] == 1
    assert operators["Gemm"] == 0
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    for exact, found in zip(run(typed(GRAPH), x, tmp_path), run(model, x, tmp_path), strict=True):
        assert 0 < np.abs(exact - found).max() < 0.02 * np.abs(exact).max()


def test_a_second_run_changes_nothing() -> None:
    model = typed(GRAPH)
    quantize_dynamically(model)
    before = ir.to_onnx_text(model)
    assert quantize_dynamically(model) == 0
    assert ir.to_onnx_text(model) == before


def test_it_is_what_onnxruntime_s_own_tool_writes(tiny_bundle: Path, tmp_path: Path) -> None:
    """The same kernels and the same embeddings, bit by bit."""
    answers = golden.read(Bundle.open(tiny_bundle))
    inputs = {"input_ids": answers.input_ids, "attention_mask": answers.attention_mask}
    model = ir.load(tiny_bundle / "onnx" / "text_model_cpu.onnx")
    ir.external_data.load_to_model(model)
    source, ours, theirs = (tmp_path / f"{name}.onnx" for name in ("source", "ours", "theirs"))
    ir.save(model, source)
    quantize_dynamically(model)
    RemoveUnused()(model)
    ir.save(model, ours)
    options = {"MatMulConstBOnly": True}
    layers = ["MatMul", "Gemm"]
    quantize_dynamic(source, theirs, layers, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
    found = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for file in (ours, theirs)
    ]
    np.testing.assert_array_equal(*found)
    for kernel in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLinear", "MatMul"):
        assert kernels(ours)[kernel] == kernels(theirs)[kernel] > 0
