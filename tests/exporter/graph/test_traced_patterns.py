"""Patterns that engines fuse or require and that the traced graphs have without a pass: they must not get lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from align_exporter.graph.ir_helpers import constant_values, operand
from align_reference.checkpoint import load_model

TEXT_GRAPHS = ("text_model", "text_model_cpu")


def graph(bundle: Path, name: str) -> ir.Graph:
    return ir.load(bundle / "onnx" / f"{name}.onnx").graph


def nodes(graph: ir.Graph, operator: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == operator]


def producer(node: ir.Node, index: int = 0) -> ir.Node | None:
    return operand(node, index).producer()


def constant(node: ir.Node, index: int) -> np.ndarray:
    return constant_values(operand(node, index))


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mask_addends(graph: ir.Graph) -> list[str | None]:
    """Names of the tensors that are added to the attention scores, one per layer."""
    sums = [producer(softmax) for softmax in nodes(graph, "Softmax")]
    assert all(addition is not None and addition.op_type == "Add" for addition in sums)
    return [operand(addition, 1).name for addition in sums if addition is not None]


@pytest.mark.parametrize("name", TEXT_GRAPHS)
def test_the_attention_mask_is_computed_once(tiny_bundle: Path, tiny_checkpoint: Path, name: str) -> None:
    text = graph(tiny_bundle, name)
    addends = mask_addends(text)
    assert len(addends) == load_model(tiny_checkpoint).config.text.num_hidden_layers
    assert len(set(addends)) == 1
    to_float = [node for node in nodes(text, "Cast") if node.attributes.get_int("to") == onnx.TensorProto.FLOAT]
    assert len(to_float) == 1


def test_a_second_mask_is_noticed(tiny_bundle: Path) -> None:
    text = graph(tiny_bundle, "text_model")
    addition = producer(nodes(text, "Softmax")[-1])
    assert addition is not None
    addition.replace_input_with(1, addition.inputs[0])
    assert len(set(mask_addends(text))) == 2


def test_the_plain_text_graph_computes_one_size(tiny_bundle: Path) -> None:
    """It is the number of positions to look up; the target of every Reshape is constant."""
    text = graph(tiny_bundle, "text_model")
    assert len(nodes(text, "Shape")) == 1
    assert nodes(text, "Concat") == []
    for node in nodes(text, "Reshape"):
        assert constant(node, 1).size in (2, 3, 4)


# ── vision ───────────────────────────────────────────────────────────────────────────────────────────────────────────


SQUEEZE_EXCITE = ["Sigmoid", "Conv", "Mul", "Conv", "GlobalAveragePool"]  # upstream from the product


def squeeze_excites(graph: ir.Graph) -> int:
    """The number of squeeze-excites in the pattern that engines fuse: pool, 1×1, swish, 1×1, sigmoid, product."""
    return sum(is_squeeze_excite(node) for node in nodes(graph, "Mul"))


def is_squeeze_excite(product: ir.Node) -> bool:
    path, node = [], producer(product, 1)
    while node is not None and len(path) < len(SQUEEZE_EXCITE):
        path.append(node)
        node = producer(node)
    if [node.op_type for node in path] != SQUEEZE_EXCITE:
        return False
    _gate, expand, swish, reduce, pool = path
    sigmoid = producer(swish, 1)
    assert sigmoid is not None
    return (
        constant(expand, 1).shape[2:] == constant(reduce, 1).shape[2:] == (1, 1)
        and (sigmoid.op_type, sigmoid.inputs[0]) == ("Sigmoid", swish.inputs[0])
        and pool.inputs[0] is product.inputs[0]
    )


def test_squeeze_excite_is_canonical_in_every_block(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    blocks = load_model(tiny_checkpoint).config.vision.num_blocks
    assert squeeze_excites(graph(tiny_bundle, "vision_model")) == blocks >= 16


def test_another_squeeze_excite_is_noticed(tiny_bundle: Path) -> None:
    vision = graph(tiny_bundle, "vision_model")
    before = squeeze_excites(vision)
    pool = nodes(vision, "GlobalAveragePool")[0]
    pool.replace_input_with(0, vision.inputs[0])  # pools another tensor than the one that is gated
    assert squeeze_excites(vision) == before - 1


def test_the_tower_ends_with_a_global_pool_and_a_reshape(tiny_bundle: Path) -> None:
    vision = graph(tiny_bundle, "vision_model")
    *_, pool, flatten, norm, division = vision
    assert [pool.op_type, flatten.op_type, norm.op_type, division.op_type] == [
        "GlobalAveragePool", "Reshape", "ReduceL2", "Div",
    ]  # fmt: skip
    dim = vision.outputs[0].shape[1]
    assert constant(flatten, 1).tolist() == [-1, dim]


def test_pixels_are_read_by_a_cast_alone(tiny_bundle: Path) -> None:
    """TensorRT accepts a uint8 input of a network only if a Cast reads it."""
    (pixels,) = graph(tiny_bundle, "vision_model").inputs
    assert pixels.dtype == ir.DataType.UINT8
    assert [use.node.op_type for use in pixels.uses()] == ["Cast"]


# ── all ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["vision_model", *TEXT_GRAPHS])
def test_no_two_initializers_are_equal(tiny_bundle: Path, name: str) -> None:
    """The tracer merges equal constants; a pass for it would find nothing, here and in the published size."""
    constants = [value.const_value for value in graph(tiny_bundle, name).initializers.values()]
    contents = {(tensor.dtype, tuple(tensor.shape), tensor.tobytes()) for tensor in constants if tensor is not None}
    assert len(contents) == len(constants) > 50
