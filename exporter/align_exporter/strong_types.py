"""Strong typing: operands that an operator's schema gives one type must have one type.

ONNX's own checker and its type inference let an Add of float16 and float32 pass, ONNX Runtime and TensorRT refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from align_runtime.errors import BuildError


def check_types(file: Path) -> None:
    """Raises BuildError unless every operator of the graph in `file` has operands and results of matching types."""
    model = ir.load(file)
    opset = model.opset_imports[""]
    for node in model.graph:
        for variable, types in _types_by_variable(node, opset):
            if len(types) > 1:
                raise BuildError(
                    f"{file.name}: {node.op_type} {node.name!r} mixes {' and '.join(sorted(types))} where its schema "
                    f"has one type ({variable}); the graph is not valid under strong typing"
                )


def _types_by_variable(node: ir.Node, opset: int) -> Iterator[tuple[str, set[str]]]:
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    found: dict[str, set[str]] = {}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for index, value in enumerate(values):
            formal = formals[min(index, len(formals) - 1)]  # the last one may stand for many
            if value is None or formal.type_str not in variables:
                continue
            if value.dtype is None:
                raise BuildError(f"{node.op_type} {node.name!r}: the type of {value.name!r} is not known")
            found.setdefault(formal.type_str, set()).add(value.dtype.name.lower())
    yield from found.items()
