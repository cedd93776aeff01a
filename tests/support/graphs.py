"""Small graphs for tests, written as text, and ONNX Runtime to run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes.common import DeduplicateInitializersPass

from align_exporter.graph.ir_helpers import own_constant
from align_runtime.backends.onnxruntime import sum_exactly

# Four products with weights and two cheap operators between them.
CHAIN = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 4] y)
<float[4, 4] w = {WEIGHT}>
{
  [first] a = MatMul (x, w)
  [act] b = Sigmoid (a)
  [second] c = MatMul (b, w)
  [third] d = MatMul (c, w)
  [sum] e = Add (d, c)
  [last] y = MatMul (e, w)
}
""".replace("{WEIGHT}", "{" + ", ".join(["1"] * 16) + "}")


def typed(text: str) -> ir.Model:
    """The textual graph with types and shapes of all its values, like an exported graph."""
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.type = ir.TensorType(value.const_value.dtype)
    return model


def run_graph(model: ir.Model, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Checks `model` with ONNX's checker and returns its outputs for `feed` from ONNX Runtime on the CPU."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    sum_exactly(options)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def constants(model: ir.Model) -> dict[str, NDArray[Any]]:
    """The values of all initializers of `model` by name."""
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}


def merged(model: ir.Model) -> ir.Model:
    """A copy of `model` in which all constants of equal value are one, as exporters write it."""
    copy = model.clone()
    DeduplicateInitializersPass()(copy)
    return copy


def unshared(model: ir.Model) -> ir.Model:
    """A copy of `model` in which every constant has one reader."""
    copy = model.clone()
    for node in copy.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer():
                own_constant(node, index)
    return copy
