"""Where a graph for TensorRT is quantised: which tensors, for which readers, and which weights.

TensorRT builds a graph as it is written. It fuses DequantizeLinear into the operator behind it and QuantizeLinear into
the one before it, so a pair at the wrong place is a conversion that is really computed. The rules are those of NVIDIA's
documentation (Working with Quantized Types, "Q/DQ placement recommendations") and of its EfficientNet recipe:

- both operands of a product: the feature map of a convolution, the rows of a dense layer, and the weights;
- a swish keeps its operands bare, Conv → Sigmoid → Mul becomes one kernel; its result is quantised where it is read;
- at a residual sum the shortcut is quantised and the convolution's branch is bare, for the sum is part of its kernel;
- the feature map behind a depthwise convolution is quantised once for the global mean and the product with the gates:
  it is the largest tensor of a block, and EfficientNet on a GPU is bound by memory. Not so in blocks without a
  residual, whose gates FP16 spares as well (fp16/rules.py): the mean square error of align-tiny's embeddings is 0.0168
  and 0.0164 on two draws of 128 images with all blocks, 0.0157 and 0.0148 without these, 0.0157 and 0.0143 with none;
- depthwise convolutions only with channels in eights and kernels of 3 and more, for others there is no INT8 kernel;
- squeeze-excite's convolutions see one pixel and stay float;
- attention's two products of activations stay float, where TensorRT fuses them with the softmax between them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from align_exporter.fp16.rules import gate, undiluted_gates
from align_exporter.int8.cpu_text import dense_nodes
from align_exporter.int8.units import unit_of

DEPTHWISE_MULTIPLE = 8  # of channels
DEPTHWISE_KERNEL = 3  # at least, on both axes


@dataclass(frozen=True)
class Placement:
    """What is quantised.

    Attributes:
        products: whose weights are int8, in the order of the graph.
        readers: activation → the operators that read it quantised, both in the order of the graph.
    """

    products: tuple[ir.Node, ...]
    readers: Mapping[ir.Value, tuple[ir.Node, ...]]

    @property
    def tensors(self) -> list[str]:
        """Names of the activations that are quantised, in the order of the graph."""
        return [value.name or "" for value in self.readers]


def place(graph: ir.Graph, kept: Collection[str] = ()) -> Placement:
    """The placement for the float graph `graph`, the parts `kept` in float (see `align_exporter.int8.units`)."""
    nodes = [node for node in graph if unit_of(node) not in kept]
    gates = [gate(node) for node in nodes if node.op_type == "GlobalAveragePool"]
    gated = {node for found in gates if found.product for node in found.nodes}
    dense = set(dense_nodes(graph))
    products = [node for node in nodes if node in dense or (_has_kernel(node) and node not in gated)]
    chosen = set(products)
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in _operands(node, chosen):
            readers.setdefault(value, []).append(node)
    spared = undiluted_gates(graph)
    for found in gates:
        if found.product is not None and found.product not in spared:
            readers.setdefault(found.features, []).extend([found.pool, found.product])
    order = {node: index for index, node in enumerate(graph)}
    sorted_readers = {value: tuple(sorted(set(nodes), key=order.__getitem__)) for value, nodes in readers.items()}
    by_first = sorted(sorted_readers, key=lambda value: order[sorted_readers[value][0]])
    return Placement(tuple(products), {value: sorted_readers[value] for value in by_first})


def _has_kernel(node: ir.Node) -> bool:
    """Whether the operator is a convolution that TensorRT computes in INT8."""
    kernel = node.inputs[1] if node.op_type == "Conv" else None
    if kernel is None or kernel.shape is None:
        return False
    if not is_depthwise(node):
        return True
    channels, _, *sides = kernel.shape.numpy()
    return channels % DEPTHWISE_MULTIPLE == 0 and min(sides) >= DEPTHWISE_KERNEL


def is_depthwise(node: ir.Node) -> bool:
    """Whether the convolution takes every channel by itself."""
    kernel = node.inputs[1]
    return (
        kernel is not None and kernel.shape is not None and node.attributes.get_int("group", 1) > 1 == kernel.shape[1]
    )


def _operands(node: ir.Node, products: set[ir.Node]) -> list[ir.Value]:
    """The activations that `node` reads quantised, but for those of squeeze-excite."""
    if node in products:
        assert node.inputs[0] is not None
        return [node.inputs[0]]
    shortcut = shortcut_of(node)
    return [] if shortcut is None else [shortcut]


def shortcut_of(node: ir.Node) -> ir.Value | None:
    """The shortcut of a residual sum, None for any other operator.

    One operand of such a sum is a convolution's result that nothing else reads, the other comes from further up.
    """
    if node.op_type != "Add":
        return None
    first, second = node.inputs
    assert first is not None
    assert second is not None
    for branch, shortcut in ((first, second), (second, first)):
        producer = branch.producer()
        if producer is not None and producer.op_type == "Conv" and len(branch.uses()) == 1:
            return None if shortcut.is_initializer() else shortcut
    return None
