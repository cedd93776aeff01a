"""Graphs of a bundle rewritten as an idea would have them, so that its gain is measured before it is built.

Each function takes the graph as ONNX and changes it in place; the embeddings stay the same up to rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CONTRIB = "com.microsoft"  # domain of ONNX Runtime's own operators
UNIT = "ideas/one"


def with_additions(model: onnx.ModelProto) -> None:
    """Undoes `align_exporter.graph.passes.unfused_sum`: ONNX Runtime fuses these sums with what reads them."""
    for node in model.graph.node:
        if node.op_type == "Sum":
            node.op_type = "Add"


def with_scaled_products(model: onnx.ModelProto) -> None:
    """Has the integer products of a text graph multiply by the scales of their columns themselves:
    MatMulInteger, Cast and Mul become ONNX Runtime's MatMulIntegerToFloat."""
    graph, readers = model.graph, _readers(model)
    graph.initializer.append(numpy_helper.from_array(np.float32(1), UNIT))
    for product in [node for node in graph.node if node.op_type == "MatMulInteger"]:
        (cast,) = readers[product.output[0]]
        (scaled,) = readers[cast.output[0]]
        (scale,) = (name for name in scaled.input if name != cast.output[0])
        features, weights, zero, zeros = product.input
        inputs = [features, weights, UNIT, scale, zero, zeros]
        fused = helper.make_node("MatMulIntegerToFloat", inputs, scaled.output, product.name, domain=CONTRIB)
        _replace(graph, [product, cast, scaled], [fused])
    model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def with_one_projection(model: onnx.ModelProto) -> None:
    """Computes the products of one tensor, query, key and value, as one, in a graph `with_scaled_products`."""
    graph, readers, values = model.graph, _readers(model), _constants(model)
    products = defaultdict(list)
    for node in graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            products[node.input[0]].append(node)
    for group in (group for group in products.values() if len(group) > 1):
        rows = [_only(readers, product) for product in group]
        sums = [_only(readers, row) for row in rows]
        (step,) = (name for name in rows[0].input if name != group[0].output[0])
        prefix = f"{group[0].name}/all"
        parts = {
            "weights": np.concatenate([values[node.input[1]] for node in group], axis=1),
            "scales": np.concatenate([values[node.input[3]] for node in group]),
            "zeros": np.concatenate([values[node.input[5]] for node in group]),
            "bias": np.concatenate([values[name] for node in sums for name in node.input if name in values]),
            "sizes": np.array([values[node.input[1]].shape[1] for node in group]),
        }
        graph.initializer.extend(numpy_helper.from_array(part, f"{prefix}/{name}") for name, part in parts.items())
        weights, scales, zeros, bias, sizes = (f"{prefix}/{name}" for name in parts)
        product, row, total = (f"{prefix}/{name}" for name in ("product", "row", "sum"))
        inputs = [group[0].input[0], weights, UNIT, scales, group[0].input[4], zeros]
        new = [
            helper.make_node("MatMulIntegerToFloat", inputs, [product], domain=CONTRIB),
            helper.make_node("Mul", [product, step], [row]),
            helper.make_node("Add", [row, bias], [total]),
            helper.make_node("Split", [total, sizes], [node.output[0] for node in sums], axis=-1),
        ]
        _replace(graph, [*group, *rows, *sums], new)


def in_strips(model: onnx.ModelProto, strips: int, least: int) -> int:
    """Computes expansion, swish and depthwise convolution of the blocks whose feature maps have `least` rows or more in
    so many `strips` of rows, one after the other; returns the number of these blocks."""
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    graph, producers = model.graph, {name: node for node in model.graph.node for name in node.output}
    axis = numpy_helper.from_array(np.array([2]), "ideas/height")
    graph.initializer.append(axis)
    found = [
        block
        for node in graph.node
        if (block := _expanded(node, producers)) is not None and shapes[block[0].input[0]][2] >= least
    ]
    for block in found:
        expansion, depthwise = block[0], block[-1]
        rows, outputs = shapes[expansion.input[0]][2], shapes[depthwise.output[0]][2]
        edges = np.linspace(0, outputs, strips + 1).astype(int).tolist()
        new, pieces = list[onnx.NodeProto](), list[str]()
        for start, end in pairwise(edges):
            prefix = f"{depthwise.name}/rows{start}"
            new += _strip(graph, block, prefix, axis.name, (start, end, rows))
            pieces.append(f"{prefix}/{depthwise.op_type}")
        _replace(graph, block, [*new, helper.make_node("Concat", pieces, depthwise.output, axis=2)])
    return len(found)


def _expanded(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]
) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, onnx.NodeProto] | None:
    """Expansion, sigmoid, product and depthwise convolution, if `node` is the last of these."""
    product = producers.get(node.input[0]) if node.op_type == "Conv" else None
    if product is None or product.op_type != "Mul" or _attributes(node)["group"] == 1:
        return None
    behind = [producers[name] for name in product.input if name in producers]
    sigmoid = next((part for part in behind if part.op_type == "Sigmoid"), None)
    expansion = producers.get(sigmoid.input[0]) if sigmoid is not None else None
    if sigmoid is None or expansion is None or _attributes(expansion).get("kernel_shape") != [1, 1]:
        return None
    return expansion, sigmoid, product, node


def _strip(
    graph: onnx.GraphProto,
    block: Sequence[onnx.NodeProto],
    prefix: str,
    axis: str,
    rows: tuple[int, int, int],
) -> list[onnx.NodeProto]:
    """What computes the rows from the first to before the second of `rows` of the last node of `block`, of which the
    first one reads so many rows as the third says."""
    expansion, sigmoid, product, depthwise = block
    start, end, count = rows
    attributes = _attributes(depthwise)
    top, left, _, right = attributes["pads"]
    stride, kernel = attributes["strides"][0], attributes["kernel_shape"][0]
    low, high = start * stride - top, (end - 1) * stride - top + kernel
    bounds = {"low": max(low, 0), "high": min(high, count)}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([bound]), f"{prefix}/{name}") for name, bound in bounds.items()
    )
    attributes["pads"] = [max(-low, 0), left, max(high - count, 0), right]
    part, wide, gate, gated = (f"{prefix}/{name}" for name in ("part", "wide", "gate", "gated"))
    return [
        helper.make_node("Slice", [expansion.input[0], f"{prefix}/low", f"{prefix}/high", axis], [part]),
        helper.make_node("Conv", [part, *expansion.input[1:]], [wide], **_attributes(expansion)),
        helper.make_node(sigmoid.op_type, [wide], [gate]),
        helper.make_node(product.op_type, [wide, gate], [gated]),
        helper.make_node("Conv", [gated, *depthwise.input[1:]], [f"{prefix}/Conv"], **attributes),
    ]


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _readers(model: onnx.ModelProto) -> Mapping[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def _only(readers: Mapping[str, list[onnx.NodeProto]], node: onnx.NodeProto) -> onnx.NodeProto:
    """The node that alone reads what `node` gives."""
    (reader,) = readers[node.output[0]]
    return reader


def _constants(model: onnx.ModelProto) -> Mapping[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _replace(graph: onnx.GraphProto, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
    """Puts `new` in the place of the first of `old`."""
    names = {node.output[0] for node in old}
    nodes = list(graph.node)
    place = next(index for index, node in enumerate(nodes) if node.output[0] in names)
    kept = [node for node in nodes if node.output[0] not in names]
    del graph.node[:]
    graph.node.extend([*kept[:place], *new, *kept[place:]])
