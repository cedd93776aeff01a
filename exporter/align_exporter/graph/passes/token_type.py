"""The embedding of token type 0, which all tokens share → into the position embeddings.

before: Add(Add(Gather(words, ids), Gather(types, Expand(0, …))), Slice(positions, 0, S))
after:  Add(Gather(words, ids), Slice(positions + types[0], 0, S))
The packed tower looks positions up by a Gather instead of the Slice.
algebra: (w + t) + p = w + (p + t), rounded once less per token. A text has one segment, so its token types are all 0.
gain: saves a lookup, a sum over all tokens and the last shape computed from the ids, which TensorRT would have to
infer. Of ONNX Runtime's time it is 0.09 % for one text of 12 tokens and 0.02 % for 32 texts of 64.
The table of positions may have other readers, which keep it as it was.
does not apply: types that are not a constant 0, tables that are not constant, a lookup or sum that another node reads.
"""

from __future__ import annotations

import onnx_ir as ir

from align_exporter.graph.ir_helpers import constant_values, operand, producer_of, readers_of, set_constant

LOOKUPS = ("Gather", "Slice")  # of positions: their rows are rows of the table


class FoldTokenType:
    """Counts the lookups that it folded."""

    def __call__(self, model: ir.Model) -> int:
        rewritten = 0
        for node in model.graph:
            if node.op_type != "Gather" or refusal(node) is not None:
                continue
            (inner,) = readers_of(node.outputs[0])
            (outer,) = readers_of(inner.outputs[0])
            words, positions = _other(inner, node.outputs[0]), _other(outer, inner.outputs[0])
            types, lookup = operand(node, 0), producer_of(positions)
            set_constant(lookup, 0, constant_values(operand(lookup, 0)) + constant_values(types)[0])
            outer.replace_input_with(outer.inputs.index(inner.outputs[0]), words)
            model.graph.remove([inner, node], safe=True)
            rewritten += 1
        return rewritten


def refusal(node: ir.Node) -> str | None:
    """Why the Gather `node` is not a lookup of token type 0 that can be folded; None where it is."""
    if operand(node, 0).const_value is None or node.attributes.get_int("axis", 0) != 0:
        return "the table is not a constant looked up by rows"
    if not _is_zero(operand(node, 1)):
        return "the indices are not an expanded 0"
    inner = _only_sum(node.outputs[0])
    outer = _only_sum(inner.outputs[0]) if inner is not None else None
    if inner is None or outer is None:
        return "its rows are not added to two others and to nothing else"
    positions = _other(outer, inner.outputs[0])
    lookup = positions.producer()
    table = operand(lookup, 0) if lookup is not None and lookup.op_type in LOOKUPS else None
    if table is None or table.const_value is None or len(positions.uses()) != 1 or positions.is_graph_output():
        return "the last summand is not looked up in a constant table for this sum alone"
    return None


def _is_zero(indices: ir.Value) -> bool:
    expand = indices.producer()
    value = operand(expand, 0) if expand is not None and expand.op_type == "Expand" else None
    return value is not None and value.const_value is not None and not constant_values(value).any()


def _only_sum(value: ir.Value) -> ir.Node | None:
    """The Add that reads `value`; None where another node does, too."""
    readers = readers_of(value)
    if len(readers) != 1 or value.is_graph_output() or readers[0].op_type != "Add":
        return None
    return readers[0]


def _other(addition: ir.Node, value: ir.Value) -> ir.Value:
    """The summand of `addition` that is not `value`."""
    return operand(addition, 1 if operand(addition, 0) is value else 0)
