"""Placement of Q/DQ in a graph for TensorRT."""

from __future__ import annotations

import pytest

from align_exporter.int8.qdq_placement import place_qdq, shortcut_of
from support.graphs import typed

# A convolution with its swish, squeeze-excite, a depthwise convolution, and a residual.
BLOCK = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y)
<float[8, 8, 1, 1] w = {W64}, float[8] b = {B8}, float[8, 1, 3, 3] d = {W72}>
{
  [input] i = Tanh (x)
  [expand] a = Conv (i, w, b)
  [expand_sigmoid] s = Sigmoid (a)
  [expand_swish] h = Mul (a, s)
  [depthwise] c = Conv <group = 8, pads = [1, 1, 1, 1]> (h, d, b)
  [pool] q = GlobalAveragePool (c)
  [reduce] t = Conv (q, w, b)
  [gates] u = Sigmoid (t)
  [excite] e = Mul (c, u)
  [project] o = Conv (e, w, b)
  [end] y = Add (o, i)
}
"""
for size in (64, 72):
    BLOCK = BLOCK.replace(f"{{W{size}}}", "{" + ", ".join(["0.25"] * size) + "}")
BLOCK = BLOCK.replace("{B8}", "{" + ", ".join(["0.5"] * 8) + "}")


def readers(text: str) -> dict[str, list[str]]:
    return {
        value.name or "": [node.name or "" for node in nodes]
        for value, nodes in place_qdq(typed(text).graph).readers.items()
    }


def weighted(text: str) -> list[str]:
    return [node.name or "" for node in place_qdq(typed(text).graph).weighted_nodes]


def test_a_block_with_a_residual() -> None:
    assert weighted(BLOCK) == ["expand", "depthwise", "project"]
    assert readers(BLOCK) == {
        "i": ["expand", "end"],  # one pair for the convolution and the residual; the branch "o" has none
        "h": ["depthwise"],  # behind the swish; "a" and "s" inside it have none
        "c": ["pool", "excite"],
        "e": ["project"],
    }


@pytest.mark.parametrize("order", ["(o, i)", "(i, o)"])
def test_the_shortcut_is_the_summand_that_is_not_the_end_of_the_branch(order: str) -> None:
    graph = typed(BLOCK.replace("(o, i)", order)).graph
    shortcut = shortcut_of(graph.node("end"))
    assert shortcut is not None
    assert shortcut.name == "i"


def test_of_two_convolutions_the_one_with_another_reader_is_the_shortcut() -> None:
    """The first block of a stage ends with a convolution that the second block adds to."""
    text = BLOCK.replace("[input] i = Tanh (x)", "[input] i = Conv (x, w, b)")
    assert readers(text)["i"] == ["expand", "end"]


def test_a_block_without_a_residual_has_no_qdq_in_squeeze_excite() -> None:
    text = BLOCK.replace("Add (o, i)", "Tanh (o)")
    assert readers(text) == {"i": ["expand"], "h": ["depthwise"], "e": ["project"]}


@pytest.mark.parametrize(
    ("channels", "kernel", "pads", "wanted"),
    [(8, 3, 1, True), (8, 5, 2, True), (8, 1, 0, False), (12, 3, 1, False), (16, 3, 1, True)],
)
def test_depthwise_convolutions_need_channels_in_eights_and_a_kernel_of_three(
    channels: int, kernel: int, pads: int, wanted: bool
) -> None:
    weights = ", ".join(["1"] * (channels * kernel * kernel))
    text = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, {channels}, 8, 8] x) => (float[n, {channels}, 8, 8] y)
<float[{channels}, 1, {kernel}, {kernel}] d = {{{weights}}}>
{{
  [depthwise] y = Conv <group = {channels}, pads = [{pads}, {pads}, {pads}, {pads}]> (x, d)
}}
"""
    assert weighted(text) == (["depthwise"] if wanted else [])
    assert readers(text) == ({"x": ["depthwise"]} if wanted else {})


def test_dense_layers_are_quantized_and_products_in_attention_are_not() -> None:
    text = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 4] y)
<float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
{
  [query] a = MatMul (x, w)
  [key] b = MatMul (x, w)
  t = Transpose <perm = [1, 0]> (b)
  [scores] s = MatMul (a, t)
  [softmax] p = Softmax (s)
  [heads] h = MatMul (p, b)
  [projection] y = Gemm <transB = 1> (h, w)
}
"""
    assert weighted(text) == ["query", "key", "projection"]
    assert readers(text) == {"x": ["query", "key"], "h": ["projection"]}


def test_a_sum_with_a_constant_has_no_shortcut() -> None:
    text = BLOCK.replace("[end] y = Add (o, i)", "[sum] k = Add (o, one)\n  [end] y = Add (k, i)")
    text = text.replace("float[8] b", "float[1] one = {1}, float[8] b")
    graph = typed(text).graph
    assert shortcut_of(graph.node("sum")) is None
    assert shortcut_of(graph.node("end")) is None  # neither summand is the output of a convolution
