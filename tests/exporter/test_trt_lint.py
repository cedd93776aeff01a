"""The linter for TensorRT: every rule is shown failing on a graph that is right but for one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import INT8
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.graph.ir_helpers import add_constant
from align_exporter.int8.insert_qdq import insert_qdq
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.trt_lint import RULES, check_tensorrt, findings
from align_runtime import BuildError
from support.graphs import typed

# Bytes, a convolution with its swish, squeeze-excite, a depthwise convolution with a residual, two dense layers and a
# product of activations.
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
    scales = {name: INT8.scale(-4, 4) for name in place_qdq(model.graph).tensors}
    convert_to_fp16(model, float32 | insert_qdq(model, scales, float32))
    return model


def node(model: ir.Model, name: str) -> ir.Node:
    (found,) = [node for node in model.graph if node.name == name]
    return found


def dequantizer(model: ir.Model, name: str, index: int) -> ir.Node:
    """The DequantizeLinear that operand `index` of the node `name` comes from."""
    value = node(model, name).inputs[index]
    assert value is not None
    producer = value.producer()
    assert producer is not None
    assert producer.op_type == "DequantizeLinear"
    return producer


def quantize_operand(model: ir.Model, name: str, index: int) -> None:
    """Puts a pair before operand `index` of the node `name`."""
    reader, graph = node(model, name), model.graph
    value = reader.inputs[index]
    assert value is not None
    step = add_constant(graph, f"{name}/step", np.float16(0.5))
    zero = add_constant(graph, f"{name}/zero", np.int8(0))
    numbers = ir.val(f"{name}/numbers", dtype=ir.DataType.INT8, shape=value.shape)
    floats = ir.val(f"{name}/floats", dtype=value.dtype, shape=value.shape)
    pair = [
        ir.node("QuantizeLinear", [value, step, zero], outputs=[numbers], name=f"{name}/Q"),
        ir.node("DequantizeLinear", [numbers, step, zero], outputs=[floats], name=f"{name}/DQ"),
    ]
    graph.insert_before(reader, pair)
    reader.replace_input_with(index, floats)


def bare_operand(model: ir.Model, name: str, index: int) -> None:
    """Takes the pair, or the DequantizeLinear of weights, before operand `index` of the node `name` away."""
    numbers = dequantizer(model, name, index).inputs[0]
    assert numbers is not None
    quantizer = numbers.producer()
    if quantizer is not None:
        node(model, name).replace_input_with(index, quantizer.inputs[0])
    else:
        floats = np.full(numbers.shape.numpy(), 0.25, dtype=np.float16)
        node(model, name).replace_input_with(index, add_constant(model.graph, f"{name}/bare", floats))


def set_constant(value: ir.Value | None, numbers: np.ndarray | np.generic) -> None:
    assert value is not None
    value.const_value = ir.tensor(np.asarray(numbers), name=value.name)
    value.type = ir.TensorType(value.const_value.dtype)
    value.shape = ir.Shape(np.asarray(numbers).shape)


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


def transposed_bytes(model: ir.Model) -> None:
    cast = node(model, "cast")
    output = ir.val("turned", dtype=ir.DataType.UINT8, shape=cast.outputs[0].shape)
    model.graph.insert_before(cast, ir.node("Transpose", [cast.inputs[0]], outputs=[output], name="early"))
    cast.replace_input_with(0, output)


def mixed_types(model: ir.Model) -> None:
    set_constant(node(model, "depthwise").inputs[2], np.zeros(8, dtype=np.float32))


def forgotten_type(model: ir.Model) -> None:
    node(model, "tokens").outputs[0].type = None


def unsigned(model: ir.Model) -> None:
    pair = dequantizer(model, "first", 0)
    assert pair.inputs[0] is not None
    pair.inputs[0].type = ir.TensorType(ir.DataType.UINT8)
    set_constant(pair.inputs[2], np.uint8(0))


def shifted(model: ir.Model) -> None:
    set_constant(dequantizer(model, "first", 0).inputs[2], np.int8(3))


def scale_of(name: str, index: int, numbers: np.ndarray | np.generic) -> Callable[[ir.Model], None]:
    return lambda model: set_constant(dequantizer(model, name, index).inputs[1], numbers)


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
        add_constant(graph, "bias/numbers", np.zeros(8, np.int8)),
        add_constant(graph, "bias/step", np.float16(0.5)),
    ]
    floats = ir.val("bias/floats", dtype=ir.DataType.FLOAT16, shape=ir.Shape([8]))
    graph.insert_before(first, ir.node("DequantizeLinear", operands, outputs=[floats], name="bias/DQ"))
    first.replace_input_with(2, floats)


def cast_dequantized(model: ir.Model) -> None:
    dense = node(model, "dense")
    wide = ir.val("wide", dtype=ir.DataType.FLOAT16, shape=dense.inputs[0].shape)
    model.graph.insert_before(dense, ir.node("Cast", [dense.inputs[0]], {"to": 10}, outputs=[wide], name="late"))
    dense.replace_input_with(0, wide)


def odd_depthwise(model: ir.Model) -> None:
    weights = dequantizer(model, "depthwise", 1)
    weights.outputs[0].shape = ir.Shape([8, 1, 1, 3])


def quantized_gate(model: ir.Model) -> None:
    reduce, graph = node(model, "reduce"), model.graph
    quantize_operand(model, "reduce", 0)
    operands = [
        add_constant(graph, "gate/numbers", np.ones((8, 8, 1, 1), np.int8)),
        add_constant(graph, "gate/step", np.float16(1)),
    ]
    floats = ir.val("gate/floats", dtype=ir.DataType.FLOAT16, shape=ir.Shape([8, 8, 1, 1]))
    graph.insert_before(reduce, ir.node("DequantizeLinear", operands, outputs=[floats], name="gate/DQ"))
    reduce.replace_input_with(1, floats)


BREAKS: list[tuple[str, str, Callable[[ir.Model], None]]] = [
    ("opset", "the opset is 25", old_opset),
    (
        "operator",
        "com.microsoft::FusedConv is no ONNX operator",
        change_operator("first", "FusedConv", "com.microsoft"),
    ),
    ("operator", "QLinearMatMul is not supported", change_operator("scores", "QLinearMatMul")),
    ("operator", "StringNormalizer is not in the parser's list", change_operator("turn", "StringNormalizer")),
    ("data-dependent shape", "the shape that NonZero gives depends on values", change_operator("tokens", "NonZero")),
    ("constant axes", "the axes 'axes' are computed", computed_axes),
    ("bytes", "Transpose reads the bytes of the input 'pixels'", transposed_bytes),
    ("bytes", "it computes bytes, which only an input may be", transposed_bytes),
    ("strong typing", "Conv mixes FLOAT and FLOAT16", mixed_types),
    ("noted types", "the type of 'k' is not in the file", forgotten_type),
    ("signed numbers", "the numbers are UINT8", unsigned),
    ("zero points", "is not 0", shifted),
    ("zero points", "is not 0", computed_zero_point),
    ("scales", "has the value 0", scale_of("dense", 0, np.float16(0))),
    ("scales", "has the value -1", scale_of("dense", 1, np.linspace(-1, 1, 16).astype(np.float16))),
    ("scales", "has the value inf", scale_of("dense", 1, np.full(16, np.inf, dtype=np.float16))),
    ("scales", "the scale is computed", computed_scale),
    ("scale types", "the scale is FLOAT and the floats are FLOAT16", scale_of("dense", 0, np.float32(1))),
    ("granularity", "an activation has scales of shape [16]", scale_of("dense", 0, np.ones(16, dtype=np.float16))),
    ("granularity", "along axis 0; one for each output channel is needed, along axis 1", wrong_axis),
    ("granularity", "have scales [4] along axis 0", scale_of("first", 1, np.ones(4, dtype=np.float16))),
    ("granularity", "have scales [] along axis 1", scale_of("dense", 1, np.float16(0.5))),
    ("float bias", "its bias is quantised", quantized_bias),
    ("whole products", "only its weights is quantised", lambda model: bare_operand(model, "dense", 0)),
    ("whole products", "only its activation is quantised", lambda model: bare_operand(model, "projection", 1)),
    ("fused dequantizers", "it casts what was just dequantised", cast_dequantized),
    ("bare swish", "a tensor inside this swish is quantised", lambda model: quantize_operand(model, "swish", 0)),
    ("bare swish", "a tensor inside this swish is quantised", lambda model: quantize_operand(model, "swish", 1)),
    ("bare swish", "a tensor inside this swish is quantised", lambda model: quantize_operand(model, "sigmoid", 0)),
    ("residual shortcut", "quantise the shortcut", lambda model: bare_operand(model, "residual", 1)),
    ("residual shortcut", "leave the other bare", lambda model: quantize_operand(model, "residual", 0)),
    ("depthwise kernels", "8 channels and a kernel of 1×3 has no INT8 kernel", odd_depthwise),
    ("float gates", "a convolution of one pixel is quantised", quantized_gate),
    (
        "float attention",
        "a product of two activations is quantised",
        lambda model: quantize_operand(model, "scores", 1),
    ),
]


def test_the_right_graph_has_no_findings() -> None:
    model = quantized()
    assert findings(model) == []
    types = {node.name: node.op_type for node in model.graph}
    assert sum(operator == "DequantizeLinear" for operator in types.values()) > 10


@pytest.mark.parametrize(("rule", "message", "disturb"), BREAKS, ids=[f"{entry[0]}: {entry[1]}" for entry in BREAKS])
def test_a_rule_fails(rule: str, message: str, disturb: Callable[[ir.Model], None]) -> None:
    model = quantized()
    disturb(model)
    found = [finding for finding in findings(model) if finding.rule == rule]
    assert any(message in str(finding) for finding in found), list(map(str, findings(model)))


def test_every_rule_has_been_shown_failing() -> None:
    assert len({rule for rule, _, _ in BREAKS}) == len(RULES)


def test_all_findings_are_in_the_error(tmp_path: Path) -> None:
    model = quantized()
    shifted(model)
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError, match=r"graph\.onnx breaks 2 of TensorRT's rules: .*; .*is not 0") as caught:
        check_tensorrt(tmp_path / "graph.onnx")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_graphs_for_other_devices_may_break_them(tiny_bundle: Path) -> None:
    """The check is not empty: the packed text graph, which is never built, has shapes that depend on data."""
    with pytest.raises(BuildError, match=r"text_model_cpu\.onnx breaks 2 .*data-dependent shape"):
        check_tensorrt(tiny_bundle / "onnx" / "text_model_cpu.onnx")
    check_tensorrt(tiny_bundle / "onnx" / "text_model.onnx")
