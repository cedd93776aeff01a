"""The embedding of token type 0, which every token has → into the table of positions.

before: Add(Add(Gather(words, ids), Gather(types, Expand(0, …))), Gather(positions, p))
after:  Add(Gather(words, ids), Gather(positions + types[0], p))
algebra: (w + t) + p = w + (p + t), rounded once less per token. A text has one segment, so its types are constant.
Saves a lookup, a sum over all tokens and the last shape computed from the ids, which TensorRT would have to follow. Of
ONNX Runtime's time it is little: 0.09 % for one text of 12 tokens, 0.02 % for 32 of 64.
does not apply: types that are not a constant 0, tables that are not constant, a sum that something else reads.
"""

from __future__ import annotations

import onnx_ir as ir


class FoldTokenType:
    def __call__(self, model: ir.Model) -> int:
        rewritten = 0
        for node in model.graph:
            if node.op_type != "Gather" or refusal(node) is not None:
                continue
            inner = _only_sum(node.outputs[0])
            assert inner is not None
            outer = _only_sum(inner.outputs[0])
            assert outer is not None
            words, positions = _other(inner, node.outputs[0]), _other(outer, inner.outputs[0])
            lookup = positions.producer()
            assert lookup is not None
            types, table = node.inputs[0], lookup.inputs[0]
            assert types is not None
            assert types.const_value is not None
            assert table is not None
            assert table.const_value is not None
            table.const_value = ir.tensor(table.const_value.numpy() + types.const_value.numpy()[0], name=table.name)
            outer.replace_input_with(outer.inputs.index(inner.outputs[0]), words)
            model.graph.remove([inner, node], safe=True)
            rewritten += 1
        return rewritten


def refusal(node: ir.Node) -> str | None:
    """Why the Gather `node` is no lookup of token type 0 that the table of positions can take, None when it is one."""
    types, indices = node.inputs
    if types is None or types.const_value is None or node.attributes.get_int("axis", 0) != 0:
        return "the table is not a constant looked up by rows"
    if indices is None or not _is_zero(indices):
        return "the indices are not an expanded 0"
    inner = _only_sum(node.outputs[0])
    outer = _only_sum(inner.outputs[0]) if inner is not None else None
    if inner is None or outer is None:
        return "its rows are not added to two others and to nothing else"
    lookup = _other(outer, inner.outputs[0]).producer()
    table = lookup.inputs[0] if lookup is not None and lookup.op_type == "Gather" else None
    if table is None or table.const_value is None or len(table.uses()) != 1:
        return "the last summand is not looked up in a constant table of its own"
    return None


def _is_zero(indices: ir.Value) -> bool:
    expand = indices.producer()
    value = expand.inputs[0] if expand is not None and expand.op_type == "Expand" else None
    return value is not None and value.const_value is not None and not value.const_value.numpy().any()


def _only_sum(value: ir.Value) -> ir.Node | None:
    """The Add that reads `value`, None where anything else does."""
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value.is_graph_output() or readers[0].op_type != "Add":
        return None
    return readers[0]


def _other(addition: ir.Node, value: ir.Value) -> ir.Value:
    left, right = addition.inputs
    other = right if left is value else left
    assert other is not None
    return other
