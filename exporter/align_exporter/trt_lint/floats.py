"""Strong typing: TensorRT 11 builds every operator in the types that the graph gives it.

Source: NVIDIA's documentation of strongly typed networks: operands of one type, conversions only through Cast and the
two operators of quantisation. ONNX's own checker says the same of each operator's schema, from types that it infers;
here the types are those that the file notes, which TensorRT's parser takes for its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.trt_lint.finding import FLOATS, Finding, label

CONVERSIONS = ("Cast", "CastLike", "QuantizeLinear", "DequantizeLinear")


def one_float_type(model: ir.Model) -> Iterator[Finding]:
    """The float operands and results of an operator have one type."""
    for node in model.graph:
        if node.op_type in CONVERSIONS:
            continue
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        types = sorted({value.dtype.name for value in values if value.dtype in FLOATS and value.dtype is not None})
        if len(types) > 1:
            yield Finding(
                "strong typing", label(node), f"{node.op_type} mixes {' and '.join(types)}; put a Cast before it"
            )


def noted_types(model: ir.Model) -> Iterator[Finding]:
    """Every value has a type, without which the other rules see nothing."""
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype is None:
                yield Finding(
                    "noted types", label(node), f"the type of {value.name!r} is not in the file; infer shapes first"
                )


RULES = (one_float_type, noted_types)
