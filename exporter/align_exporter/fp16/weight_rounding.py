"""Rounds convolution weights to FP16, up or down, so that the mean of every output channel is preserved.

Rounding to nearest shifts the mean of a channel: by the rounding errors of the weights times the means of their inputs,
which are far from 0 behind a swish, and by the rounding error of the bias. The shift is the same at every pixel and in
every image, so it does not average out, unlike the rounding errors of activations. On full-size weights the worst
mean-centered cosine is 0.9971 with rounding to nearest and 0.9995 with this rounding; most of the rest is due to
squeeze-excite (see rules.py): 0.9997 with both (benchmarks/measure_fp16.py).

Every weight lies between two FP16 values. The weights with the smallest extra error are moved to the farther value
first, as long as that brings the shift closer to 0. The remaining shift is propagated through the graph to first order
and compensated by the next convolution. The bias is rounded to nearest. This is a form of bias correction (Nagel et
al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_exporter.graph.ir_helpers import constant_values, name_of, operand, optional_operand, set_constant

Vector = NDArray[np.float64]
# A shift below this fraction of the FP16 spacing at the mean is not corrected.
NEGLIGIBLE = 1 / 64


def round_weights(model: ir.Model, means: Mapping[str, Vector], float32: Collection[ir.Node]) -> int:
    """Rounds the weights of the convolutions of `model`, all but those in `float32`, to values that FP16 can represent.

    Args:
        model: float32, changed in place.
        means: channel means of its feature maps by name, float64 (channels,).
        float32: nodes that stay FP32.

    Returns:
        The number of convolutions rounded.
    """
    shifts: dict[str, Vector] = {}
    rounded = 0
    for node in model.graph:
        name = name_of(node.outputs[0])
        if name not in means:
            continue
        if node.op_type == "Conv" and name_of(operand(node, 0)) in means:
            shifts[name] = _round_convolution(node, means, shifts, node not in float32)
            rounded += node not in float32
        else:
            shifts[name] = _propagate(node, means, shifts)
    return rounded


def round_preserving_means(
    weights: Vector, inputs: Vector, shifted: Vector, bias: Vector
) -> tuple[NDArray[np.float16], Vector]:
    """Rounds `weights` so that ``rounded · shifted + fp16(bias)`` stays close to ``weights · inputs + bias``.

    Args:
        weights: float64 (channels, n).
        inputs: float64 (1 or channels, n), means of the inputs of the weights in the FP32 graph.
        shifted: the same in the FP16 graph.
        bias: float64 (channels,).

    Returns:
        The weights, float16 (channels, n), and the remaining shift of each channel, float64 (channels,).
    """
    rounded = weights.astype(np.float16)
    error = rounded - weights
    other = np.nextafter(rounded, np.where(error > 0, -np.inf, np.inf).astype(np.float16))
    spacing = other.astype(np.float64) - rounded
    change = spacing * shifted
    means = (weights * inputs).sum(1) + bias
    shift = (rounded * shifted).sum(1) + bias.astype(np.float16) - means
    enough = NEGLIGIBLE * np.spacing(np.abs(means).astype(np.float16)).astype(np.float64)
    rows = np.arange(len(weights))
    for column in np.argsort(-np.abs(error / spacing), axis=1, kind="stable").T:
        move = change[rows, column]
        # The cheapest moves come first and must not overshoot: each has to cancel more than half its own size.
        useful = (np.abs(shift) > enough) & (np.abs(shift + move) < np.abs(shift) - np.abs(move) / 2)
        rounded[rows[useful], column[useful]] = other[rows[useful], column[useful]]
        shift += np.where(useful, move, 0.0)
        if (np.abs(shift) <= enough).all():
            break
    return rounded, shift


def _round_convolution(
    node: ir.Node, means: Mapping[str, Vector], shifts: Mapping[str, Vector], to_fp16: bool
) -> Vector:
    """Rounds the weights of the convolution `node` if it is `to_fp16`; returns the shift of its output channels."""
    features, kernel, bias = name_of(operand(node, 0)), operand(node, 1), optional_operand(node, 2)
    weights = constant_values(kernel).astype(np.float64)
    channels, _, height, width = weights.shape
    offsets = np.zeros(channels) if bias is None or bias.const_value is None else constant_values(bias)
    inputs = means[features]
    groups = node.attributes.get_int("group", 1)

    def spread(values: Vector) -> Vector:
        """Repeats (input channels,) for the weights of each output channel, (channels or 1, n)."""
        by_group = np.repeat(values.reshape(groups, -1), height * width, axis=1)
        return by_group if groups == 1 else np.repeat(by_group, channels // groups, axis=0)

    matrix, before = weights.reshape(channels, -1), spread(inputs)
    after = spread(inputs + shifts.get(features, 0.0))
    if not to_fp16:
        shift: Vector = (matrix * (after - before)).sum(1)
        return shift
    rounded, shift = round_preserving_means(matrix, before, after, offsets.astype(np.float64))
    set_constant(node, 1, rounded.astype(np.float32).reshape(weights.shape))
    return shift


def _propagate(node: ir.Node, means: Mapping[str, Vector], shifts: Mapping[str, Vector]) -> Vector:
    """The shift of the output of `node` to first order; 0 for an operator that is not handled here."""
    zeros = np.zeros_like(means[name_of(node.outputs[0])])
    names = [name_of(value) for value in node.inputs if value is not None]
    if not all(name in means for name in names):
        return zeros
    shifted = [shifts.get(name, zeros) for name in names]
    if node.op_type == "Sigmoid":
        with np.errstate(over="ignore"):  # exp of a very negative mean: the gate is the correct 0
            gate = 1 / (1 + np.exp(-means[names[0]]))
        return shifted[0] * gate * (1 - gate)
    if node.op_type == "Mul":
        return shifted[0] * means[names[1]] + means[names[0]] * shifted[1]
    if node.op_type == "Add":
        return shifted[0] + shifted[1]
    if node.op_type == "GlobalAveragePool":
        return shifted[0]
    return zeros
