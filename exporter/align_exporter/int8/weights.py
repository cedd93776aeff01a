"""Weights as int8, with a scale for each output channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 127  # −128 is left out: a symmetric range needs no zero point


def quantized_weights(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """`weights` (channels, …) as int8 of the same shape, and the step of each channel, float32 (channels,)."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    # A channel of zeros, or of numbers that no step in float32 is small enough for, gets any step.
    steps = np.maximum((largest / LARGEST).astype(np.float32), np.finfo(np.float32).tiny)
    numbers = np.rint(weights / steps.reshape(-1, *[1] * (weights.ndim - 1)))
    return np.clip(numbers, -LARGEST, LARGEST).astype(np.int8), steps
