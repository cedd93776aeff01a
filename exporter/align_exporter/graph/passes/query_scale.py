"""The factor 1/√D on attention scores → into the weight and bias of the query projection.

before: Mul(MatMul(Q, Kᵀ), s), Q = Add(MatMul(h, W), b) brought to its heads     after: MatMul(Q, Kᵀ) with s·W and s·b
algebra: (hW + b)·s = h(sW) + sb. Bit-identical where s is a power of two (D = 64: s = 1/8); otherwise each weight is
rounded once more.
gain: TensorRT fuses attention only where Q is scaled and not the scores, and an FP16 product of unscaled Q and K
overflows √D times earlier. ONNX Runtime's CPU kernels gain nothing: they fold the factor into the product.
A projection without bias is matched as well. Weight and bias may have other readers, which keep them as they were.
does not apply: a factor that is not a constant scalar; a Q that is not a projection with constant weight and bias
followed by only Reshape, Transpose and Gather; an intermediate result that another node reads as well (the tracer
merges projections of query and key that are equal).
"""

from __future__ import annotations

import onnx_ir as ir

from align_exporter.graph.ir_helpers import constant_values, operand, optional_operand, producer_of, set_constant

MOVE_OPERATORS = ("Reshape", "Transpose", "Gather")  # rearrange values and do not change them


class FoldQueryScale:
    """Counts the factors that it folded."""

    def __call__(self, model: ir.Model) -> int:
        rewritten = 0
        for node in model.graph:
            if node.op_type != "Mul" or refusal(node) is not None:
                continue
            scores, scale = operand(node, 0), constant_values(operand(node, 1)).reshape(())
            for reader in _projection(scores):
                values = constant_values(operand(reader, 1))
                set_constant(reader, 1, (values * scale).astype(values.dtype))
            ir.convenience.replace_all_uses_with(node.outputs[0], scores)
            model.graph.remove(node, safe=True)
            rewritten += 1
        return rewritten


def refusal(node: ir.Node) -> str | None:
    """Why the Mul `node` is not a factor on attention scores that can be folded; None where it is."""
    scores, factor = operand(node, 0), operand(node, 1)
    if factor.const_value is None or factor.const_value.size != 1:
        return "the factor is not a constant scalar"
    producer = scores.producer()
    if producer is None or producer.op_type != "MatMul":
        return "the other input is not a product"
    if len(scores.uses()) != 1 or scores.is_graph_output() or node.outputs[0].is_graph_output():
        return "the unscaled product is read as well"
    try:
        _projection(scores)
    except ValueError as reason:
        return str(reason)
    return None


def _projection(scores: ir.Value) -> tuple[ir.Node, ...]:
    """The projection that computes the left factor of the product `scores`: MatMul and, where it has a bias, Add; the
    second input of either is the constant.

    Raises:
        ValueError: there is no such projection; the message says why.
    """
    value: ir.Value | None = operand(producer_of(scores), 0)
    while value is not None and _has_one_reader(value):
        node = value.producer()
        if node is None:
            break
        if node.op_type in MOVE_OPERATORS:
            value = optional_operand(node, 0)
        elif node.op_type == "Add":
            return _with_bias(node)
        elif node.op_type == "MatMul" and operand(node, 1).const_value is not None:
            return (node,)
        else:
            break
    raise ValueError("the left factor is not a projection that only this product reads")


def _with_bias(addition: ir.Node) -> tuple[ir.Node, ir.Node]:
    matmul = operand(addition, 0).producer()
    if matmul is None or matmul.op_type != "MatMul":
        raise ValueError("the left factor is a sum, but not of a product and a bias")
    if operand(matmul, 1).const_value is None or operand(addition, 1).const_value is None:
        raise ValueError("the projection's weight or bias is not constant")
    if not _has_one_reader(matmul.outputs[0]):
        raise ValueError("the projection is read before its bias is added")
    return matmul, addition


def _has_one_reader(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()
