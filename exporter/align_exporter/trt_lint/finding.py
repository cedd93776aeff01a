"""What a rule has against a node, and what several rules ask of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
PRODUCTS = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Finding:
    """A rule that a node breaks.

    Attributes:
        rule: its name.
        node: the node's, or that of an input of the graph.
        problem: what is wrong, with the value seen, and what to do.
    """

    rule: str
    node: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node}: {self.problem} ({self.rule})"


def label(node: ir.Node) -> str:
    """How a finding calls `node`: by its name, or by operator and outputs where it has none."""
    return node.name or f"{node.op_type} → {', '.join(value.name or '?' for value in node.outputs)}"


def producer_type(value: ir.Value | None) -> str:
    """The operator that computes `value`; ``""`` for inputs, constants and absent operands."""
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def is_quantized(value: ir.Value | None) -> bool:
    """Whether `value` is dequantised from numbers of 8 bits."""
    return producer_type(value) == "DequantizeLinear"


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None
