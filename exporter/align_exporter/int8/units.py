"""Parts of a tower that are quantized, or left in float, as a whole.

In EfficientNet that is a block: most of what INT8 costs there is the rounding of activations between its operators, so
one float convolution among INT8 ones gains nothing. In BERT it is a dense layer with its input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from math import prod

import onnx_ir as ir

BLOCK = re.compile(r"vision_model\.embeddings|.*?\.blocks\.\d+(?=[./])")


def unit_of(node: ir.Node) -> str:
    """Name of the part that `node` belongs to: that of its block, or its own."""
    block = BLOCK.match(node.name or "")
    return block[0] if block else node.name or ""


def unit_macs(nodes: Iterable[ir.Node]) -> dict[str, int]:
    """The parts that `nodes` belong to, in order, with their MACs for one image or one token."""
    macs: Counter[str] = Counter()
    for node in nodes:
        macs[unit_of(node)] += _macs(node)
    return dict(macs)


def _macs(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    weights, shape = node.inputs[1], node.outputs[0].shape
    if weights is None or weights.shape is None or shape is None:
        raise ValueError(f"{node.name} has weights or an output without a shape")
    sizes = [size for size in weights.shape if isinstance(size, int)]
    if node.op_type != "Conv":
        return prod(sizes)
    pixels = prod(size for size in shape[2:] if isinstance(size, int))
    return pixels * prod(sizes)  # (out, in / group, height, width): one MAC for each output channel and pixel
