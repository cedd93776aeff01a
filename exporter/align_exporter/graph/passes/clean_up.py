"""Cleans up a graph that is ready to be written: no unused nodes and initializers, readable names, no metadata.

RemoveUnused
before: an initializer that a pass left behind, e.g. the axes of a reduction that became a pool     after: removed
algebra: no output changes. ONNX Runtime warns about such initializers whenever it loads the graph.
does not apply: graph inputs and outputs, which are the contract, are kept.

ReadableNames
before: node_Conv_861, val_29, and metadata with source paths and stack traces of the exporting machine
after:  vision_model.encoder.blocks.3.expansion/Conv, …/Conv.1 for its constant input 1, no metadata
algebra: only names change. Inputs, outputs, and parameters that have a path in the model keep their names. The tracer
names a convolution after the batch norm that was folded into it: here it has the name of its weight in the module of
that batch norm. The whole path of the weight may be that of another convolution, whose weight is equal.
does not apply: nodes without the tracer's metadata.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from align_exporter.graph.ir_helpers import name_of, operand

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
FOLDED_BIAS_SUFFIX = ".weight_bias"  # onnxscript's name for the bias of a folded batch norm
FOLDED_OPERATION = "batch_norm"  # in the tracer's name for the operation
TRACER_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


class RemoveUnused:
    """Counts the nodes and initializers that it removed."""

    def __call__(self, model: ir.Model) -> int:
        before = _size(model)
        RemoveUnusedNodesPass()(model)
        return before - _size(model)


class ReadableNames:
    """Counts the nodes that it renamed and the objects whose metadata it removed."""

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
            if scope is None:  # already named: a second run changes nothing
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
        """Removes metadata and doc strings, which contain paths and stack traces of the exporting machine."""
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


def _size(model: ir.Model) -> int:
    return len(model.graph) + len(model.graph.initializers)


def _is_parameter(constant: ir.Value) -> bool:
    """Whether the constant has the name of a parameter of the model, or one that this pass gave it."""
    return "." in name_of(constant) and not name_of(constant).endswith(FOLDED_BIAS_SUFFIX)


def _scope(node: ir.Node) -> str | None:
    """Path of the module that `node` was traced in: "" for the tower itself, None without the tracer's metadata."""
    scopes = node.metadata_props.get(SCOPES_KEY)
    if scopes is None:
        return None
    *modules, operation = ast.literal_eval(scopes)
    path = modules[-1] if modules else ""
    if node.op_type == "Conv" and FOLDED_OPERATION in operation:
        weight = name_of(operand(node, 1)).removesuffix(".weight")
        path = ".".join([*path.split(".")[:-1], weight.split(".")[-1]])
    return "" if path == TRACER_SCOPE else path
