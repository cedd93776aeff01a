"""The passes ReadableNames and RemoveUnused: what they change and keep, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from align_exporter.graph.passes.clean_up import SCOPES_KEY, ReadableNames, RemoveUnused
from support.graphs import run_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y)
<float[2, 2, 1, 1] "block.conv.weight" = {1, 2, 3, 4}, float[2] "block.conv.weight_bias" = {1, 2}, float val_7 = {3}>
{
  a = Conv (x, "block.conv.weight", "block.conv.weight_bias")
  b = Mul (a, val_7)
  c = Mul (b, b)
  y = Add (c, val_7)
}
"""
SCOPES = [
    "['', 'block', 'block.bn', '_native_batch_norm']",
    "['', 'block', 'mul']",
    "['', 'block', 'mul_1']",
    "['', 'add']",
]


def traced() -> ir.Model:
    model = ir.from_onnx_text(GRAPH)
    for node, scopes in zip(model.graph, SCOPES, strict=True):
        node.metadata_props[SCOPES_KEY] = scopes
        node.metadata_props["pkg.torch.onnx.stack_trace"] = 'File "/home/someone/model.py"'
        node.doc_string = "/home/someone"
    model.graph.metadata_props["signature"] = "p_block_conv_weight"
    return model


def test_names_follow_the_modules() -> None:
    model = traced()
    assert ReadableNames()(model) > 0
    assert [node.name for node in model.graph] == ["block.conv/Conv", "block/Mul", "block/Mul_2", "Add"]
    assert [node.outputs[0].name for node in model.graph] == ["block.conv/Conv", "block/Mul", "block/Mul_2", "y"]
    assert set(model.graph.initializers) == {"block.conv.weight", "block.conv/Conv.2", "block/Mul.1"}


SHARED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y)
<float[2, 2, 1, 1] "blocks.0.conv.weight" = {1, 2, 3, 4}, float[2] "blocks.0.conv.weight_bias" = {1, 2}>
{
  a = Conv (x, "blocks.0.conv.weight", "blocks.0.conv.weight_bias")
  b = Conv (a, "blocks.0.conv.weight", "blocks.0.conv.weight_bias")
  c = Conv (b, "blocks.0.conv.weight")
  y = Identity (c)
}
"""
SHARED_SCOPES = [
    "['', 'blocks.0', 'blocks.0.bn', '_native_batch_norm']",
    "['', 'blocks.1', 'blocks.1.bn', '_native_batch_norm_1']",
    "['', 'blocks.2', 'blocks.2.gate', 'conv2d_2']",
    "['', 'identity']",
]


def test_a_convolution_whose_weight_is_equal_to_another_is_named_after_its_own_module() -> None:
    model = ir.from_onnx_text(SHARED)
    for node, scopes in zip(model.graph, SHARED_SCOPES, strict=True):
        node.metadata_props[SCOPES_KEY] = scopes
    ReadableNames()(model)
    names = [node.name for node in model.graph]
    assert names == ["blocks.0.conv/Conv", "blocks.1.conv/Conv", "blocks.2.gate/Conv", "Identity"]
    assert set(model.graph.initializers) == {"blocks.0.conv.weight", "blocks.0.conv/Conv.2"}


def test_no_metadata_of_the_machine_is_left() -> None:
    model = traced()
    ReadableNames()(model)
    assert b"someone" not in ir.to_proto(model).SerializeToString()
    assert b"pkg." not in ir.to_proto(model).SerializeToString()
    assert not model.graph.metadata_props


def test_computes_the_same_and_is_valid() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4), dtype=np.float32)
    results = []
    for rename in (False, True):
        model = traced()
        if rename:
            ReadableNames()(model)
        results.append(run_graph(model, {"x": x})[0])
    np.testing.assert_array_equal(results[0], results[1])


def test_a_second_renaming_changes_nothing() -> None:
    model = traced()
    ReadableNames()(model)
    text = str(model)
    assert ReadableNames()(model) == 0
    assert str(model) == text


def test_ignores_nodes_without_the_metadata_of_the_tracer() -> None:
    model = ir.from_onnx_text(GRAPH)
    names = [node.name for node in model.graph]
    assert ReadableNames()(model) == 0
    assert [node.name for node in model.graph] == names


UNUSED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n] x, float[n] spare) => (float[n] y)
<float two = {2}, float left = {3}>
{
  dead = Mul (x, left)
  y = Mul (x, two)
}
"""


def test_removes_what_no_node_reads_and_keeps_inputs_and_outputs() -> None:
    model = ir.from_onnx_text(UNUSED)
    x = np.arange(3, dtype=np.float32)
    assert RemoveUnused()(model) == 2
    assert [node.outputs[0].name for node in model.graph] == ["y"]
    assert set(model.graph.initializers) == {"two"}
    assert [value.name for value in model.graph.inputs] == ["x", "spare"]
    np.testing.assert_array_equal(run_graph(model, {"x": x, "spare": x})[0], 2 * x)


def test_a_second_removal_changes_nothing() -> None:
    model = ir.from_onnx_text(UNUSED)
    RemoveUnused()(model)
    text = str(model)
    assert RemoveUnused()(model) == 0
    assert str(model) == text
