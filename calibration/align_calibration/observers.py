"""Observers: from the histogram of a tensor to its quantization parameters.

A range that holds every value spends integers on rare ones; a narrower range clips them. The best observer differs
between checkpoints and is measured (see align_exporter/int8/calibrate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from align_calibration.histograms import Histogram
from align_calibration.kl_divergence import kl_divergences
from align_calibration.quant_params import QuantParams, QuantSpec

CUTS = np.linspace(0.0, 0.75, 16)  # fractions of either side that the search for the best range cuts off
CONSTANT = 1e-6  # of the span of an activation: results that differ by less are one
AVERAGING = 0.01  # weight of a new sample in a moving average; torch's default

Observer = Callable[[Histogram, QuantSpec], QuantParams]
# A function applied value by value; one that gives several results per value puts them on a last axis.
Activation = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def min_max(histogram: Histogram, spec: QuantSpec) -> QuantParams:
    """The whole range, without outlier samples."""
    return spec.fit(histogram.lowest, histogram.highest)


def widened(observer: Observer, factor: float) -> Observer:
    """Returns an observer whose scales are `factor` times as large, for values beyond those of the samples."""

    def observe(histogram: Histogram, spec: QuantSpec) -> QuantParams:
        params = observer(histogram, spec)
        return replace(params, scale=float(np.float32(params.scale * factor)))

    return observe


def moving_average(histogram: Histogram, spec: QuantSpec) -> QuantParams:
    """Exponential moving averages of the lowest and the highest value of each sample, in order.

    As `torch.ao.quantization.MovingAverageMinMaxObserver`: starts with the first sample, then ``average += 0.01 ·
    (value − average)``. The extremes of outlier samples are clipped to the range of the histogram first.
    """
    ages = np.arange(len(histogram.lows))[::-1]
    weights = AVERAGING * (1.0 - AVERAGING) ** ages
    weights[0] /= AVERAGING
    lows = np.maximum(histogram.lows, histogram.lowest)
    highs = np.minimum(histogram.highs, histogram.highest)
    return spec.fit(float(weights @ lows), float(weights @ highs))


def percentile(fraction: float) -> Observer:
    """Returns an observer that keeps `fraction` of all values and clips half of the others on either side."""

    def observe(histogram: Histogram, spec: QuantSpec) -> QuantParams:
        total = np.cumsum(histogram.counts) / histogram.counts.sum()
        tail = (1.0 - fraction) / 2
        first, last = np.searchsorted(total, [tail, 1.0 - tail])
        edges = np.linspace(histogram.lowest, histogram.highest, len(histogram.counts) + 1)
        return spec.fit(edges[first], edges[min(int(last) + 1, len(histogram.counts))])

    return observe


def entropy(histogram: Histogram, spec: QuantSpec) -> QuantParams:
    """The candidate range with the smallest KL divergence: see `align_calibration.kl_divergence`."""
    candidates = _candidates(histogram, spec)
    if len(candidates) == 1 or histogram.highest <= histogram.lowest:
        return candidates[0]
    return candidates[int(np.argmin(kl_divergences(histogram, candidates, spec)))]


def mse(histogram: Histogram, spec: QuantSpec) -> QuantParams:
    """The candidate range with the smallest mean square error of rounding and clipping."""
    return _smallest_mse(histogram, spec, _candidates(histogram, spec), lambda values: values)


def mse_after(activation: Activation) -> Observer:
    """Returns an observer as `mse`, with the error measured after `activation`: for tensors that are read through it.

    Swish maps values below −8 almost to 0. A range that starts at −4 instead of −14 halves the scale and so the error
    of positive values, which pass almost unchanged. Where an activation is constant up to either end of the range, as
    a clip is, the search starts where it ceases to be.
    """

    def observe(histogram: Histogram, spec: QuantSpec) -> QuantParams:
        lowest, highest = _varying(histogram, activation)
        candidates = _candidates(replace(histogram, lowest=lowest, highest=highest), spec)
        return _smallest_mse(histogram, spec, candidates, activation)

    return observe


def _varying(histogram: Histogram, activation: Activation) -> tuple[float, float]:
    """The range of `histogram` without the ends in which `activation` is constant."""
    results = activation(histogram.centres).reshape(len(histogram.counts), -1)
    least = CONSTANT * (results.max(axis=0) - results.min(axis=0))
    edges = np.linspace(histogram.lowest, histogram.highest, len(results) + 1)
    # How many bins give the same as the outermost one, without the last of them; 0 where all do.
    below, above = (
        max(int((np.abs(rows - rows[0]) > least).any(axis=1).argmax()) - 1, 0) for rows in (results, results[::-1])
    )
    return float(edges[below]), float(edges[len(results) - above])


def _candidates(histogram: Histogram, spec: QuantSpec) -> list[QuantParams]:
    """Quantization parameters of the range with each of `CUTS` on either side, the whole range first."""
    lows = min(histogram.lowest, 0.0) * (1.0 - CUTS)
    highs = max(histogram.highest, 0.0) * (1.0 - CUTS)
    return list(dict.fromkeys(spec.fit(low, high) for low in lows for high in highs))


def _smallest_mse(
    histogram: Histogram, spec: QuantSpec, candidates: Sequence[QuantParams], activation: Activation
) -> QuantParams:
    """The one of `candidates` with the smallest mean square error after `activation`."""
    filled = histogram.counts > 0
    centres, counts = histogram.centres[filled], histogram.counts[filled]
    exact = activation(centres)
    rounded = activation(np.stack([_dequantized(centres, params, spec) for params in candidates]))
    squares = ((rounded - exact) ** 2).reshape(len(candidates), len(centres), -1).sum(axis=-1)
    return candidates[int(np.argmin(squares @ counts))]


def _dequantized(values: NDArray[np.floating], params: QuantParams, spec: QuantSpec) -> NDArray[np.floating]:
    """`values`, quantized and dequantized."""
    integers = np.clip(np.rint(values / params.scale) + params.zero_point, spec.quant_min, spec.quant_max)
    return (integers - params.zero_point) * params.scale


OBSERVERS: Mapping[str, Observer] = {
    "min-max": min_max,
    "moving average": moving_average,
    "percentile 99.999": percentile(0.99999),
    "percentile 99.99": percentile(0.9999),
    "percentile 99.97": percentile(0.9997),
    "percentile 99.9": percentile(0.999),
    "entropy": entropy,
    "MSE": mse,
}
