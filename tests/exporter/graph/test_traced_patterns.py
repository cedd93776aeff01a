"""Forms that the traced graphs have without any pass, and that engines fuse or demand: here they are held fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from align_reference.checkpoint import load_model

TEXT_GRAPHS = ("text_model", "text_model_cpu")


def graph(bundle: Path, name: str) -> ir.Graph:
    return ir.load(bundle / "onnx" / f"{name}.onnx").graph


def nodes(graph: ir.Graph, operator: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == operator]


def producer(node: ir.Node, index: int = 0) -> ir.Node | None:
    value = node.inputs[index]
    return None if value is None else value.producer()


def constant(node: ir.Node, index: int) -> np.ndarray:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mask_addends(graph: ir.Graph) -> list[str | None]:
    """What is added to the scores of each layer."""
    sums = [producer(softmax) for softmax in nodes(graph, "Softmax")]
    assert all(addition is not None and addition.op_type == "Add" for addition in sums)
    return [addition.inputs[1].name for addition in sums if addition is not None and addition.inputs[1] is not None]


@pytest.mark.parametrize("name", TEXT_GRAPHS)
def test_the_mask_is_brought_to_its_form_once(tiny_bundle: Path, tiny_checkpoint: Path, name: str) -> None:
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
    """How many positions to look up; every Reshape's target is constant."""
    text = graph(tiny_bundle, "text_model")
    assert len(nodes(text, "Shape")) == 1
    assert nodes(text, "Concat") == []
    for node in nodes(text, "Reshape"):
        assert constant(node, 1).size in (2, 3, 4)


# ── vision ───────────────────────────────────────────────────────────────────────────────────────────────────────────


SQUEEZE_EXCITE = ["Sigmoid", "Conv", "Mul", "Conv", "GlobalAveragePool"]  # upstream from the product


def squeeze_excites(graph: ir.Graph) -> int:
    """How many feature maps are gated in the form that engines know: pool, 1×1, swish, 1×1, sigmoid, product."""
    return sum(is_squeeze_excite(node) for node in nodes(graph, "Mul"))


def is_squeeze_excite(product: ir.Node) -> bool:
    way, node = [], producer(product, 1)
    while node is not None and len(way) < len(SQUEEZE_EXCITE):
        way.append(node)
        node = producer(node)
    if [node.op_type for node in way] != SQUEEZE_EXCITE:
        return False
    _gate, expand, swish, reduce, pool = way
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
    pool.replace_input_with(0, vision.inputs[0])  # pools something else than it gates
    assert squeeze_excites(vision) == before - 1


def test_the_end_is_a_global_pool_and_a_flattening(tiny_bundle: Path) -> None:
    vision = graph(tiny_bundle, "vision_model")
    *_, pool, flatten, norm, division = vision
    assert [pool.op_type, flatten.op_type, norm.op_type, division.op_type] == [
        "GlobalAveragePool", "Reshape", "ReduceL2", "Div",
    ]  # fmt: skip
    dim = vision.outputs[0].shape[1]
    assert constant(flatten, 1).tolist() == [-1, dim]


def test_pixels_are_cast_before_anything_else(tiny_bundle: Path) -> None:
    """TensorRT takes bytes as an input of the network only where a Cast follows at once."""
    (pixels,) = graph(tiny_bundle, "vision_model").inputs
    assert pixels.dtype == ir.DataType.UINT8
    assert [use.node.op_type for use in pixels.uses()] == ["Cast"]


# ── all ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["vision_model", *TEXT_GRAPHS])
def test_no_initializer_is_there_twice(tiny_bundle: Path, name: str) -> None:
    """The tracer shares equal constants; a pass that shares them finds nothing, here and in the published sizes."""
    constants = [value.const_value for value in graph(tiny_bundle, name).initializers.values()]
    contents = {(tensor.dtype, tuple(tensor.shape), tensor.tobytes()) for tensor in constants if tensor is not None}
    assert len(contents) == len(constants) > 50
