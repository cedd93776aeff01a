"""What stays FP32 in every FP16 graph, because its formula needs it whatever the weights are."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from align_exporter.graph.ir_helpers import floats, is_float, producers, readers

MAC_OPERATORS = ("Conv", "MatMul", "Gemm")
# Sums of squares and of exponentials: FP16 overflows at 256², and TensorRT computes what is written.
FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "ReduceL2")
# Between the last product and the L2 norm.
POOLING_OPERATORS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten", "Squeeze")


def rules(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that stay FP32 in every FP16 graph.

    - layer norm, softmax, and the L2 norm with the pooling before it;
    - squeeze-excite in blocks without a residual: a gate is rounded once for a whole channel, which no later mean
      averages out, and such a block is all that its followers see. On conditioned full-size weights the worst
      mean-centred cosine is 0.9995 without and 0.9997 with these seven blocks in FP32
      (benchmarks/measure_fp16.py);
    - what is made of integers, up to the first product: the normalisation of bytes, which cancels, and the attention
      mask with its addition to the scores, which ends in the lowest float32.
    """
    ruled = {node for node in graph if node.op_type in FLOAT32_OPERATORS}
    for node in graph:
        made_of_integers = node.op_type == "Cast" and is_float(node) and not floats(node.inputs)
        follows = node.op_type not in (*MAC_OPERATORS, *FLOAT32_OPERATORS) and any(
            producer in ruled and producer.op_type not in FLOAT32_OPERATORS for producer in producers(node)
        )
        if is_float(node) and (made_of_integers or follows):
            ruled.add(node)
    ruled |= undiluted_gates(graph)
    for norm in [node for node in graph if node.op_type == "ReduceL2"]:
        ruled |= {reader for reader in readers(norm) if is_float(reader)}
        (producer,) = producers(norm)
        while producer.op_type in POOLING_OPERATORS:
            ruled.add(producer)
            (producer,) = producers(producer)
    return ruled


def undiluted_gates(graph: ir.Graph) -> set[ir.Node]:
    """Squeeze-excite, from the global mean to the product with its input, in blocks without a residual."""
    return {node for pool in graph if pool.op_type == "GlobalAveragePool" for node in _undiluted_gate(gate(pool))}


@dataclass(frozen=True)
class Gate:
    """Squeeze-excite: from the global mean to the product of its gates and its input.

    Attributes:
        features: its input.
        pool: the mean.
        nodes: all of it, the mean and the product included; what follows the mean where there is no product.
        product: None behind the mean at the end of the tower.
    """

    features: ir.Value
    pool: ir.Node
    nodes: frozenset[ir.Node]
    product: ir.Node | None


def gate(pool: ir.Node) -> Gate:
    """What the global mean `pool` belongs to."""
    (features,) = pool.inputs
    assert features is not None
    chain, border = {pool}, [pool]
    while border:
        for reader in readers(border.pop()):
            if reader not in chain:
                chain.add(reader)
                if features not in reader.inputs:
                    border.append(reader)
    products = [node for node in chain if node is not pool and features in node.inputs]
    return Gate(features, pool, frozenset(chain), products[0] if len(products) == 1 else None)


def _undiluted_gate(found: Gate) -> frozenset[ir.Node]:
    """All of it where no residual is added to what the next product makes of it; nothing elsewhere."""
    if found.product is None:
        return frozenset()
    (projection,) = readers(found.product)
    diluted = [reader.op_type for reader in readers(projection)] == ["Add"]
    return frozenset() if diluted else found.nodes
