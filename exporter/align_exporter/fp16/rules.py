"""The operators that stay FP32 in every FP16 graph, whatever the weights are."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from align_exporter.graph.ir_helpers import float_values, is_float, operand, producers, readers

MAC_OPERATORS = ("Conv", "MatMul", "Gemm")
# Sums of squares and of exponentials: 256² overflows FP16, and a strongly typed TensorRT network adds no FP32 itself.
FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceL2")
# Between the last MAC operator and the L2 norm.
POOLING_OPERATORS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten", "Squeeze")


def float32_by_rule(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of `graph` that stay FP32 in every FP16 graph.

    - Layer norm, softmax, and the L2 norm with the pooling before it.
    - Squeeze-excite in blocks without a residual. The rounding error of a gate is the same for a whole channel, so no
      later mean averages it out, and without a residual nothing of the block bypasses it. On full-size weights the
      worst mean-centered cosine is 0.9995 with these seven blocks in FP16 and 0.9997 with them in FP32
      (benchmarks/measure_fp16.py).
    - Values cast from integers, up to the first MAC operator: the normalization of uint8 pixels, where a subtraction
      cancels digits, and the attention mask up to its addition to the scores, which holds the lowest float32.
    """
    ruled = {node for node in graph if node.op_type in FLOAT32_OPERATORS}
    for node in graph:
        from_integers = node.op_type == "Cast" and is_float(node) and not float_values(node.inputs)
        follows = node.op_type not in (*MAC_OPERATORS, *FLOAT32_OPERATORS) and any(
            producer in ruled and producer.op_type not in FLOAT32_OPERATORS for producer in producers(node)
        )
        if is_float(node) and (from_integers or follows):
            ruled.add(node)
    ruled |= squeeze_excite_without_residual(graph)
    for norm in [node for node in graph if node.op_type == "ReduceL2"]:
        ruled |= {reader for reader in readers(norm) if is_float(reader)}
        (producer,) = producers(norm)
        while producer.op_type in POOLING_OPERATORS:
            ruled.add(producer)
            (producer,) = producers(producer)
    return ruled


def squeeze_excite_without_residual(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of squeeze-excite, from the global mean to the product with its input, in blocks without a residual."""
    pools = [node for node in graph if node.op_type == "GlobalAveragePool"]
    return {node for pool in pools for node in _without_residual(squeeze_excite(pool))}


@dataclass(frozen=True)
class SqueezeExcite:
    """The nodes from a global mean to the product of the gates with the input.

    Attributes:
        features: the input.
        pool: the mean.
        nodes: all nodes, mean and product included; where there is no product, all nodes behind the mean.
        product: None for the mean at the end of the tower, which is not squeeze-excite.
    """

    features: ir.Value
    pool: ir.Node
    nodes: frozenset[ir.Node]
    product: ir.Node | None


def squeeze_excite(pool: ir.Node) -> SqueezeExcite:
    """The squeeze-excite that starts with the global mean `pool`."""
    features = operand(pool, 0)
    chain, border = {pool}, [pool]
    while border:
        for reader in readers(border.pop()):
            if reader not in chain:
                chain.add(reader)
                if features not in reader.inputs:
                    border.append(reader)
    products = [node for node in chain if node is not pool and features in node.inputs]
    return SqueezeExcite(features, pool, frozenset(chain), products[0] if len(products) == 1 else None)


def _without_residual(found: SqueezeExcite) -> frozenset[ir.Node]:
    """All nodes of `found` if no residual is added behind the projection that follows it; none otherwise."""
    if found.product is None:
        return frozenset()
    (projection,) = readers(found.product)
    has_residual = [reader.op_type for reader in readers(projection)] == ["Add"]
    return frozenset() if has_residual else found.nodes
