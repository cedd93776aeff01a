"""A target that Reshape puts together from sizes of the inputs, although it only copies them → a constant with 0.

before: Reshape(x, Concat(Shape(mask)[0:1], Shape(mask)[1:2], A, D)) <allowzero = 1>
after:  Reshape(x, [0, 0, A, D])
algebra: 0 takes the size of the input's axis at the same place, whose name is that of the size which Shape reads.
No shape is computed on the way from ids to embedding any more, only how many positions are looked up. OpenVINO compiles
the text tower of the published sizes to 634 nodes instead of 646, to 622 instead of 666 once its sizes are fixed; ONNX
Runtime's CPU kernels save 2 µs of each call, 2 % of align-tiny's shortest text and nothing to be seen of BERT-base.
does not apply: a size computed otherwise, one that is not that of the input's axis at the same place, one without a
name, a real 0. In the packed tower the one such target splits an axis in two sizes, of which neither can be copied.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

COPY = 0

Size = int | ir.SymbolicDim


class ConstantReshape:
    def __call__(self, model: ir.Model) -> int:
        targets: dict[tuple[int, ...], ir.Value] = {}
        rewritten = 0
        for node in model.graph:
            if node.op_type != "Reshape" or refusal(node) is not None:
                continue
            target = _target(node)
            assert not isinstance(target, str)
            if target not in targets:
                name = "reshape_to_" + "_".join(map(str, target))
                targets[target] = ir.Value(name=name, const_value=ir.tensor(np.array(target, np.int64), name=name))
                model.graph.register_initializer(targets[target])
            node.replace_input_with(1, targets[target])
            node.attributes.pop("allowzero", None)
            rewritten += 1
        return rewritten


def refusal(node: ir.Node) -> str | None:
    """Why the Reshape `node` cannot have a constant target, None when it can."""
    target = _target(node)
    return target if isinstance(target, str) else None


def _target(node: ir.Node) -> tuple[int, ...] | str:
    """The constant target, or why there is none."""
    data, shape = node.inputs
    concat = shape.producer() if shape is not None else None
    if concat is None or concat.op_type != "Concat":
        return "the target is not put together from sizes"
    if data is None or data.shape is None:
        return "the input's sizes are not known"
    sizes: list[Size] = []
    for part in concat.inputs:
        read = _sizes(part)
        if read is None:
            return "a part of the target is neither constant nor read from a shape"
        sizes += read
    target = []
    for axis, size in enumerate(sizes):
        if isinstance(size, ir.SymbolicDim):
            if size.value is None or axis >= len(data.shape) or data.shape[axis] != size:
                return f"size {axis} of the target is not that of the input's axis {axis}"
            size = COPY
        elif size == COPY:
            return f"size {axis} of the target is a real 0"
        target.append(size)
    return tuple(target)


def _sizes(part: ir.Value | None) -> list[Size] | None:
    """What a part of the target holds: numbers of a constant, or named sizes read from a shape."""
    if part is None:
        return None
    if part.const_value is not None:
        return part.const_value.numpy().tolist()
    node = part.producer()
    if node is None or node.op_type != "Shape" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(node.inputs[0].shape))
    return list(node.inputs[0].shape.dims[start:end])
