"""A graph that TensorRT's rules are content with, and mistakes that break one rule each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from align_calibration.quant_params import INT8
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.graph.ir_helpers import add_constant
from align_exporter.int8.insert_qdq import insert_qdq
from align_exporter.int8.qdq_placement import place_qdq
from support.graphs import typed

REFUSED, NOT_BUILT, WARNED, BUILT = "the parser refuses it", "the builder refuses it", "built with a warning", "built"


@dataclass(frozen=True)
class Fault:
    """A mistake in `quantized()`.

    Attributes:
        rule: the linter's rule that it breaks; `node`: where; `value`: what the finding must name.
        plant: makes it.
        verdict: what TensorRT for RTX says.
    """

    rule: str
    node: str
    value: str
    plant: Callable[[ir.Model], None]
    verdict: str


# UINT8 pixels, a convolution with its swish, squeeze-excite, a depthwise convolution with a residual, two dense layers
# and two products of activations.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (uint8[n, 8, 4, 4] pixels) => (float[n, 8, 1] y)
<float[8, 8, 1, 1] w = {W64}, float[8] b = {B8}, float[8, 8, 1, 1] r = {W64}, float[8, 1, 3, 3] d = {W72},
 float[1] half = {0.5}, float[16, 16] m = {W256}, int64[3] rows = {-1, 8, 16}, int64[1] last = {2},
 float[16, 16] p = {W256}, int64[2] flat = {-1, 16}, int64[3] back = {-1, 8, 16}, float[16] pb = {B16}>
{
  [cast] x = Cast <to = 1> (pixels)
  [scale] s = Mul (x, half)
  [first] a = Conv (s, w, b)
  [sigmoid] g1 = Sigmoid (a)
  [swish] h = Mul (a, g1)
  [depthwise] c = Conv <group = 8, pads = [1, 1, 1, 1]> (h, d, b)
  [pool] q = GlobalAveragePool (c)
  [reduce] t = Conv (q, r, b)
  [gates] u = Sigmoid (t)
  [excite] e = Mul (c, u)
  [project] o = Conv (e, r, b)
  [residual] z = Add (o, h)
  [tokens] k = Reshape (z, rows)
  [dense] v = MatMul (k, m)
  [turn] vt = Transpose <perm = [0, 2, 1]> (v)
  [scores] sc = MatMul (v, vt)
  [attend] at = MatMul (sc, v)
  [flatten] f = Reshape (at, flat)
  [projection] pr = Gemm <transB = 1> (f, p, pb)
  [unflatten] un = Reshape (pr, back)
  [norm] y = ReduceL2 <keepdims = 1> (un, last)
}
"""
for size in (64, 72, 256):
    GRAPH = GRAPH.replace(f"{{W{size}}}", "{" + ", ".join(["0.25"] * size) + "}")
for size in (8, 16):
    GRAPH = GRAPH.replace(f"{{B{size}}}", "{" + ", ".join(["0.5"] * size) + "}")


def quantized() -> ir.Model:
    model = typed(GRAPH)
    float32 = {node for node in model.graph if node.name in ("cast", "scale", "norm")}
    scales = {name: INT8.fit(-4, 4) for name in place_qdq(model.graph).tensors}
    convert_to_fp16(model, float32 | insert_qdq(model, scales, float32))
    return model


def node(model: ir.Model, name: str) -> ir.Node:
    (found,) = [node for node in model.graph if node.name == name]
    return found


def dequantizer(model: ir.Model, name: str, index: int) -> ir.Node:
    """The DequantizeLinear that computes operand `index` of the node `name`."""
    value = node(model, name).inputs[index]
    assert value is not None
    producer = value.producer()
    assert producer is not None
    assert producer.op_type == "DequantizeLinear"
    return producer


def quantize_operand(model: ir.Model, name: str, index: int) -> None:
    """Inserts a Q/DQ pair before operand `index` of the node `name`."""
    reader, graph = node(model, name), model.graph
    value = reader.inputs[index]
    assert value is not None
    scale = add_constant(graph, f"{name}/scale", np.float16(0.5))
    zero = add_constant(graph, f"{name}/zero", np.int8(0))
    integers = ir.val(f"{name}/integers", dtype=ir.DataType.INT8, shape=value.shape)
    floats = ir.val(f"{name}/floats", dtype=value.dtype, shape=value.shape)
    pair = [
        ir.node("QuantizeLinear", [value, scale, zero], outputs=[integers], name=f"{name}/Q"),
        ir.node("DequantizeLinear", [integers, scale, zero], outputs=[floats], name=f"{name}/DQ"),
    ]
    graph.insert_before(reader, pair)
    reader.replace_input_with(index, floats)


def unquantize_operand(model: ir.Model, name: str, index: int) -> None:
    """Removes the Q/DQ pair, or the DequantizeLinear of weights, before operand `index` of the node `name`."""
    integers = dequantizer(model, name, index).inputs[0]
    assert integers is not None
    quantizer = integers.producer()
    if quantizer is not None:
        node(model, name).replace_input_with(index, quantizer.inputs[0])
    else:
        floats = np.full(integers.shape.numpy(), 0.25, dtype=np.float16)
        node(model, name).replace_input_with(index, add_constant(model.graph, f"{name}/float", floats))


def set_constant(value: ir.Value | None, content: np.ndarray | np.generic) -> None:
    assert value is not None
    value.const_value = ir.tensor(np.asarray(content), name=value.name)
    value.type = ir.TensorType(value.const_value.dtype)
    value.shape = ir.Shape(np.asarray(content).shape)


def change_operator(name: str, operator: str, domain: str = "") -> Callable[[ir.Model], None]:
    def change(model: ir.Model) -> None:
        node(model, name).op_type, node(model, name).domain = operator, domain

    return change


def old_opset(model: ir.Model) -> None:
    model.graph.opset_imports[""] = 25


def computed_axes(model: ir.Model) -> None:
    norm = node(model, "norm")
    axes = ir.node("Identity", [norm.inputs[1]], name="axes", outputs=[ir.val("axes", dtype=ir.DataType.INT64)])
    model.graph.insert_before(norm, axes)
    norm.replace_input_with(1, axes.outputs[0])


def transposed_uint8(model: ir.Model) -> None:
    cast = node(model, "cast")
    output = ir.val("turned", dtype=ir.DataType.UINT8, shape=cast.outputs[0].shape)
    model.graph.insert_before(cast, ir.node("Transpose", [cast.inputs[0]], outputs=[output], name="early"))
    cast.replace_input_with(0, output)


def mixed_types(model: ir.Model) -> None:
    set_constant(node(model, "depthwise").inputs[2], np.zeros(8, dtype=np.float32))


def mixed_sum(model: ir.Model) -> None:
    total = node(model, "residual")
    wide = ir.val("wide_shortcut", dtype=ir.DataType.FLOAT, shape=total.inputs[1].shape)
    model.graph.insert_before(total, ir.node("Cast", [total.inputs[1]], {"to": 1}, outputs=[wide], name="widen"))
    total.replace_input_with(1, wide)


def missing_type(model: ir.Model) -> None:
    node(model, "tokens").outputs[0].type = None


def unsigned(model: ir.Model) -> None:
    pair = dequantizer(model, "first", 0)
    assert pair.inputs[0] is not None
    pair.inputs[0].type = ir.TensorType(ir.DataType.UINT8)
    set_constant(pair.inputs[2], np.uint8(0))


def asymmetric(model: ir.Model) -> None:
    set_constant(dequantizer(model, "first", 0).inputs[2], np.int8(3))


def scale_of(name: str, index: int, content: np.ndarray | np.generic) -> Callable[[ir.Model], None]:
    return lambda model: set_constant(dequantizer(model, name, index).inputs[1], content)


def scales_of(name: str, index: int, content: np.ndarray | np.generic) -> Callable[[ir.Model], None]:
    """Scales of another granularity, with as many zero points."""

    def change(model: ir.Model) -> None:
        scale_of(name, index, content)(model)
        set_constant(dequantizer(model, name, index).inputs[2], np.zeros_like(content, dtype=np.int8))

    return change


def computed_scale(model: ir.Model) -> None:
    pair = dequantizer(model, "dense", 1)
    scale = ir.val("computed", dtype=ir.DataType.FLOAT16, shape=ir.Shape([16]))
    model.graph.insert_before(pair, ir.node("Abs", [pair.inputs[1]], outputs=[scale], name="abs"))
    pair.replace_input_with(1, scale)


def computed_zero_point(model: ir.Model) -> None:
    pair = dequantizer(model, "dense", 1)
    zero_point = ir.val("computed_zero", dtype=ir.DataType.INT8, shape=ir.Shape([16]))
    model.graph.insert_before(pair, ir.node("Abs", [pair.inputs[2]], outputs=[zero_point], name="abs"))
    pair.replace_input_with(2, zero_point)


def wrong_axis(model: ir.Model) -> None:
    dequantizer(model, "dense", 1).attributes.add(ir.AttrInt64("axis", 0))


def quantized_bias(model: ir.Model) -> None:
    first, graph = node(model, "first"), model.graph
    operands = [
        add_constant(graph, "bias/integers", np.zeros(8, np.int8)),
        add_constant(graph, "bias/scale", np.float16(0.5)),
    ]
    floats = ir.val("bias/floats", dtype=ir.DataType.FLOAT16, shape=ir.Shape([8]))
    graph.insert_before(first, ir.node("DequantizeLinear", operands, outputs=[floats], name="bias/DQ"))
    first.replace_input_with(2, floats)


def cast_dequantized(model: ir.Model) -> None:
    dense = node(model, "dense")
    wide = ir.val("wide", dtype=ir.DataType.FLOAT16, shape=dense.inputs[0].shape)
    model.graph.insert_before(dense, ir.node("Cast", [dense.inputs[0]], {"to": 10}, outputs=[wide], name="late"))
    dense.replace_input_with(0, wide)


def narrow_depthwise(model: ir.Model) -> None:
    weights = dequantizer(model, "depthwise", 1)
    set_constant(weights.inputs[0], np.ones((8, 1, 1, 3), np.int8))
    weights.outputs[0].shape = ir.Shape([8, 1, 1, 3])
    node(model, "depthwise").attributes.add(ir.AttrInt64s("pads", [0, 1, 0, 1]))


def odd_depthwise(model: ir.Model) -> None:
    dequantizer(model, "depthwise", 1).outputs[0].shape = ir.Shape([12, 1, 3, 3])


def quantized_gate(model: ir.Model) -> None:
    reduce, graph = node(model, "reduce"), model.graph
    quantize_operand(model, "reduce", 0)
    operands = [
        add_constant(graph, "gate/integers", np.ones((8, 8, 1, 1), np.int8)),
        add_constant(graph, "gate/scale", np.float16(1)),
    ]
    floats = ir.val("gate/floats", dtype=ir.DataType.FLOAT16, shape=ir.Shape([8, 8, 1, 1]))
    graph.insert_before(reduce, ir.node("DequantizeLinear", operands, outputs=[floats], name="gate/DQ"))
    reduce.replace_input_with(1, floats)


FAULTS = [
    Fault("opset", "g", "opset 25", old_opset, BUILT),
    Fault(
        "operator", "first", "com.microsoft::FusedConv", change_operator("first", "FusedConv", "com.microsoft"), REFUSED
    ),
    Fault("operator", "scores", "QLinearMatMul", change_operator("scores", "QLinearMatMul"), REFUSED),
    Fault("operator", "turn", "StringNormalizer", change_operator("turn", "StringNormalizer"), REFUSED),
    Fault("data-dependent shape", "tokens", "NonZero", change_operator("tokens", "NonZero"), REFUSED),
    Fault("constant axes", "norm", "'axes'", computed_axes, BUILT),
    Fault("UINT8", "early", "'pixels'", transposed_uint8, REFUSED),
    Fault("UINT8", "early", "Transpose computes", transposed_uint8, REFUSED),
    Fault("strong typing", "depthwise", "FLOAT and FLOAT16", mixed_types, REFUSED),
    Fault("strong typing", "residual", "FLOAT and FLOAT16", mixed_sum, REFUSED),
    Fault("known types", "tokens", "'k'", missing_type, BUILT),
    Fault("signed integers", "s/dequantized", "UINT8", unsigned, WARNED),
    Fault("zero points", "s/dequantized", "not a constant 0", asymmetric, REFUSED),
    Fault("zero points", "dense/weight/dequantized", "not a constant 0", computed_zero_point, NOT_BUILT),
    Fault("scales", "k/dequantized", "value 0", scale_of("dense", 0, np.float16(0)), REFUSED),
    Fault(
        "scales",
        "dense/weight/dequantized",
        "value -1",
        scale_of("dense", 1, np.linspace(-1, 1, 16).astype(np.float16)),
        REFUSED,
    ),
    Fault(
        "scales",
        "dense/weight/dequantized",
        "value inf",
        scale_of("dense", 1, np.full(16, np.inf, dtype=np.float16)),
        BUILT,
    ),
    Fault("scales", "dense/weight/dequantized", "computed", computed_scale, BUILT),
    Fault(
        "scale types",
        "k/dequantized",
        "FLOAT and the float tensor FLOAT16",
        scale_of("dense", 0, np.float32(1)),
        REFUSED,
    ),
    Fault("granularity", "k/dequantized", "shape [16]", scales_of("dense", 0, np.ones(16, dtype=np.float16)), REFUSED),
    Fault("granularity", "dense/weight/dequantized", "axis 0; ", wrong_axis, BUILT),
    Fault(
        "granularity",
        "first/weight/dequantized",
        "scales [4] along axis 0",
        scales_of("first", 1, np.ones(4, np.float16)),
        REFUSED,
    ),
    Fault(
        "granularity",
        "dense/weight/dequantized",
        "scales [] along axis 1",
        scales_of("dense", 1, np.float16(0.5)),
        BUILT,
    ),
    Fault("float bias", "first", "", quantized_bias, BUILT),
    Fault("both operands", "dense", "weights", lambda model: unquantize_operand(model, "dense", 0), BUILT),
    Fault("both operands", "projection", "activation", lambda model: unquantize_operand(model, "projection", 1), BUILT),
    Fault("fused dequantizers", "late", "", cast_dequantized, BUILT),
    Fault("fused swish", "swish", "", lambda model: quantize_operand(model, "swish", 0), BUILT),
    Fault("fused swish", "swish", "", lambda model: quantize_operand(model, "swish", 1), BUILT),
    Fault("fused swish", "swish", "", lambda model: quantize_operand(model, "sigmoid", 0), BUILT),
    Fault("residual shortcut", "residual", "", lambda model: unquantize_operand(model, "residual", 1), BUILT),
    Fault("residual shortcut", "residual", "", lambda model: quantize_operand(model, "residual", 0), BUILT),
    Fault("depthwise kernels", "depthwise", "8 channels and a 1×3 kernel", narrow_depthwise, BUILT),
    Fault("depthwise kernels", "depthwise", "12 channels and a 3×3 kernel", odd_depthwise, BUILT),
    Fault("float gates", "reduce", "", quantized_gate, BUILT),
    Fault("float attention", "scores", "", lambda model: quantize_operand(model, "scores", 1), BUILT),
]
