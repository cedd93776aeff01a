"""Observers: from the histogram of a tensor to the range that 8 bits are spread over.

A range that holds every value wastes steps on rare ones; a narrower one clips them. Which observer is best differs from
checkpoint to checkpoint and is measured (see align_exporter/int8/calibrate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from align_calibration.divergence import divergences
from align_calibration.histograms import Histogram
from align_calibration.quant_params import QuantParams, QuantSpec

CUTS = np.linspace(0.0, 0.75, 16)  # shares of either side that may be cut off where the best range is searched for
AVERAGING = 0.01  # weight of a new sample in a moving average; torch's default

Observer = Callable[[Histogram, QuantSpec], QuantParams]
Function = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def min_max(histogram: Histogram, grid: QuantSpec) -> QuantParams:
    """The whole range."""
    return grid.scale(histogram.lowest, histogram.highest)


def moving_average(histogram: Histogram, grid: QuantSpec) -> QuantParams:
    """Lowest and highest value of a sample, each averaged over the samples in order, exponentially.

    As `torch.ao.quantization.MovingAverageMinMaxObserver`: begin with the first sample, then ``average += 0.01 · (value
    − average)``. Runaways count as the ends of the range, as in the counts.
    """
    ages = np.arange(len(histogram.lows))[::-1]
    weights = AVERAGING * (1.0 - AVERAGING) ** ages
    weights[0] /= AVERAGING
    lows = np.maximum(histogram.lows, histogram.lowest)
    highs = np.minimum(histogram.highs, histogram.highest)
    return grid.scale(float(weights @ lows), float(weights @ highs))


def percentile(share: float) -> Observer:
    """An observer that leaves out ``1 − share`` of all values, half of them on either side."""

    def observe(histogram: Histogram, grid: QuantSpec) -> QuantParams:
        total = np.cumsum(histogram.counts) / histogram.counts.sum()
        tail = (1.0 - share) / 2
        first, last = np.searchsorted(total, [tail, 1.0 - tail])
        edges = np.linspace(histogram.lowest, histogram.highest, len(histogram.counts) + 1)
        return grid.scale(edges[first], edges[min(int(last) + 1, len(histogram.counts))])

    return observe


def least_error(histogram: Histogram, grid: QuantSpec) -> QuantParams:
    """The range, cut on either side, whose rounding and clipping have the smallest mean square."""
    return _least_error(histogram, grid, lambda values: values)


def least_error_behind_swish(histogram: Histogram, grid: QuantSpec) -> QuantParams:
    """The same for a tensor that nothing but a swish reads: the change of x · sigmoid(x) is made smallest.

    Behind it everything below −8 is next to nothing, so that a range that ends at −4 instead of −14 gives the positive
    values, which pass unchanged, steps of half the size.
    """
    return _least_error(histogram, grid, _swish)


def entropy(histogram: Histogram, grid: QuantSpec) -> QuantParams:
    """The range, cut on either side, of which 8 bits tell most: see `align_calibration.divergence`."""
    scales = _candidates(histogram, grid)
    if len(scales) == 1 or histogram.highest <= histogram.lowest:
        return scales[0]
    return scales[int(np.argmin(divergences(histogram, scales, grid)))]


def _candidates(histogram: Histogram, grid: QuantSpec) -> list[QuantParams]:
    """Scales of the range with `CUTS` on either side, the whole range first."""
    lows = min(histogram.lowest, 0.0) * (1.0 - CUTS)
    highs = max(histogram.highest, 0.0) * (1.0 - CUTS)
    return list(dict.fromkeys(grid.scale(low, high) for low in lows for high in highs))


def _least_error(histogram: Histogram, grid: QuantSpec, behind: Function) -> QuantParams:
    """The candidate whose numbers, as `behind` maps them, have the smallest mean square error."""
    filled = histogram.counts > 0
    centres, counts = histogram.centres[filled], histogram.counts[filled]
    exact, scales = behind(centres), _candidates(histogram, grid)
    errors = [(((behind(_rounded(centres, scale, grid)) - exact) ** 2) * counts).sum() for scale in scales]
    return scales[int(np.argmin(errors))]


def _rounded(values: NDArray[np.floating], scale: QuantParams, grid: QuantSpec) -> NDArray[np.floating]:
    numbers = np.clip(np.rint(values / scale.scale) + scale.zero_point, grid.lowest, grid.highest)
    return (numbers - scale.zero_point) * scale.scale


def _swish(values: NDArray[np.floating]) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):  # far below 0 the quotient is the 0 that it has to be
        return values / (1.0 + np.exp(-values))


OBSERVERS: Mapping[str, Observer] = {
    "min-max": min_max,
    "moving average": moving_average,
    "percentile 99.999": percentile(0.99999),
    "percentile 99.99": percentile(0.9999),
    "percentile 99.97": percentile(0.9997),
    "percentile 99.9": percentile(0.999),
    "entropy": entropy,
    "least error": least_error,
}
