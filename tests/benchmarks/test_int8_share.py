"""The share of MACs in INT8 on graphs whose share is known: ours, and the forms that other tools write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from openvino import opset13 as ov

from align_runtime.bundle import Bundle
from benchmarks.int8_share import int8_share

FEATURES = {"x": np.ones((1, 4), dtype=np.float32)}
QUANTIZED = [
    make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
]
WEIGHTS = [make_node("DequantizeLinear", ["w8", "s"], ["w"])]
FLOAT = make_node("MatMul", ["first", "f"], ["y"])  # 6 × 2 MACs after 4 × 6 others


def write(folder: Path, nodes: list[onnx.NodeProto], **constants: Any) -> Path:
    """A graph of `nodes` on `x` (1, 4) with the weights ``w8`` int8 (4, 6) and ``f`` float32 (6, 2)."""
    values = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w8": np.ones((4, 6), dtype=np.int8),
        "f": np.ones((6, 2), dtype=np.float32),
        **constants,
    }
    ends = [make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 4), ("y", 2))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    opsets = [make_opsetid("", 21), make_opsetid("com.microsoft", 1)]
    model = make_model(make_graph(nodes, "test", ends[:1], ends[1:], weights), opset_imports=opsets, ir_version=10)
    file = folder / "graph.onnx"
    onnx.save(model, file)
    return file


PRODUCT = make_node("MatMul", ["d", "w"], ["first"])
DYNAMIC = [
    make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
    make_node("MatMulInteger", ["q", "w8", "qz"], ["sum"]),
    make_node("Cast", ["sum"], ["first"], to=TensorProto.FLOAT),
]
OPERATOR = [
    make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    make_node("QLinearMatMul", ["q", "s", "z", "w8", "s", "z", "s", "z"], ["sum"]),
    make_node("DequantizeLinear", ["sum", "s", "z"], ["first"]),
]
QGEMM = [
    make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    make_node("Transpose", ["w8"], ["t"], perm=[1, 0]),
    make_node("QGemm", ["q", "s", "z", "t", "s", "z", "", "s", "z"], ["sum"], domain="com.microsoft", transB=1),
    make_node("DequantizeLinear", ["sum", "s", "z"], ["first"]),
]
GEMM = make_node("Gemm", ["d", "t"], ["first"], transB=1)
TRANSPOSED = make_node("Transpose", ["w"], ["t"], perm=[1, 0])
FAKED = [make_node("QuantizeLinear", ["w32", "s", "z"], ["wq"]), make_node("DequantizeLinear", ["wq", "s", "z"], ["w"])]
LARGE = {"w32": np.ones((4, 6), dtype=np.float32)}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([*QUANTIZED, *WEIGHTS, PRODUCT], {}),
        ([*QUANTIZED, *FAKED, PRODUCT], LARGE),
        ([*QUANTIZED, *WEIGHTS, TRANSPOSED, GEMM], {}),
        (DYNAMIC, {}),
        (OPERATOR, {}),
        (QGEMM, {}),
    ],
    ids=["Q/DQ", "weights quantized in the graph", "Gemm after a transposition", "dynamic", "QOperator", "QGemm"],
)
def test_forms_that_are_int8(nodes: list[onnx.NodeProto], constants: dict[str, Any], tmp_path: Path) -> None:
    assert int8_share(write(tmp_path, [*nodes, FLOAT], **constants), FEATURES) == 24 / (24 + 12)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([*WEIGHTS, make_node("MatMul", ["x", "w"], ["first"])], {}),
        ([*QUANTIZED, make_node("MatMul", ["d", "w32"], ["first"])], LARGE),
        ([*QUANTIZED, *WEIGHTS, PRODUCT], {"w8": np.ones((4, 6), dtype=np.int16)}),
        ([*QUANTIZED, *WEIGHTS, make_node("Sigmoid", ["d"], ["e"]), make_node("MatMul", ["e", "w"], ["first"])], {}),
    ],
    ids=["weights only", "activations only", "16 bits", "an activation function after DequantizeLinear"],
)
def test_forms_that_are_not(nodes: list[onnx.NodeProto], constants: dict[str, Any], tmp_path: Path) -> None:
    assert int8_share(write(tmp_path, [*nodes, FLOAT], **constants), FEATURES) == 0


def test_uncounted_operators_and_no_macs_are_errors(tmp_path: Path) -> None:
    einsum = make_node("Einsum", ["x", "w32"], ["first"], equation="ij,jk->ik")
    with pytest.raises(ValueError, match="Einsum"):
        int8_share(write(tmp_path, [einsum, FLOAT], **LARGE), FEATURES)
    reduced = make_node("Slice", ["x", "from", "to", "axis"], ["y"])
    bounds = {name: np.array([value]) for name, value in (("from", 0), ("to", 2), ("axis", 1))}
    with pytest.raises(ValueError, match="no MACs"):
        int8_share(write(tmp_path, [reduced], **bounds), FEATURES)


@pytest.mark.parametrize(("levels", "share"), [(256, 24 / 36), (255, 24 / 36), (65536, 0)])
def test_openvino(levels: int, share: float, tmp_path: Path) -> None:
    features = ov.parameter([1, 4], np.float32, name="x")
    ends = [np.float32(value) for value in (-1, 1, -1, 1)]
    weights = ov.multiply(ov.convert(ov.constant(np.ones((6, 4), dtype=np.int8)), np.float32), np.float32(0.1))
    first = ov.matmul(ov.fake_quantize(features, *ends, levels), weights, False, True)
    product = ov.matmul(first, ov.constant(np.ones((6, 2), dtype=np.float32)), False, False)
    file = tmp_path / "graph.xml"
    openvino.save_model(openvino.Model([product], [features]), str(file), compress_to_fp16=False)
    assert int8_share(file, FEATURES) == share


def test_our_graphs_have_the_share_of_the_manifest(tiny_int8_bundle: Path) -> None:
    bundle = Bundle.open(tiny_int8_bundle)
    length, size = bundle.manifest.model.max_length, bundle.manifest.preprocessing.output_size
    ones = np.ones((1, length), dtype=np.int64)
    inputs = {
        "vision": {"pixels": np.zeros((1, *size, 3), dtype=np.uint8)},
        "text": {"input_ids": ones, "attention_mask": ones},
    }
    for tower, feed in inputs.items():
        for variant in ("fp32", "int8"):
            graph = bundle.graph(tower, variant, "cpu")
            macs = graph.content.macs
            assert int8_share(bundle.path(graph.file), feed) == macs.get("int8", 0) / sum(macs.values())
