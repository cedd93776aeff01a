"""Rounds convolution weights to FP16 up or down so that the mean of every channel stays what it is in FP32.

Rounding each weight to its nearest FP16 number shifts the mean of a channel: by the weights' errors times the means of
their inputs, which are far from 0 behind a swish, and by the error of the bias. Such a shift is the same at every pixel
and in every image, so nothing averages it out. Rounding errors of activations do average out. On conditioned
full-size weights the worst mean-centred cosine is 0.9971 with weights to nearest and 0.9995 with these, of which most
is left to gates (see rules.py): 0.9997 with both (benchmarks/measure_fp16.py).

A weight has two FP16 neighbours. Those whose other neighbour is nearly as close are turned first, as long as it brings
the shift closer to 0. What is left of a shift is followed through the graph and made good by the next convolution. The
bias itself has no freedom: it is rounded to nearest. The idea is that of bias correction (Nagel et al., Data-free
quantization through weight equalization and bias correction, arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Vector = NDArray[np.float64]
# A shift below this share of an FP16 step of the mean is not worth a turn.
NEGLIGIBLE = 1 / 64


def round_weights(model: ir.Model, means: Mapping[str, Vector], float32: Collection[ir.Node]) -> int:
    """Gives the convolutions of `model`, all but those in `float32`, weights that FP16 holds exactly.

    Args:
        model: float32, changed in place.
        means: of the channels of its feature maps, by name.

    Returns:
        The number of convolutions.
    """
    shifts: dict[str, Vector] = {}
    rounded = 0
    for node in model.graph:
        name = node.outputs[0].name or ""
        if name not in means:
            continue
        if node.op_type == "Conv" and _known(node, means):
            shifts[name] = _convolution(node, means, shifts, node not in float32)
            rounded += node not in float32
        else:
            shifts[name] = _followed(node, means, shifts)
    return rounded


def round_preserving(
    weights: Vector, inputs: Vector, shifted: Vector, bias: Vector
) -> tuple[NDArray[np.float16], Vector]:
    """Rounds `weights` (channels, n) so that ``rounded · shifted + fp16(bias)`` stays near ``weights · inputs + bias``.

    Args:
        inputs: (1 or channels, n), means of what the weights multiply.
        shifted: the same in the FP16 graph.
        bias: (channels,).

    Returns:
        The weights, float16 (channels, n), and the shift that is left in each channel.
    """
    rounded = weights.astype(np.float16)
    error = rounded - weights
    other = np.nextafter(rounded, np.where(error > 0, -np.inf, np.inf).astype(np.float16))
    step = other.astype(np.float64) - rounded
    change = step * shifted
    means = (weights * inputs).sum(1) + bias
    shift = (rounded * shifted).sum(1) + bias.astype(np.float16) - means
    enough = NEGLIGIBLE * np.spacing(np.abs(means).astype(np.float16)).astype(np.float64)
    rows = np.arange(len(weights))
    for column in np.argsort(-np.abs(error / step), axis=1, kind="stable").T:
        turned = change[rows, column]
        # Half of the turn at least has to be of use: the cheapest turns come first and must not overshoot.
        useful = (np.abs(shift) > enough) & (np.abs(shift + turned) < np.abs(shift) - np.abs(turned) / 2)
        rounded[rows[useful], column[useful]] = other[rows[useful], column[useful]]
        shift += np.where(useful, turned, 0.0)
        if (np.abs(shift) <= enough).all():
            break
    return rounded, shift


def _known(node: ir.Node, means: Mapping[str, Vector]) -> bool:
    return node.inputs[0] is not None and (node.inputs[0].name or "") in means


def _convolution(node: ir.Node, means: Mapping[str, Vector], shifts: Mapping[str, Vector], half: bool) -> Vector:
    """Rounds the weights of the convolution `node` where it is `half`; returns the shift of its output."""
    features, kernel, bias = node.inputs
    assert features is not None
    assert kernel is not None
    assert kernel.const_value is not None
    weights = kernel.const_value.numpy().astype(np.float64)
    channels, _, height, width = weights.shape
    offsets = np.zeros(channels) if bias is None or bias.const_value is None else bias.const_value.numpy()
    inputs = means[features.name or ""]
    groups = node.attributes.get_int("group", 1)

    def spread(values: Vector) -> Vector:
        """Per input channel → per weight of each output channel, (channels or 1, n)."""
        by_group = np.repeat(values.reshape(groups, -1), height * width, axis=1)
        return by_group if groups == 1 else np.repeat(by_group, channels // groups, axis=0)

    matrix, before = weights.reshape(channels, -1), spread(inputs)
    after = spread(inputs + shifts.get(features.name or "", 0.0))
    if not half:
        shift: Vector = (matrix * (after - before)).sum(1)
        return shift
    rounded, shift = round_preserving(matrix, before, after, offsets.astype(np.float64))
    kernel.const_value = ir.tensor(rounded.astype(np.float32).reshape(weights.shape), name=kernel.name)
    return shift


def _followed(node: ir.Node, means: Mapping[str, Vector], shifts: Mapping[str, Vector]) -> Vector:
    """The shift of what `node` computes, to first order; 0 where its formula is not one of these."""
    nothing = np.zeros_like(means[node.outputs[0].name or ""])
    names = [value.name or "" for value in node.inputs if value is not None]
    if not all(name in means for name in names):
        return nothing
    moved = [shifts.get(name, nothing) for name in names]
    if node.op_type == "Sigmoid":
        share = 1 / (1 + np.exp(-means[names[0]]))
        return moved[0] * share * (1 - share)
    if node.op_type == "Mul":
        return moved[0] * means[names[1]] + means[names[0]] * moved[1]
    if node.op_type == "Add":
        return moved[0] + moved[1]
    if node.op_type == "GlobalAveragePool":
        return moved[0]
    return nothing
