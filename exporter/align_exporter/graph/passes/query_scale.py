"""The factor 1/√D on attention's scores → into the weight and bias of the query's projection.

before: Mul(MatMul(Q, Kᵀ), s), Q = Add(MatMul(h, W), b) brought to its heads     after: MatMul(Q, Kᵀ) with s·W and s·b
algebra: (hW + b)·s = h(sW) + sb. The same bits where s is a power of two (D = 64: s = 1/8), one rounding of each weight
more elsewhere. TensorRT fuses attention only where Q is scaled and not the scores, and an FP16 product of unscaled Q
and K overflows √D times earlier. ONNX Runtime's CPU kernels gain nothing: they fold the factor into the product.
does not apply: a factor that is no constant scalar; a Q that comes from anything but a projection with weight and bias
through Reshape, Transpose and Gather; a projection or a step of the way that another node reads as well.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

MOVES = ("Reshape", "Transpose", "Gather")  # bring values elsewhere and do not change them


class FoldQueryScale:
    def __call__(self, model: ir.Model) -> int:
        rewritten = 0
        for node in model.graph:
            if node.op_type != "Mul" or refusal(node) is not None:
                continue
            scores, factor = node.inputs
            assert scores is not None
            assert factor is not None
            scale = _scalar(factor)
            projection = _projection(scores)
            assert not isinstance(projection, str)
            for weight in projection:
                assert weight.const_value is not None
                values = weight.const_value.numpy()
                weight.const_value = ir.tensor((values * scale).astype(values.dtype), name=weight.name)
            ir.convenience.replace_all_uses_with(node.outputs[0], scores)
            model.graph.remove(node, safe=True)
            rewritten += 1
        return rewritten


def refusal(node: ir.Node) -> str | None:
    """Why the Mul `node` is no factor on attention's scores, None when it is one."""
    scores, factor = node.inputs
    if factor is None or _scalar(factor) is None:
        return "the factor is not a constant scalar"
    producer = scores.producer() if scores is not None else None
    if scores is None or producer is None or producer.op_type != "MatMul":
        return "the other input is not a product"
    if len(scores.uses()) != 1 or scores.is_graph_output() or node.outputs[0].is_graph_output():
        return "the unscaled product is read as well"
    projection = _projection(scores)
    return projection if isinstance(projection, str) else None


def _projection(scores: ir.Value) -> tuple[ir.Value, ir.Value] | str:
    """Weight and bias of the projection that gives the left factor of the product `scores`, or why there are none."""
    product = scores.producer()
    value = product.inputs[0] if product is not None else None
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None:
            break
        if node.op_type in MOVES:
            value = node.inputs[0]
        elif node.op_type == "Add":
            return _weight_and_bias(node)
        else:
            break
    return "the left factor is not a projection that only this product reads"


def _weight_and_bias(addition: ir.Node) -> tuple[ir.Value, ir.Value] | str:
    product, bias = addition.inputs
    matmul = product.producer() if product is not None else None
    if matmul is None or matmul.op_type != "MatMul":
        return "the left factor is a sum, but not of a product and a bias"
    weight = matmul.inputs[1]
    for constant in (weight, bias):
        if constant is None or constant.const_value is None or len(constant.uses()) != 1:
            return "the projection's weight or bias is not a constant of its own"
    assert weight is not None
    assert bias is not None
    if len(matmul.outputs[0].uses()) != 1:
        return "the projection is read before its bias is added"
    return weight, bias


def _scalar(value: ir.Value) -> np.ndarray | None:
    constant = value.const_value
    return constant.numpy() if constant is not None and constant.size == 1 else None
