"""Affine quantization of floats to 8-bit integers: ``value = (integer − zero_point) · scale``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

MIN_SCALE = 1e-30  # of activations; its reciprocal and its products with other scales are still normal float32 values


@dataclass(frozen=True)
class QuantParams:
    """Quantization parameters of one tensor.

    Attributes:
        scale: difference between the values of two adjacent integers; a float32 value.
        zero_point: the integer that stands for 0.
        dtype: NumPy type of the integers, ``"uint8"`` or ``"int8"``.
    """

    scale: float
    zero_point: int
    dtype: str

    def within(self, low: float, high: float, spec: QuantSpec) -> QuantParams:
        """These parameters with the scale reduced, by the rounding of float32 at most, so that no integer stands for a
        value outside `low` … `high`."""
        scale = np.float32(self.scale)
        ends = np.float32(spec.quant_min - self.zero_point), np.float32(spec.quant_max - self.zero_point)
        slightly = np.float32(1 - 1e-6)
        if ends[0] * scale * slightly >= np.float32(low) and ends[1] * scale * slightly <= np.float32(high):
            while ends[0] * scale < np.float32(low) or ends[1] * scale > np.float32(high):
                scale = np.nextafter(scale, np.float32(0))
        return replace(self, scale=float(scale))


@dataclass(frozen=True)
class QuantSpec:
    """Integer type and symmetry of the activations on one kind of device.

    Attributes:
        dtype: NumPy type of the integers.
        quant_min, quant_max: their range; quantized values are clipped to it.
        symmetric: whether the zero point has to be 0, as TensorRT requires; half of the integers may then be unused.
    """

    dtype: str
    quant_min: int
    quant_max: int
    symmetric: bool

    def fit(self, low: float, high: float) -> QuantParams:
        """Quantization parameters that cover the range `low` … `high`, extended to include 0.

        0 must be exact: zero padding and closed gates produce it.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        span = max(-low, high) / self.quant_max if self.symmetric else (high - low) / (self.quant_max - self.quant_min)
        # float32, the type that the graph stores; a tensor that is always 0, or hardly more, gets an arbitrary scale.
        scale = float(np.float32(span)) if span >= MIN_SCALE else 1.0
        zero_point = 0 if self.symmetric else self.quant_min + round(-low / scale)
        return QuantParams(scale, min(max(zero_point, self.quant_min), self.quant_max), self.dtype)

    def ends(self, params: QuantParams) -> tuple[float, float]:
        """The smallest and the largest value that an integer of `params` stands for."""
        low, high = ((end - params.zero_point) * params.scale for end in (self.quant_min, self.quant_max))
        return low, high


UINT8 = QuantSpec("uint8", 0, 255, symmetric=False)
INT8 = QuantSpec("int8", -128, 127, symmetric=True)
