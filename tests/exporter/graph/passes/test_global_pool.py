"""The pass GlobalPool: match, refusal, numerics, ONNX checker, second run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.graph.passes.global_pool import GlobalPool, refusal
from support.graphs import run_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3, 5, 7] x) => (float[n, 3, 1, 1] y)
<int64[2] axes = {AXES}>
{
  y = {OP} <keepdims = 1> (x, axes)
}
"""


def model(operator: str = "ReduceMean", axes: str = "{2, 3}") -> ir.Model:
    return ir.from_onnx_text(GRAPH.replace("{OP}", operator).replace("{AXES}", axes))


@pytest.mark.parametrize(("operator", "pool"), [("ReduceMean", "GlobalAveragePool"), ("ReduceMax", "GlobalMaxPool")])
@pytest.mark.parametrize("axes", ["{2, 3}", "{-2, -1}"])
def test_matches_and_computes_the_same(operator: str, pool: str, axes: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 7), dtype=np.float32)
    graph = model(operator, axes)
    before = run_graph(graph, {"x": x})[0]
    assert GlobalPool()(graph) == 1
    assert [node.op_type for node in graph.graph] == [pool]
    np.testing.assert_allclose(run_graph(graph, {"x": x})[0], before, rtol=0, atol=1e-6)


def test_second_run_changes_nothing() -> None:
    graph = model()
    GlobalPool()(graph)
    text = str(graph)
    assert GlobalPool()(graph) == 0
    assert str(graph) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GRAPH.replace("{OP}", "ReduceMean").replace("{AXES}", "{1, 2}"), "the axes are [1, 2], not height and width"),
        (
            GRAPH.replace("{OP} <keepdims = 1>", "ReduceMean <keepdims = 0>")
            .replace("{AXES}", "{2, 3}")
            .replace("float[n, 3, 1, 1] y", "float[n, 3] y"),
            "keepdims is 0",
        ),
        (
            GRAPH.replace("{OP}", "ReduceMean")
            .replace("<int64[2] axes = {AXES}>", "")
            .replace("7] x)", "7] x, int64[2] axes)"),
            "the axes are not constant",
        ),
        (
            GRAPH.replace("{OP}", "ReduceMean")
            .replace("{AXES}", "{2, 3}")
            .replace("[n, 3, 5, 7]", "[n, 3, 5, 7, 2]")
            .replace("[n, 3, 1, 1]", "[n, 3, 1, 1, 2]"),
            "the input does not have four axes",
        ),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    graph = ir.from_onnx_text(text)
    (node,) = graph.graph
    assert refusal(node) == reason
    assert GlobalPool()(graph) == 0
    assert node.op_type == "ReduceMean"
