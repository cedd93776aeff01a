"""Weights as int8 with a scale per output channel, and the DequantizeLinear nodes that replace them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.graph.ir_helpers import add_constant, operand

INT8_MAX = 127  # −128 is not used: a symmetric range needs no zero point
MIN_SCALE = np.float32(1e-30)  # its product with the scale of an activation is still a normal float32


def quantize_weights(
    weights: NDArray[np.float32], min_scales: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantizes `weights` symmetrically per channel.

    Args:
        weights: float32 (channels, …).
        min_scales: lower bounds of the scales, float32 (channels,).

    Returns:
        The quantized weights, int8 of the same shape, and their scales, float32 (channels,).
    """
    scales = np.maximum(channel_scales(weights), MIN_SCALE)
    if min_scales is not None:
        scales = np.maximum(scales, min_scales)
    return quantize_to_scales(weights, scales), scales


def channel_scales(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest scales that hold all of `weights` (channels, …), float32 (channels,); 0 for a channel of zeros."""
    return (np.abs(weights).reshape(len(weights), -1).max(axis=1) / INT8_MAX).astype(np.float32)


def quantize_to_scales(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Quantizes `weights` (channels, …) with the given `scales` (channels,), clipped to ±`INT8_MAX`."""
    integers = np.rint(weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
    return np.clip(integers, -INT8_MAX, INT8_MAX).astype(np.int8)


def replace_with_dequantized(
    graph: ir.Graph,
    node: ir.Node,
    index: int,
    name: str,
    integers: NDArray[np.integer],
    scales: NDArray[np.float32],
    axis: int = 0,
) -> ir.Node:
    """Replaces input `index` of `node`, a constant, by a DequantizeLinear with zero point 0.

    Args:
        name: prefix of the names of the new constants and of the node.
        integers: the quantized constant.
        scales: float32, one per element along `axis`.

    Returns:
        The DequantizeLinear.
    """
    operands = [
        add_constant(graph, f"{name}/quantized", integers),
        add_constant(graph, f"{name}/scale", scales),
        add_constant(graph, f"{name}/zero_point", np.zeros(len(scales), dtype=integers.dtype)),
    ]
    output = ir.val(f"{name}/dequantized", dtype=ir.DataType.FLOAT, shape=operand(node, index).shape)
    dequantizer = ir.node("DequantizeLinear", operands, {"axis": axis}, outputs=[output], name=output.name)
    graph.insert_before(node, dequantizer)
    node.replace_input_with(index, output)
    return dequantizer
