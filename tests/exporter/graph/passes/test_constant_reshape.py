"""The pass ConstantReshape: match, refusal, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.graph.ir_helpers import constant_values, operand
from align_exporter.graph.passes.constant_reshape import ConstantReshape, refusal
from support.graphs import run_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, s, 6] x, int64[n, s] mask) => (float[n, s, 2, 3] y)
<int64[1] heads = {2}, int64[1] size = {3}>
{
  batch = Shape <start = 0, end = 1> (mask)
  sequence = Shape <start = 1, end = 2> (mask)
  target = Concat <axis = 0> (batch, sequence, heads, size)
  y = Reshape <allowzero = 1> (x, target)
}
"""
WHOLE_SHAPE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, s, 6] x, int64[n, s] mask) => (float[n, s, 2, 3] y)
<int64[2] head_sizes = {2, -1}>
{
  sizes = Shape (mask)
  target = Concat <axis = 0> (sizes, head_sizes)
  y = Reshape (x, target)
}
"""


def evaluate(model: ir.Model, batch: int = 2, sequence: int = 5) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((batch, sequence, 6), dtype=np.float32)
    return run_graph(model, {"x": x, "mask": np.ones((batch, sequence), np.int64)})[0]


def targets(model: ir.Model) -> list[list[int]]:
    reshapes = [node for node in model.graph if node.op_type == "Reshape"]
    return [constant_values(operand(node, 1)).tolist() for node in reshapes]


@pytest.mark.parametrize(("text", "target"), [(GRAPH, [0, 0, 2, 3]), (WHOLE_SHAPE, [0, 0, 2, -1])])
@pytest.mark.parametrize("sizes", [(2, 5), (1, 1), (3, 2)])
def test_matches_and_computes_the_same(text: str, target: list[int], sizes: tuple[int, int]) -> None:
    model = ir.from_onnx_text(text)
    before = evaluate(model, *sizes)
    assert ConstantReshape()(model) == 1
    assert targets(model) == [target]
    after = evaluate(model, *sizes)
    assert after.shape == before.shape
    np.testing.assert_array_equal(after, before)


def test_a_target_that_is_there_already_is_read() -> None:
    """By the reshape of an earlier run; the name says the values."""
    model = ir.from_onnx_text(GRAPH)
    made = ir.from_onnx_text(GRAPH)
    ConstantReshape()(made)
    target = next(node for node in made.graph if node.op_type == "Reshape").inputs[1]
    assert target is not None
    model.graph.register_initializer(ir.Value(name=target.name, const_value=target.const_value))
    assert ConstantReshape()(model) == 1
    assert targets(model) == [[0, 0, 2, 3]]


def test_an_empty_batch_gives_an_empty_result() -> None:
    model = ir.from_onnx_text(GRAPH)
    ConstantReshape()(model)
    assert evaluate(model, batch=0).shape == (0, 5, 2, 3)


def test_equal_targets_share_one_initializer() -> None:
    twice = "y_ = Reshape (x, target)\n  z_ = Reshape (x, target)\n  y = Add (y_, z_)"
    model = ir.from_onnx_text(GRAPH.replace("y = Reshape <allowzero = 1> (x, target)", twice))
    before = evaluate(model)
    assert ConstantReshape()(model) == 2
    assert targets(model) == [[0, 0, 2, 3]] * 2
    assert len(model.graph.initializers) == 3
    np.testing.assert_array_equal(evaluate(model), before)


def test_second_run_changes_nothing() -> None:
    model = ir.from_onnx_text(GRAPH)
    ConstantReshape()(model)
    text = str(model)
    assert ConstantReshape()(model) == 0
    assert str(model) == text


def changed(*replacements: tuple[str, str]) -> str:
    text = GRAPH
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            changed(
                ("Concat <axis = 0> (batch, sequence, heads, size)", "Identity (given)"),
                ("<int64[1] heads", "<int64[4] given = {2, 5, 2, 3}, int64[1] heads"),
            ),
            "the target is not a Concat of sizes",
        ),
        (
            changed(("(x, target)", "(x_, target)"), ("  target", "  x_ = Unknown (x)\n  target")),
            "the shape of the input is not known",
        ),
        (
            changed(("  target", "  more = Add (heads, heads)\n  target"), ("heads, size)", "more, size)")),
            "a part of the target is neither constant nor read from a shape",
        ),
        (
            changed(("(batch, sequence,", "(sequence, batch,")),
            "size 0 of the target is not the size of the input's axis 0",
        ),
        (
            changed(("int64[n, s] mask", "int64[n, t] mask")),
            "size 1 of the target is not the size of the input's axis 1",
        ),
        (
            changed(("float[n, s, 6] x, int64[n, s] mask", "float[?, ?, 6] x, int64[?, ?] mask")),
            "size 0 of the target is not the size of the input's axis 0",
        ),
        (changed(("heads = {2}", "heads = {0}")), "size 2 of the target is 0"),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    model = ir.from_onnx_text(text)
    node = next(node for node in model.graph if node.op_type == "Reshape")
    assert refusal(node) == reason
    before = str(model)
    assert ConstantReshape()(model) == 0
    assert str(model) == before
