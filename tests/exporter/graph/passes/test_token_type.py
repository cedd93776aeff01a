"""The pass FoldTokenType: match, refusal, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.graph.passes.token_type import FoldTokenType, refusal
from support.graphs import constants, run_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[n, s] ids, int64[1, s] places) => (float[n, s, 2] y)
<int64 zero = {0}, float[4, 2] words = {1, 2, 3, 4, 5, 6, 7, 8}, float[2, 2] types = {10, 20, 30, 40},
 float[3, 2] positions = {100, 200, 300, 400, 500, 600}>
{
  shape = Shape (ids)
  zeros = Expand (zero, shape)
  w = Gather (words, ids)
  t = Gather (types, zeros)
  p = Gather (positions, places)
  a = Add (w, t)
  y = Add (a, p)
}
"""
SLICE = "size = Shape <start = 1> (places)\n  p = Slice (positions, first, size, first)"
SLICED = GRAPH.replace("p = Gather (positions, places)", SLICE).replace(
    "<int64 zero", "<int64[1] first = {0}, int64 zero"
)


def evaluate(model: ir.Model) -> np.ndarray:
    return run_graph(model, {"ids": np.array([[3, 1, 0], [2, 2, 1]]), "places": np.array([[0, 1, 2]])})[0]


@pytest.mark.parametrize(
    "text",
    [
        GRAPH,
        GRAPH.replace("Add (w, t)", "Add (t, w)"),
        GRAPH.replace("Add (a, p)", "Add (p, a)"),
        GRAPH.replace("float[2, 2] types = {10, 20, 30, 40}", "float[1, 2] types = {10, 20}"),
        SLICED,
    ],
)
def test_matches_and_computes_the_same(text: str) -> None:
    model = ir.from_onnx_text(text)
    before = evaluate(model)
    table = constants(model)["positions"]
    kept = table.copy()
    assert FoldTokenType()(model) == 1
    operators = [node.op_type for node in model.graph if node.op_type in ("Gather", "Slice", "Add")]
    assert operators in (["Gather", "Gather", "Add"], ["Gather", "Slice", "Add"])
    np.testing.assert_array_equal(evaluate(model), before)  # small integers: no rounding
    np.testing.assert_array_equal(table, kept)  # the traced tensor is a parameter of the reference


def test_other_readers_of_the_table_of_positions_keep_it() -> None:
    """The three tables are equal, so that the tracer merges them."""
    text = GRAPH.replace("(words, ids)", "(table, ids)").replace("(types, zeros)", "(table, zeros)")
    text = text.replace("(positions, places)", "(table, places)").replace("float[4, 2] words", "float[4, 2] table")
    model = ir.from_onnx_text(text)
    before = evaluate(model)
    assert FoldTokenType()(model) == 1
    np.testing.assert_array_equal(evaluate(model), before)
    np.testing.assert_array_equal(constants(model)["table"], [[1, 2], [3, 4], [5, 6], [7, 8]])


def test_second_run_changes_nothing() -> None:
    model = ir.from_onnx_text(GRAPH)
    FoldTokenType()(model)
    text = str(model)
    assert FoldTokenType()(model) == 0
    assert str(model) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GRAPH.replace("int64 zero = {0}", "int64 zero = {1}"), "the indices are not an expanded 0"),
        (GRAPH.replace("Gather (types, zeros)", "Gather (types, ids)"), "the indices are not an expanded 0"),
        (
            GRAPH.replace("Gather (types, zeros)", "Gather <axis = 1> (types, zeros)").replace(
                "Add (w, t)", "Add (w, w)"
            ),
            "the table is not a constant looked up by rows",
        ),
        (
            GRAPH.replace("Gather (types, zeros)", "Gather (made, zeros)").replace(
                "  w = ", "  made = Neg (types)\n  w = "
            ),
            "the table is not a constant looked up by rows",
        ),
        (GRAPH.replace("Add (a, p)", "Sub (a, p)"), "its rows are not added to two others and to nothing else"),
        (
            GRAPH.replace("y = Add", "z = Neg (t)\n  y = Add"),
            "its rows are not added to two others and to nothing else",
        ),
        (
            GRAPH.replace("y = Add", "z = Neg (p)\n  y = Add"),
            "the last summand is not looked up in a constant table for this sum alone",
        ),
        (
            GRAPH.replace("p = Gather (positions, places)", "p_ = Gather (positions, places)\n  p = Neg (p_)"),
            "the last summand is not looked up in a constant table for this sum alone",
        ),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    model = ir.from_onnx_text(text)
    node = next(node for node in model.graph if node.outputs[0].name == "t")
    assert refusal(node) == reason
    before = str(model)
    assert FoldTokenType()(model) == 0
    assert str(model) == before
