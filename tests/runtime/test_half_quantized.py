"""Quantized FP16 convolutions on ONNX Runtime, which loses their biases unless a rewrite is disabled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from align_runtime.backends import open_runner

SCALE = 2.0**-10  # scale of inputs and of weights
BIAS = 0.5  # 2¹⁹ times the scale of their products, more than the FP16 maximum
OUTPUT_SCALE = 2.0**-6


def quantized_convolution(file: Path) -> Path:
    """y = DQ(Q(Conv(DQ(Q(x)), DQ(w), 0.5))) in FP16, with w = 64 quantized; x is float32 (n, 1, 1, 1)."""
    half = TensorProto.FLOAT16
    constants = {
        "scale": np.float16(SCALE),
        "zero": np.int8(0),
        "w": np.full((1, 1, 1, 1), 64, dtype=np.int8),
        "scales": np.full(1, SCALE, dtype=np.float16),
        "zeros": np.zeros(1, dtype=np.int8),
        "output_scale": np.float16(OUTPUT_SCALE),
        "b": np.full(1, BIAS, dtype=np.float16),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=half),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["dw"], axis=0),
        helper.make_node("Conv", ["d", "dw", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "output_scale", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "output_scale", "zero"], ["cd"]),
        helper.make_node("Cast", ["cd"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 1, 1]) for name in "xy"]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


def test_the_bias_is_applied(tmp_path: Path) -> None:
    runner = open_runner(quantized_convolution(tmp_path / "graph.onnx"), "cpu", None)
    x = np.array([0.0, 0.125], dtype=np.float32).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(runner.run({"x": x}).ravel(), [BIAS, BIAS + 0.125 * 64 * SCALE], atol=OUTPUT_SCALE)
