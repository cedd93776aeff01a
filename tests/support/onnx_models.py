"""Small handmade ONNX graphs with the types and shapes that the exporter writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

SIZES = Sequence[int | str | None]


def value(name: str, shape: SIZES, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, shape: Sequence[int], dtype: int = TensorProto.FLOAT) -> onnx.TensorProto:
    values = np.zeros(shape, helper.tensor_dtype_to_np_dtype(dtype))
    return onnx.numpy_helper.from_array(values, name)


def model(
    nodes: Sequence[onnx.NodeProto],
    values: Sequence[onnx.ValueInfoProto] = (),
    weights: Sequence[onnx.TensorProto] = (),
    **fields: Any,
) -> onnx.ModelProto:
    """A model of `nodes`, valid or not; `fields` are those of `helper.make_model`."""
    graph = helper.make_graph(nodes, "graph", [], [], initializer=weights, value_info=values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], **fields)


def half_model() -> onnx.ModelProto:
    """A strongly typed model: a dense layer and a product of two activations in FP16, a projection in FP32.

    MACs of one item of n tokens: 4·n·8·6 + n·n·6 in float16, 6·5 in float32.
    """
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "dense"], ["y"], name="dense"),
        helper.make_node("MatMul", ["y", "z"], ["scores"], name="scores"),
        helper.make_node("Cast", ["row"], ["wide"], to=single),
        helper.make_node("Gemm", ["wide", "projection", "bias"], ["out"], name="projection", transB=1, alpha=1.0),
        helper.make_node("Constant", [], ["scale"], value=weight("", [3], half)),
    ]
    values = [
        value("x", ["batch", 4, "sequence", 8], half),
        value("y", ["batch", 4, "sequence", 6], half),
        value("z", ["batch", 6, "u1"], half),
        value("scores", ["batch", "sequence", "u1"], half),
        value("row", ["batch", 6], half),
        value("wide", ["batch", 6], single),
        value("out", ["batch", 5], single),
    ]
    weights = [
        weight("dense", [8, 6], half),
        weight("projection", [5, 6]),
        weight("bias", [5]),
        weight("axes", [2], TensorProto.INT64),
    ]
    return model(nodes, values, weights)


def write(folder: Path, made: onnx.ModelProto) -> Path:
    """Writes `made` to a file in `folder`, unchecked."""
    file = folder / "graph.onnx"
    file.write_bytes(made.SerializeToString())
    return file
