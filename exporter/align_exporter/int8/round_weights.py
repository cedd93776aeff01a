"""Rounds weights to int8 so that the outputs of their layer change least, instead of each weight by itself.

before: W, b      after: W′ on the int8 grid of its channel, b′ = b + (W − W′)·E[x]

The error of an output is (W′ − W)·x. Its mean over the calibration samples is corrected by the bias, exactly. What is
left has the variance (W′ − W)·C·(W′ − W)ᵀ with the covariance C of x, and is made small by rounding one input after the
other and passing its error on to those that are not rounded yet: Frantar et al., "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers", 2022, algorithm 1, here with the covariance in place of the
second moment, since the bias takes the mean. Behind a MatMul without a bias it is the second moment.

Layers of squeeze-excite see one position of each image, and thousands of inputs: their weights are rounded to nearest.

The largest weight of each channel stays at ±127. So W′ has the scales of W, and whoever quantizes W′ finds these
integers again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from align_calibration.second_moments import Moments, outer_square, patch_shape
from align_exporter.graph.ir_helpers import constant_values, name_of, operand, set_constant
from align_exporter.int8.biases import bias_operand, bias_values
from align_exporter.int8.insert_qdq import output_axis
from align_exporter.int8.mixed_precision import stays_float
from align_exporter.int8.quantize_weights import INT8_MAX, MIN_SCALE, channel_scales

DAMPING = 0.1  # of the mean variance, added to every variance: inputs that never vary, and few samples
ADDED_AT_ONCE = 32  # inputs whose errors are passed on together
Scales = NDArray[np.float32]


@dataclass(frozen=True)
class RoundedWeights:
    """Weights on the int8 grid, in the shape of the originals, and the bias that corrects their mean error; None where
    `bias_operand` finds no place for it."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def layer_scales(node: ir.Node, scale_type: Callable[[Scales], Scales]) -> Scales:
    """Scales of the output channels of `node`, a convolution or dense layer, float32 (channels,).

    Args:
        scale_type: rounds scales to the type in which the graph stores them.
    """
    weights = np.moveaxis(constant_values(operand(node, 1)), output_axis(node), 0)
    return np.maximum(scale_type(channel_scales(weights)), MIN_SCALE).astype(np.float32)


def round_weights(node: ir.Node, scales: Scales, moments: Moments) -> RoundedWeights:
    """The rounded weights of `node`, a convolution or dense layer with the `layer_scales` `scales`."""
    axis = output_axis(node)
    weights = np.moveaxis(constant_values(operand(node, 1)), axis, 0)  # (channels, …)
    groups, inputs = patch_shape(node)
    exact = weights.reshape(groups, -1, inputs).astype(np.float64)
    steps = scales.astype(np.float64).reshape(groups, -1, 1)
    place = bias_operand(node)
    costs = None if moments.covariance is None else moments.covariance.astype(np.float64)
    if costs is not None and place is None:
        costs += outer_square(moments.mean)
    rounded = (_nearest(exact / steps) if costs is None else _round(exact / steps, costs)) * steps
    bias = None
    if place is not None:
        correction = np.einsum("goi,gi->go", exact - rounded, moments.mean).ravel()
        bias = (bias_values(place) + correction).astype(np.float32)
    on_grid = np.moveaxis(rounded.reshape(weights.shape), 0, axis).astype(np.float32)
    return RoundedWeights(np.ascontiguousarray(on_grid), bias)


def replace_weights(model: ir.Model, rounded: Mapping[str, RoundedWeights], kept: Collection[str]) -> None:
    """Gives the layers of `model` their `rounded` weights, by name, in place, but for the units in `kept`."""
    for node in model.graph:
        found = rounded.get(name_of(node))
        if found is None or stays_float(node, kept):
            continue
        set_constant(node, 1, found.weights)
        place = bias_operand(node)
        if found.bias is not None and place is not None:
            set_constant(*place, found.bias)


def _nearest(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `_round`, each weight by itself."""
    largest = np.abs(weights).argmax(axis=-1, keepdims=True)
    integers: NDArray[np.float64] = np.clip(np.rint(weights), -INT8_MAX, INT8_MAX)
    np.put_along_axis(integers, largest, np.sign(np.take_along_axis(weights, largest, -1)) * INT8_MAX, -1)
    return integers


def _round(weights: NDArray[np.float64], covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers for `weights` (groups, channels, inputs) in steps of their scales.

    Args:
        covariances: of the inputs, (groups, inputs, inputs).
    """
    largest = np.abs(weights).argmax(axis=-1, keepdims=True)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    order = np.argsort(-variances, axis=-1, kind="stable")  # those that vary most first: theirs cost most
    rows = np.take_along_axis(covariances, order[:, :, None], 1)
    factor = _factor(np.take_along_axis(rows, order[:, None, :], 2))
    # Inputs come before channels here: what is subtracted below then lies side by side in memory.
    rest = np.ascontiguousarray(np.take_along_axis(weights, order[:, None, :], -1).swapaxes(1, 2))
    integers, places = np.zeros_like(rest), np.argsort(order, axis=-1)
    fixed = np.take_along_axis(places, largest[..., 0], -1)
    extremes = np.sign(np.take_along_axis(weights, largest, -1)[..., 0]) * INT8_MAX
    groups, inputs, channels = rest.shape
    for start in range(0, inputs, ADDED_AT_ONCE):
        end = min(start + ADDED_AT_ONCE, inputs)
        errors = np.empty((groups, end - start, channels))
        for column in range(start, end):
            rounded = np.clip(np.rint(rest[:, column]), -INT8_MAX, INT8_MAX)
            rounded = np.where(fixed == column, extremes, rounded)
            integers[:, column] = rounded
            error = (rest[:, column] - rounded) / factor[:, column, column, None]
            rest[:, column + 1 : end] -= factor[:, column, column + 1 : end, None] * error[:, None, :]
            errors[:, column - start] = error
        rest[:, end:] -= factor[:, start:end, end:].swapaxes(1, 2) @ errors
    return np.take_along_axis(integers, places[:, :, None], 1).swapaxes(1, 2)


def _factor(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper Cholesky factors of the inverses of the damped `covariances` (groups, inputs, inputs).

    C = R·Rᵀ with an upper R, which is the lower factor of C in reverse order; so C⁻¹ = (R⁻¹)ᵀ·R⁻¹, and R⁻¹ is upper.
    That takes a third of the time of inverting C.
    """
    reversed_ = torch.from_numpy(covariances).flip(1, 2)
    diagonal = reversed_.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True)
    damping = torch.where(mean > 0, DAMPING * mean, 1.0)  # inputs that never vary: any rounding is as good
    diagonal += damping
    while True:  # float32 rounding of products may leave eigenvalues below 0
        lower, failed = torch.linalg.cholesky_ex(reversed_)
        if not failed.any():
            upper, identity = lower.flip(1, 2), torch.eye(lower.shape[-1], dtype=torch.float64)
            factor: NDArray[np.float64] = torch.linalg.solve_triangular(upper, identity, upper=True).numpy()
            return factor
        more = torch.where(failed[:, None] > 0, 9 * damping, 0.0)
        diagonal += more
        damping += more
