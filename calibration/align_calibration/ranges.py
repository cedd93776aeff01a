"""Activation ranges: how large every tensor of a graph gets on samples, and what storing it in FP16 would cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorRange:
    """One float tensor of a graph over all samples.

    Attributes:
        tensor: its name in the graph, which is also its node's.
        operator: of the node that computes it, e.g. ``"Conv"``.
        max_abs: largest absolute value.
        rms: root of the mean square.
        rounding_error: norm of what rounding to FP16 would change, divided by the tensor's norm; 2⁻¹² or so for
            values in FP16's normal range, up to 1 where all fall below its subnormals, NaN where it overflows.
    """

    tensor: str
    operator: str
    max_abs: float
    rms: float
    rounding_error: float
