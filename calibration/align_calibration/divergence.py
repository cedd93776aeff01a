"""What 8 bits tell of a distribution: the divergence that entropy calibration makes smallest.

The method of TensorRT's entropy calibrator (S. Migacz, "8-bit Inference with TensorRT", GTC 2017), also in ONNX
Runtime (`HistogramCollector.get_entropy_threshold`). For a range that may clip:

    P  the histogram inside the range; what lies outside is added to the outermost bins inside
    Q  the histogram inside the range without that, each number of 8 bits spread evenly over those of its bins that are
       not empty in P
    KL(P‖Q) = Σ p · log(p / q), both normalised

Rounding makes Q smooth, clipping leaves the outermost bins of Q too small: both cost. Those sources know ranges that
are symmetric around 0 and as wide as a whole number of bins; here bins belong to the number that their middle is
rounded to, for any scale. Inside a number all q are the same, so that sums over bins become differences of cumulative
sums at the borders of numbers: every scale of a tensor is judged at once, in a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from align_calibration.histograms import Histogram
from align_calibration.quant_params import QuantParams, QuantSpec

SMOOTHING = 1e-4  # of a value: what a number that clipped values alone fall on counts for in Q, as in ONNX Runtime


def divergences(histogram: Histogram, scales: Sequence[QuantParams], grid: QuantSpec) -> NDArray[np.float64]:
    """KL(P‖Q) for each of `scales`, in nats, float64 (scales,); infinite for one with fewer than two bins inside.

    `histogram` holds more than one value, that is, its highest is above its lowest.
    """
    counts = histogram.counts.astype(np.float64)
    borders = _borders(histogram, scales, grid)  # (scales, numbers + 1)
    first, end = borders[:, 0], borders[:, -1]  # of the bins inside
    last = np.maximum(end - 1, 0)
    first_bin = np.minimum(first, len(counts) - 1)
    cumulative = _cumulative(counts)
    below, above = cumulative[first], cumulative[-1] - cumulative[end]

    inside = np.diff(cumulative[borders])  # values of each number, (scales, numbers)
    filled = np.diff(_cumulative(counts > 0)[borders])  # bins of each number that are not empty in P
    with_clipped = inside.copy()
    rows, taken = np.arange(len(scales)), np.diff(borders) > 0
    lowest, highest = taken.argmax(axis=1), taken.shape[1] - 1 - taken[:, ::-1].argmax(axis=1)
    for number, clipped, end_bin in ((lowest, below, first_bin), (highest, above, last)):
        with_clipped[rows, number] += clipped
        filled[rows, number] += (counts[end_bin] == 0) & (clipped > 0)

    own = _cumulative(_times_log(counts))
    entropy = own[end] - own[first]  # Σ p · log(p) of P's counts: those of the bins inside, but for the outermost two
    entropy += _times_log(counts[first_bin] + below) - _times_log(counts[first_bin])
    entropy += _times_log(counts[last] + above) - _times_log(counts[last])
    met = with_clipped > 0
    smooth = np.where(met, np.maximum(inside, SMOOTHING), 0.0)
    cross = with_clipped * np.log(np.where(met, smooth / np.maximum(filled, 1), 1.0))
    total = counts.sum()
    with np.errstate(divide="ignore"):
        found = (entropy - cross.sum(axis=1)) / total + np.log(smooth.sum(axis=1) / total)
    return np.where(end - first >= 2, found, np.inf)


def _borders(histogram: Histogram, scales: Sequence[QuantParams], grid: QuantSpec) -> NDArray[np.intp]:
    """First bin of each number, and the end of the last one's: (scales, numbers + 1)."""
    steps = np.array([scale.scale for scale in scales])[:, None]
    zero_points = np.array([scale.zero_point for scale in scales])[:, None]
    numbers = np.arange(grid.lowest, grid.highest + 2)
    bins = len(histogram.counts)
    width = (histogram.highest - histogram.lowest) / bins
    lowest_values = (numbers - zero_points - 0.5) * steps
    return np.clip(np.ceil((lowest_values - histogram.lowest) / width - 0.5), 0, bins).astype(np.intp)


def _cumulative(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, … of `values`."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """v · log(v), 0 for 0."""
    return values * np.log(np.where(values > 0, values, 1.0))
