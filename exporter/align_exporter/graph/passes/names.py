"""Readable, reproducible names, and nothing else of the tracer's notes.

before: node_Conv_861, val_29, and metadata with source paths and stack traces of the machine that exported
after:  vision_model.encoder.blocks.3.expansion/Conv, …/Conv.1 for a constant, no metadata
algebra: names only. Inputs, outputs and parameters that have a path in the model keep theirs. A convolution is named
after its weight, because the tracer calls it by the batch norm that was folded into it.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
FOLDED_BIAS_SUFFIX = ".weight_bias"  # onnxscript's name for what the batch norm leaves beside the weight
TRACER_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


class ReadableNames:
    """Counts the nodes, initializers and notes that it changed."""

    def __call__(self, model: ir.Model) -> int:
        changed = self._rename(model.graph)
        changed += self._strip(model)
        return changed

    def _rename(self, graph: ir.Graph) -> int:
        taken: Counter[str] = Counter()
        outputs = set(graph.outputs)
        changed = 0
        for node in graph:
            scope = _scope(node)
            if scope is None:  # named before: keep, so that a second run changes nothing
                continue
            base = f"{scope}/{node.op_type}" if scope else node.op_type
            taken[base] += 1
            node.name = base if taken[base] == 1 else f"{base}_{taken[base]}"
            for value in node.outputs:
                if value not in outputs:
                    value.name = node.name
            for index, constant in enumerate(node.inputs):
                if constant is not None and constant.is_initializer() and not _is_parameter(constant):
                    constant.name = f"{node.name}.{index}"
            changed += 1
        return changed

    def _strip(self, model: ir.Model) -> int:
        """Removes metadata and doc strings: they hold paths and stack traces of the exporting machine."""
        changed = 0
        graph = model.graph
        for owner in [model, graph, *graph, *graph.inputs, *graph.outputs, *graph.initializers.values()]:
            changed += bool(owner.metadata_props) + bool(owner.doc_string)
            owner.metadata_props.clear()
            owner.doc_string = None
        for node in graph:
            for value in node.outputs:
                changed += bool(value.metadata_props)
                value.metadata_props.clear()
        return changed


def _is_parameter(constant: ir.Value) -> bool:
    """Whether the constant has the name of a parameter of the model, or was named by this pass before."""
    return "." in (constant.name or "") and not (constant.name or "").endswith(FOLDED_BIAS_SUFFIX)


def _scope(node: ir.Node) -> str | None:
    """Path of the module that `node` was traced in, "" for the tower itself, None without the tracer's note."""
    note = node.metadata_props.get(SCOPES_KEY)
    if note is None:
        return None
    if node.op_type == "Conv":
        weight = node.inputs[1]
        assert weight is not None
        return (weight.name or "").removesuffix(".weight")
    *modules, _operation = ast.literal_eval(note)
    path = modules[-1] if modules else ""
    return "" if path == TRACER_SCOPE else path
