"""Small graphs for tests, written as text."""

from __future__ import annotations

import onnx
import onnx_ir as ir

# Four products and two cheap operators between them.
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
    """The textual graph with the types and shapes of all its values, as those of an export have them."""
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.type = ir.TensorType(value.const_value.dtype)
    return model
