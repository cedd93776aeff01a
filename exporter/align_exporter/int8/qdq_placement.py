"""Decides where Q/DQ pairs go in a graph for TensorRT: which tensors, for which readers, and which weights.

TensorRT builds a graph as it is written. It fuses DequantizeLinear into the operator behind it and QuantizeLinear into
the operator before it; a pair in the wrong place is not fused and costs a conversion. The rules follow NVIDIA's
documentation (Working with Quantized Types, "Q/DQ placement recommendations") and its EfficientNet recipe:

- Convolutions and dense layers have both operands quantized: activations and weights.
- A swish has no Q/DQ inside, so that Conv → Sigmoid → Mul becomes one kernel; its result is quantized where it is read.
- At a residual sum the shortcut is quantized and the branch that ends in a convolution is not: the sum is fused into
  the convolution.
- The feature map behind a depthwise convolution is quantized once for both readers in squeeze-excite, the global mean
  and the product with the gates. It is the largest tensor of a block, and EfficientNet on a GPU is memory-bound. Blocks
  without a residual are excluded, as in FP16 (fp16/rules.py): the mean squared error of align-tiny's embeddings on two
  draws of 128 images is 0.0168 and 0.0164 with all blocks, 0.0157 and 0.0148 without these, 0.0157 and 0.0143 with
  none.
- Depthwise convolutions are quantized only with a multiple of 8 channels and kernels of at least 3 × 3: TensorRT has no
  INT8 kernel for others.
- The convolutions of squeeze-excite stay float: they see one pixel.
- The two products of activations in attention stay float: TensorRT fuses them with the softmax between them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from align_exporter.fp16.islands import squeeze_excite, squeeze_excite_without_residual
from align_exporter.graph.ir_helpers import name_of, operand, shape_of
from align_exporter.int8.cpu_text import dense_nodes
from align_exporter.int8.mixed_precision import stays_float

DEPTHWISE_MULTIPLE = 8  # of the number of channels
DEPTHWISE_KERNEL = 3  # minimum height and width


@dataclass(frozen=True)
class Placement:
    """The weights and activations that are quantized.

    Attributes:
        weighted_nodes: convolutions and dense layers whose weights are int8, in the order of the graph.
        readers: activation → the operators that read it quantized, both in the order of the graph.
    """

    weighted_nodes: tuple[ir.Node, ...]
    readers: Mapping[ir.Value, tuple[ir.Node, ...]]

    @property
    def tensors(self) -> list[str]:
        """Names of the activations that are quantized, in the order of the graph."""
        return [name_of(value) for value in self.readers]


def place_qdq(graph: ir.Graph, kept: Collection[str] = ()) -> Placement:
    """The placement for the float32 graph `graph`; units in `kept` stay float (see mixed_precision.py)."""
    nodes = [node for node in graph if not stays_float(node, kept)]
    gates = [squeeze_excite(node) for node in nodes if node.op_type == "GlobalAveragePool"]
    gating = {node for found in gates if found.product for node in found.nodes}
    dense = set(dense_nodes(graph))
    weighted = [node for node in nodes if node in dense or (_has_kernel(node) and node not in gating)]
    chosen = set(weighted)
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in _quantized_operands(node, chosen):
            readers.setdefault(value, []).append(node)
    excluded = squeeze_excite_without_residual(graph)
    for found in gates:
        if found.product is not None and found.product not in excluded:
            readers.setdefault(found.features, []).extend([found.pool, found.product])
    order = {node: index for index, node in enumerate(graph)}
    sorted_readers = {value: tuple(sorted(set(nodes), key=order.__getitem__)) for value, nodes in readers.items()}
    by_first = sorted(sorted_readers, key=lambda value: order[sorted_readers[value][0]])
    return Placement(tuple(weighted), {value: sorted_readers[value] for value in by_first})


def _has_kernel(node: ir.Node) -> bool:
    """Whether `node` is a convolution for which TensorRT has an INT8 kernel."""
    if node.op_type != "Conv":
        return False
    if not is_depthwise(node):
        return True
    channels, _, *sides = shape_of(operand(node, 1)).numpy()
    return channels % DEPTHWISE_MULTIPLE == 0 and min(sides) >= DEPTHWISE_KERNEL


def is_depthwise(node: ir.Node) -> bool:
    """Whether the convolution `node` is depthwise: one input channel per group."""
    return node.attributes.get_int("group", 1) > 1 == shape_of(operand(node, 1))[1]


def _quantized_operands(node: ir.Node, weighted: set[ir.Node]) -> list[ir.Value]:
    """The activations that `node` reads quantized, without those of squeeze-excite."""
    if node in weighted:
        return [operand(node, 0)]
    shortcut = shortcut_of(node)
    return [] if shortcut is None else [shortcut]


def shortcut_of(node: ir.Node) -> ir.Value | None:
    """The shortcut of a residual sum; None for any other operator.

    One summand is the output of a convolution that no other node reads; the other one is the shortcut.
    """
    if node.op_type != "Add":
        return None
    first, second = operand(node, 0), operand(node, 1)
    for branch, shortcut in ((first, second), (second, first)):
        producer = branch.producer()
        if producer is not None and producer.op_type == "Conv" and len(branch.uses()) == 1:
            return None if shortcut.is_initializer() else shortcut
    return None
