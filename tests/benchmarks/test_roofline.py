"""The arithmetic of the roofline, on records as ONNX Runtime's profiler writes them."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from benchmarks.measure_roofline import feature_map, kind, layer_of, macs_of, size_of
from benchmarks.one_pass_swish import without_products
from benchmarks.sections.roofline import roofline_lines
from support.benchmark_results import made_up


def record(operator: str, inputs: list[dict[str, list[int]]], output: dict[str, list[int]]) -> dict[str, Any]:
    return {"op_name": operator, "input_type_shape": inputs, "output_type_shape": [output]}


CONVOLUTION = record("Conv", [{"float": [1, 32, 20, 20]}, {"float": [64, 32, 1, 1]}], {"float": [1, 64, 10, 10]})
PACKED = record("QLinearConv", [{"uint8": [1, 20, 20, 32]}, {"float": []}], {"uint8": [1, 10, 10, 64]})
DENSE = record("MatMul", [{"float": [1, 12, 3072]}], {"float": [1, 12, 768]})
ATTENTION = record("MatMul", [{"float": [1, 12, 9, 64]}, {"float": [1, 12, 64, 9]}], {"float": [1, 12, 9, 9]})


def test_macs() -> None:
    assert macs_of(CONVOLUTION, 64 * 32) == macs_of(PACKED, 64 * 32) == 100 * 64 * 32
    assert macs_of(DENSE, 3072 * 768) == 12 * 3072 * 768
    assert macs_of(ATTENTION, 0) == 12 * 9 * 9 * 64
    assert macs_of(record("Add", [{"float": [1, 8]}] * 2, {"float": [1, 8]}), 0) == 0


def test_weights_are_counted_once_whether_the_profiler_knows_them_or_not() -> None:
    assert size_of(CONVOLUTION, 64 * 32, 4) == 4 * (32 * 400 + 64 * 32 + 64 * 100)
    assert size_of(PACKED, 64 * 32, 1) == 32 * 400 + 4 + 64 * 32 + 64 * 100
    assert size_of(DENSE, 3072 * 768, 4) == 4 * (12 * 3072 + 3072 * 768 + 12 * 768)


def test_a_gather_reads_the_rows_that_it_writes() -> None:
    gather = record("Gather", [{"float": [30522, 768]}, {"int64": [1, 12]}], {"float": [1, 12, 768]})
    assert size_of(gather, 0, 4) == 2 * 4 * 12 * 768


def test_stages() -> None:
    assert feature_map(CONVOLUTION, 1) == feature_map(PACKED, 1) == "10×10"
    assert [kind(DENSE, 1), kind(ATTENTION, 0), kind(CONVOLUTION, 0)] == [
        "dense layers",
        "attention",
        "everything else",
    ]


def test_a_kernel_has_the_name_of_its_layer_and_perhaps_more() -> None:
    weights = {"block/Conv": 5, "block/Conv_1": 7}
    assert layer_of("block/Conv_1_quant_kernel_time", "QLinearConv", weights) == 7
    assert layer_of("block/Conv_kernel_time", "FusedConv", weights) == 5
    assert layer_of("block/Add_kernel_time", "Conv", weights) == 0
    assert layer_of("block/Conv_output_scale_kernel_time", "Mul", weights) == 0


def test_the_larger_bound_and_the_share_that_is_reached() -> None:
    result = made_up()["roofline"]
    result["graphs"]["text int8"] = result["graphs"]["vision fp32"]
    lines = roofline_lines(result)
    assert "vision FP32 80.0 % (arithmetic), text INT8 20.0 % (arithmetic)" in lines[0]
    assert "| vision FP32 | 9×9 | 4.00 | 10 | 80.0 | 1.0 | 100.0 |" in lines
    assert "1.20 × at batch 1" in lines[-1]


def test_the_product_of_a_swish_is_left_out_and_that_with_a_gate_is_not() -> None:
    """x·σ(x), then a product with a gate that is the sigmoid of something else."""
    names = {name: [name, "s", "z"] for name in ("x", "gate", "sigma", "swish", "other")}
    nodes = [
        helper.make_node("QLinearSigmoid", [*names["x"], "s", "z"], ["sigma"], domain="com.microsoft"),
        helper.make_node("QLinearMul", [*names["x"], *names["sigma"], "s", "z"], ["swish"], domain="com.microsoft"),
        helper.make_node("QLinearSigmoid", [*names["other"], "s", "z"], ["gate"], domain="com.microsoft"),
        helper.make_node("QLinearMul", [*names["swish"], *names["gate"], "s", "z"], ["gated"], domain="com.microsoft"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1]) for name in ("x", "other", "gated")]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:2], values[2:]))
    assert without_products(model) == 1
    assert [node.op_type for node in model.graph.node] == ["QLinearSigmoid", "QLinearSigmoid", "QLinearMul"]
    assert list(model.graph.node[-1].input[:6]) == ["sigma", "s", "z", "gate", "s", "z"]
