"""The linter for TensorRT: every rule is shown to fail on a correct graph with one mistake."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import INT8
from align_exporter import trt_lint
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.graph.ir_helpers import add_constant
from align_exporter.int8.insert_qdq import insert_qdq
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.trt_lint import RULES, check_tensorrt, findings
from align_runtime import BuildError
from support.graphs import typed

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
    set_constant(node(model, "reduce").inputs[2], np.zeros(8, dtype=np.float32))


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
    dequantizer(model, "depthwise", 1).outputs[0].shape = ir.Shape([8, 1, 1, 3])


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


# Rule, node, the value that the finding must name, and the mistake.
BREAKS: list[tuple[str, str, str, Callable[[ir.Model], None]]] = [
    ("opset", "g", "opset 25", old_opset),
    ("operator", "first", "com.microsoft::FusedConv", change_operator("first", "FusedConv", "com.microsoft")),
    ("operator", "scores", "QLinearMatMul", change_operator("scores", "QLinearMatMul")),
    ("operator", "turn", "StringNormalizer", change_operator("turn", "StringNormalizer")),
    ("data-dependent shape", "tokens", "NonZero", change_operator("tokens", "NonZero")),
    ("constant axes", "norm", "'axes'", computed_axes),
    ("UINT8", "early", "'pixels'", transposed_uint8),
    ("UINT8", "early", "Transpose computes", transposed_uint8),
    ("strong typing", "reduce", "FLOAT and FLOAT16", mixed_types),
    ("known types", "tokens", "'k'", missing_type),
    ("signed integers", "s/dequantized", "UINT8", unsigned),
    ("zero points", "s/dequantized", "not a constant 0", asymmetric),
    ("zero points", "dense/weight/dequantized", "not a constant 0", computed_zero_point),
    ("scales", "k/dequantized", "value 0", scale_of("dense", 0, np.float16(0))),
    ("scales", "dense/weight/dequantized", "value -1", scale_of("dense", 1, np.linspace(-1, 1, 16).astype(np.float16))),
    ("scales", "dense/weight/dequantized", "value inf", scale_of("dense", 1, np.full(16, np.inf, dtype=np.float16))),
    ("scales", "dense/weight/dequantized", "computed", computed_scale),
    ("scale types", "k/dequantized", "FLOAT and the float tensor FLOAT16", scale_of("dense", 0, np.float32(1))),
    ("granularity", "k/dequantized", "shape [16]", scale_of("dense", 0, np.ones(16, dtype=np.float16))),
    ("granularity", "dense/weight/dequantized", "axis 0; ", wrong_axis),
    (
        "granularity",
        "first/weight/dequantized",
        "scales [4] along axis 0",
        scale_of("first", 1, np.ones(4, np.float16)),
    ),
    ("granularity", "dense/weight/dequantized", "scales [] along axis 1", scale_of("dense", 1, np.float16(0.5))),
    ("float bias", "first", "", quantized_bias),
    ("both operands", "dense", "weights", lambda model: unquantize_operand(model, "dense", 0)),
    ("both operands", "projection", "activation", lambda model: unquantize_operand(model, "projection", 1)),
    ("fused dequantizers", "late", "", cast_dequantized),
    ("fused swish", "swish", "", lambda model: quantize_operand(model, "swish", 0)),
    ("fused swish", "swish", "", lambda model: quantize_operand(model, "swish", 1)),
    ("fused swish", "swish", "", lambda model: quantize_operand(model, "sigmoid", 0)),
    ("residual shortcut", "residual", "", lambda model: unquantize_operand(model, "residual", 1)),
    ("residual shortcut", "residual", "", lambda model: quantize_operand(model, "residual", 0)),
    ("depthwise kernels", "depthwise", "8 channels and a 1×3 kernel", narrow_depthwise),
    ("depthwise kernels", "depthwise", "12 channels and a 3×3 kernel", odd_depthwise),
    ("float gates", "reduce", "", quantized_gate),
    ("float attention", "scores", "", lambda model: quantize_operand(model, "scores", 1)),
]


def test_a_correct_graph_has_no_findings() -> None:
    model = quantized()
    assert findings(model) == []
    types = {node.name: node.op_type for node in model.graph}
    assert sum(operator == "DequantizeLinear" for operator in types.values()) > 10


@pytest.mark.parametrize(
    ("rule", "place", "value", "disturb"), BREAKS, ids=[f"{rule}: {place} {value}" for rule, place, value, _ in BREAKS]
)
def test_a_rule_fails(rule: str, place: str, value: str, disturb: Callable[[ir.Model], None]) -> None:
    model = quantized()
    disturb(model)
    found = [finding for finding in findings(model) if (finding.rule, finding.node) == (rule, place)]
    assert any(value in finding.problem for finding in found), list(map(str, findings(model)))


def test_every_rule_is_shown_to_fail() -> None:
    assert len({rule for rule, *_ in BREAKS}) == len(RULES)


@pytest.mark.parametrize(
    ("shape", "group"),
    [([12, 12, 1, 1], 1), ([12, 2, 1, 1], 4)],
    ids=["one group", "groups of several channels"],
)
def test_a_convolution_that_is_not_depthwise_may_have_any_size(shape: list[int], group: int) -> None:
    model = quantized()
    node(model, "depthwise").attributes.add(ir.AttrInt64("group", group))
    dequantizer(model, "depthwise", 1).outputs[0].shape = ir.Shape(shape)
    assert [finding for finding in findings(model) if finding.rule == "depthwise kernels"] == []


def test_the_error_names_the_findings(tmp_path: Path) -> None:
    model = quantized()
    asymmetric(model)
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError, match="zero points") as caught:
        check_tensorrt(tmp_path / "graph.onnx")
    assert all(str(finding) in str(caught.value) for finding in findings(model))
    assert len(findings(model)) == 2
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_the_error_counts_the_findings_that_it_leaves_out(tmp_path: Path) -> None:
    model = quantized()
    for entry in [entry for entry in model.graph if entry.op_type == "DequantizeLinear"]:
        set_constant(entry.inputs[2], np.int8(3))
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError, match="more") as caught:
        check_tensorrt(tmp_path / "graph.onnx")
    found, message = findings(model), str(caught.value)
    shown = sum(str(finding) in message for finding in found)
    assert 0 < shown < len(found)
    assert message.endswith(f"and {len(found) - shown} more")
    assert len(message) <= 500


def test_graphs_for_other_devices_may_break_rules(tiny_bundle: Path) -> None:
    """The check is not empty: the packed text graph for CPUs has shapes that depend on data."""
    with pytest.raises(BuildError, match="data-dependent shape"):
        check_tensorrt(tiny_bundle / "onnx" / "text_model_cpu.onnx")
    check_tensorrt(tiny_bundle / "onnx" / "text_model.onnx")


def test_the_linter_shares_no_code_with_what_it_checks() -> None:
    """A helper that the placement of Q/DQ uses too would make the same mistake in both."""
    allowed = ("align_exporter.trt_lint", "align_runtime.errors")
    for file in Path(trt_lint.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file.name
                names = [str(node.module)]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("align_") or name.startswith(allowed), f"{file.name} imports {name}"
