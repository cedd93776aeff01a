"""KL divergence between a histogram and its quantized form, which entropy calibration minimizes.

The method of TensorRT's entropy calibrator (S. Migacz, "8-bit Inference with TensorRT", GTC 2017), also in ONNX
Runtime (`HistogramCollector.get_entropy_threshold`). For a range that may clip:

    P  the histogram inside the range; clipped values are added to the outermost bins inside
    Q  the histogram inside the range without clipped values; the counts of each integer are spread evenly over those
       of its bins that are not empty in P
    KL(P‖Q) = Σ p · log(p / q), both normalized

Rounding makes Q smooth, clipping leaves the outermost bins of Q too small: both increase the divergence. Those sources
handle symmetric ranges of a whole number of bins. Here a bin belongs to the integer that its centre is rounded to, for
any quantization parameters. All q of one integer are equal, so sums over bins are differences of cumulative sums at the
borders of integers: all candidates of a tensor are evaluated at once, in a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from align_calibration.histograms import Histogram
from align_calibration.quant_params import QuantParams, QuantSpec

SMOOTHING = 1e-4  # count in Q of an integer that only clipped values fall on, as in ONNX Runtime


def kl_divergences(histogram: Histogram, candidates: Sequence[QuantParams], spec: QuantSpec) -> NDArray[np.float64]:
    """KL(P‖Q) for each of `candidates`, in nats, float64 (candidates,); infinite where fewer than two bins are inside.

    `histogram` has to hold more than one value: its `highest` is above its `lowest`.
    """
    counts = histogram.counts.astype(np.float64)
    borders = _borders(histogram, candidates, spec)  # (candidates, integers + 1)
    first, end = borders[:, 0], borders[:, -1]  # of the bins inside
    last = np.maximum(end - 1, 0)
    first_bin = np.minimum(first, len(counts) - 1)
    cumulative = _cumulative(counts)
    below, above = cumulative[first], cumulative[-1] - cumulative[end]

    inside = np.diff(cumulative[borders])  # values of each integer, (candidates, integers)
    filled = np.diff(_cumulative(counts > 0)[borders])  # bins of each integer that are not empty in P
    with_clipped = inside.copy()
    rows, has_bins = np.arange(len(candidates)), np.diff(borders) > 0
    lowest, highest = has_bins.argmax(axis=1), has_bins.shape[1] - 1 - has_bins[:, ::-1].argmax(axis=1)
    for integer, clipped, end_bin in ((lowest, below, first_bin), (highest, above, last)):
        with_clipped[rows, integer] += clipped
        filled[rows, integer] += (counts[end_bin] == 0) & (clipped > 0)

    terms = _cumulative(_times_log(counts))
    entropy = terms[end] - terms[first]  # Σ p · log(p) over the counts of P, before the outermost two bins get theirs
    entropy += _times_log(counts[first_bin] + below) - _times_log(counts[first_bin])
    entropy += _times_log(counts[last] + above) - _times_log(counts[last])
    occurs = with_clipped > 0
    smooth = np.where(occurs, np.maximum(inside, SMOOTHING), 0.0)
    cross = with_clipped * np.log(np.where(occurs, smooth / np.maximum(filled, 1), 1.0))
    total = counts.sum()
    with np.errstate(divide="ignore"):
        found = (entropy - cross.sum(axis=1)) / total + np.log(smooth.sum(axis=1) / total)
    return np.where(end - first >= 2, found, np.inf)


def _borders(histogram: Histogram, candidates: Sequence[QuantParams], spec: QuantSpec) -> NDArray[np.intp]:
    """First bin of each integer, and the end of the last integer's bins: (candidates, integers + 1)."""
    scales = np.array([params.scale for params in candidates])[:, None]
    zero_points = np.array([params.zero_point for params in candidates])[:, None]
    integers = np.arange(spec.quant_min, spec.quant_max + 2)
    bins = len(histogram.counts)
    width = (histogram.highest - histogram.lowest) / bins
    lowest_values = (integers - zero_points - 0.5) * scales
    return np.clip(np.ceil((lowest_values - histogram.lowest) / width - 0.5), 0, bins).astype(np.intp)


def _cumulative(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, … of `values`."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """v · log(v), 0 for 0."""
    return values * np.log(np.where(values > 0, values, 1.0))
