"""Weights as int8, with a scale for each output channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 127  # −128 is left out: a symmetric range needs no zero point


TINIEST = np.float32(1e-30)  # a step: products with those of activations are then normal numbers too


def quantized_weights(
    weights: NDArray[np.float32], least: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """`weights` as int8, a step for each channel.

    Args:
        weights: float32 (channels, …).
        least: steps that are not gone below, float32 (channels,); all zeros are then as good as any other number.

    Returns:
        int8 of the same shape, and the steps, float32 (channels,).
    """
    steps = channel_steps(weights)
    steps = np.maximum(steps, TINIEST if least is None else np.maximum(least, TINIEST))
    return in_steps(weights, steps), steps


def channel_steps(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The steps that hold all of `weights` (channels, …), float32 (channels,); 0 where a channel is all 0."""
    return (np.abs(weights).reshape(len(weights), -1).max(axis=1) / LARGEST).astype(np.float32)


def in_steps(weights: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.int8]:
    """`weights` (channels, …) in `steps` (channels,), int8; those beyond the range are clipped."""
    numbers = np.rint(weights / steps.reshape(-1, *[1] * (weights.ndim - 1)))
    return np.clip(numbers, -LARGEST, LARGEST).astype(np.int8)
