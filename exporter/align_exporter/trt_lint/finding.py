"""The finding of a rule, and the questions that several rules ask about a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

FLOAT_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
MAC_OPERATORS = ("Conv", "MatMul", "Gemm")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Finding:
    """A rule that a node breaks.

    Attributes:
        rule: name of the rule.
        node: name of the node, or of the graph.
        problem: what is wrong, the value seen, and the fix.
    """

    rule: str
    node: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node}: {self.problem} ({self.rule})"


def label(node: ir.Node) -> str:
    """Returns the name of `node`, or its operator and outputs if it has none."""
    return node.name or f"{node.op_type} → {', '.join(value.name or '?' for value in node.outputs)}"


def type_name(value: ir.Value) -> str:
    """Returns the element type of `value` as ONNX names it, or ``"unknown"``."""
    return "unknown" if value.dtype is None else value.dtype.name


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Returns input `index` of `node`, or None if it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def nodes_of(model: ir.Model, *operators: str) -> Iterator[ir.Node]:
    """Yields the nodes of `model` that are one of `operators`, in the order of the graph."""
    return (node for node in model.graph if node.op_type in operators)


def producer_of(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Returns the node that computes `value` if it is an `operator`, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator else None


def is_quantized(value: ir.Value | None) -> bool:
    """Whether `value` is the output of a DequantizeLinear."""
    return producer_of(value, "DequantizeLinear") is not None


def float_source(value: ir.Value | None) -> ir.Value | None:
    """Returns the tensor that `value` stands for: what a Q/DQ pair quantizes, or the integers of dequantized weights.

    A value without DequantizeLinear before it is returned as it is.
    """
    dequantizer = producer_of(value, "DequantizeLinear")
    if dequantizer is None:
        return value
    quantizer = producer_of(dequantizer.inputs[0], "QuantizeLinear")
    return dequantizer.inputs[0] if quantizer is None else quantizer.inputs[0]
