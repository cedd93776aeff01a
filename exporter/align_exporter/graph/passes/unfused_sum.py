"""Sums that ONNX Runtime would compute together with their reader → Sum, which it leaves alone.

before: LayerNormalization(Add(x, r)), Gelu(Add(x, b))      after: LayerNormalization(Sum(x, r)), Gelu(Sum(x, b))
algebra: the same sum of two, bit for bit.
gain: ONNX Runtime's fused CPU kernels, SkipLayerNormalization and BiasGelu, take longer than the two that they replace
(docs/benchmarks.md, "Ideas").
Only in the graph for CPUs: on a GPU there are other kernels, and nothing was measured.
Below opset 20 a GELU is a chain of operators that begins with a division and has an Erf behind it.
does not apply: sums that neither a LayerNormalization nor a GELU with the exact erf reads.
"""

from __future__ import annotations

import onnx_ir as ir

from align_exporter.graph.ir_helpers import readers_of


class UnfusedSum:
    """Counts the sums that it renamed."""

    def __call__(self, model: ir.Model) -> int:
        rewritten = 0
        for node in model.graph:
            if node.op_type == "Add" and any(_is_fused(reader) for reader in readers_of(node.outputs[0])):
                node.op_type = "Sum"
                rewritten += 1
        return rewritten


def _is_fused(reader: ir.Node) -> bool:
    if reader.op_type == "Div":
        return any(behind.op_type == "Erf" for behind in readers_of(reader.outputs[0]))
    if reader.op_type == "Gelu":
        return reader.attributes.get_string("approximate", "none") == "none"
    return reader.op_type == "LayerNormalization"
