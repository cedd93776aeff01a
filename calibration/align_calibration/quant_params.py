"""Integers of 8 bits for floats: ``value = (number − zero_point) · scale``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class QuantParams:
    """How one tensor is stored: numbers of the NumPy type `dtype`, the float `scale` between them, the number of 0."""

    scale: float
    zero_point: int
    dtype: str


@dataclass(frozen=True)
class QuantSpec:
    """The numbers that activations may take on a target.

    Attributes:
        dtype: their NumPy type.
        lowest, highest: of them; what is quantised is clipped there.
        symmetric: whether 0 has to be the number 0, as TensorRT demands, so that half of them may go unused.
    """

    dtype: str
    lowest: int
    highest: int
    symmetric: bool

    def scale(self, low: float, high: float) -> QuantParams:
        """The scale that spreads the numbers over `low` … `high`, extended to 0 where it is outside.

        Zero padding and the gate of a closed channel need 0 exactly.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        span = max(-low, high) / self.highest if self.symmetric else (high - low) / (self.highest - self.lowest)
        # As float32, in which the graph holds it; a tensor that is always 0 gets any step.
        step = float(np.float32(span)) or 1.0
        number = 0 if self.symmetric else self.lowest + round(-low / step)
        return QuantParams(step, int(np.clip(number, self.lowest, self.highest)), self.dtype)


UINT8 = QuantSpec("uint8", 0, 255, symmetric=False)
INT8 = QuantSpec("int8", -128, 127, symmetric=True)
