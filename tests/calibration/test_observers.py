"""Observers against their definitions, NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.ao.quantization import MovingAverageMinMaxObserver

from align_calibration.histograms import BINS, Histogram
from align_calibration.kl_divergence import SMOOTHING, kl_divergences
from align_calibration.observers import (
    CUTS,
    OBSERVERS,
    Observer,
    entropy,
    min_max,
    moving_average,
    mse,
    mse_after,
    percentile,
    widened,
)
from align_calibration.quant_params import INT8, UINT8, QuantParams, QuantSpec


def histogram(values: np.ndarray, samples: int = 20) -> Histogram:
    """Histogram of `values`, which come from `samples` samples in order."""
    counts, _ = np.histogram(values, BINS)
    parts = np.array_split(values, samples)
    lows, highs = (np.array([function(part) for part in parts]) for function in (np.min, np.max))
    return Histogram(float(values.min()), float(values.max()), counts, lows, highs)


SPECS = [UINT8, INT8]
BOTH = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)


def ends(params: QuantParams) -> tuple[float, float]:
    """Values of the smallest and the largest integer."""
    limits = np.iinfo(params.dtype)
    return (limits.min - params.zero_point) * params.scale, (limits.max - params.zero_point) * params.scale


def error(params: QuantParams, values: np.ndarray) -> float:
    limits = np.iinfo(params.dtype)
    integers = np.clip(np.rint(values / params.scale) + params.zero_point, limits.min, limits.max)
    return float((((integers - params.zero_point) * params.scale - values) ** 2).mean())


NORMAL = np.random.default_rng(0).standard_normal(100_000)
TAILED = np.concatenate([NORMAL, [60.0]])


def test_parameters_cover_the_range() -> None:
    params = UINT8.fit(-1.0, 3.0)
    low, high = ends(params)
    assert (low, high) == pytest.approx((-1.0, 3.0), abs=params.scale)
    assert params.scale == np.float32(4 / 255)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 1.0), (0.0, 3.0)])
def test_symmetric_parameters_cover_the_larger_end(low: float, high: float) -> None:
    params = INT8.fit(low, high)
    assert params == QuantParams(float(np.float32(3 / 127)), 0, "int8")


@pytest.mark.parametrize(("low", "high", "zero_point"), [(0.5, 2.0, 0), (-2.0, -0.5, 255), (0.0, 0.0, 0)])
def test_zero_is_exact(low: float, high: float, zero_point: int) -> None:
    params = UINT8.fit(low, high)
    assert params.zero_point == zero_point
    assert params.scale > 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-6.0, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-7, 1 + 4e-7, 1 + 8e-7])
def test_no_integer_stands_for_a_value_outside_of_a_clip(low: float, high: float, factor: float) -> None:
    """A range that was measured behind it may exceed it by rounding; ONNX Runtime would keep the Clip."""
    fitted = UINT8.fit(low * factor, high * factor)
    found = fitted.within(low, high, UINT8)
    lowest, highest = (np.float32(end - found.zero_point) * np.float32(found.scale) for end in (0, 255))
    assert np.float32(low) <= lowest <= highest <= np.float32(high)
    assert found.scale == pytest.approx(fitted.scale, rel=1e-6)
    assert found.zero_point == fitted.zero_point


@pytest.mark.parametrize("fitted", [UINT8.fit(0, 9), UINT8.fit(-1, 5), UINT8.fit(0, 3)])
def test_any_other_range_stays_beside_a_clip(fitted: QuantParams) -> None:
    assert fitted.within(0, 6, UINT8) == fitted


@BOTH
def test_min_max_clips_nothing(spec: QuantSpec) -> None:
    low, high = ends(min_max(histogram(TAILED), spec))
    assert low <= TAILED.min() + 0.3
    assert high == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("share", [0.999, 0.99])
def test_percentile_clips_the_rest(share: float) -> None:
    low, high = ends(percentile(share)(histogram(NORMAL), UINT8))
    outside = ((low > NORMAL) | (high < NORMAL)).mean()
    assert outside == pytest.approx(1 - share, rel=0.2)


@BOTH
def test_percentile_ignores_one_far_value(spec: QuantSpec) -> None:
    assert ends(percentile(0.9999)(histogram(TAILED), spec))[1] < 5


@BOTH
@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1])
def test_no_observer_has_a_smaller_error_than_mse(values: np.ndarray, spec: QuantSpec) -> None:
    found = error(mse(histogram(values), spec), values)
    for other in OBSERVERS.values():
        assert found <= error(other(histogram(values), spec), values) * 1.02


@BOTH
def test_mse_beats_min_max_where_values_are_rare(spec: QuantSpec) -> None:
    values = np.concatenate([NORMAL, [9.0]])
    assert error(mse(histogram(values), spec), values) < 0.9 * error(min_max(histogram(values), spec), values)


@BOTH
@pytest.mark.parametrize("observe", OBSERVERS.values(), ids=list(OBSERVERS))
def test_a_tensor_of_zeros_gets_a_scale(observe: Observer, spec: QuantSpec) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 5
    params = observe(Histogram(0.0, 0.0, counts, np.zeros(5), np.zeros(5)), spec)
    assert params.scale > 0
    assert params.zero_point == 0


@BOTH
def test_the_moving_average_agrees_with_torch(spec: QuantSpec) -> None:
    parts = [part * (1 + index % 3) for index, part in enumerate(np.array_split(NORMAL, 50))]
    oracle = MovingAverageMinMaxObserver()
    for part in parts:
        oracle(torch.from_numpy(part))
    params = moving_average(histogram(np.concatenate(parts), 50), spec)
    assert params.scale == pytest.approx(spec.fit(float(oracle.min_val), float(oracle.max_val)).scale, rel=1e-5)


@BOTH
def test_the_moving_average_depends_on_the_order_and_stays_in_the_range(spec: QuantSpec) -> None:
    counts, zeros = np.ones(BINS, dtype=np.int64), np.zeros(3)
    rising, falling = (
        moving_average(Histogram(0.0, 100.0, counts, zeros, np.array(highs)), spec)
        for highs in ([1.0, 1.0, 2.0], [2.0, 1.0, 1.0])
    )
    assert ends(rising)[1] == pytest.approx(1.01, abs=rising.scale)
    assert ends(falling)[1] == pytest.approx(1 + 0.99**2, abs=falling.scale)
    outlier = Histogram(0.0, 4.0, counts, zeros, np.array([4.0, 4.0, 1e6]))
    assert ends(moving_average(outlier, spec))[1] == pytest.approx(4.0, abs=0.1)


def naive_divergence(found: Histogram, params: QuantParams, spec: QuantSpec) -> float:
    """KL(P‖Q), bin by bin, written as in the sources that align_calibration.kl_divergence names."""
    integers = np.round(found.centres / params.scale) + params.zero_point
    inside = np.flatnonzero((integers >= spec.quant_min) & (integers <= spec.quant_max))
    p = np.zeros(BINS)
    p[inside] = found.counts[inside]
    p[inside[0]] += found.counts[: inside[0]].sum()
    p[inside[-1]] += found.counts[inside[-1] + 1 :].sum()
    q = np.zeros(BINS)
    for integer in np.unique(integers[inside]):
        bins = inside[integers[inside] == integer]
        bins = bins[p[bins] > 0]
        q[bins] = max(found.counts[bins].sum(), SMOOTHING) / max(len(bins), 1)
    p, q = p[p > 0] / p.sum(), q[p > 0] / q.sum()
    return float((p * np.log(p / q)).sum())


@BOTH
@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1, NORMAL + 40])
def test_divergences_agree_with_the_definition(values: np.ndarray, spec: QuantSpec) -> None:
    found = histogram(values)
    low, high = min(found.lowest, 0.0), max(found.highest, 0.0)
    candidates = [spec.fit(low * keep, high * other) for keep in (1.0, 0.8, 0.3) for other in (1.0, 0.99, 0.6, 0.25)]
    candidates = [params for params in dict.fromkeys(candidates) if ends(params)[1] - 2 * params.scale > found.lowest]
    assert len(candidates) >= 2
    expected = [naive_divergence(found, params, spec) for params in candidates]
    np.testing.assert_allclose(kl_divergences(found, candidates, spec), expected, rtol=1e-6, atol=1e-12)
    assert min(expected) >= 0


@BOTH
def test_the_divergence_of_a_range_without_values_is_infinite(spec: QuantSpec) -> None:
    outside, around = spec.fit(0.0, 1.0), spec.fit(0.0, 50.0)
    found = kl_divergences(histogram(NORMAL + 40), [outside, around], spec)
    assert np.isinf(found[0])
    assert np.isfinite(found[1])


@BOTH
def test_entropy_has_the_smallest_divergence_of_all_candidates(spec: QuantSpec) -> None:
    found = histogram(TAILED)
    candidates = [spec.fit(found.lowest * (1 - low), found.highest * (1 - high)) for low in CUTS for high in CUTS]
    assert kl_divergences(found, [entropy(found, spec)], spec)[0] == kl_divergences(found, candidates, spec).min()


@BOTH
def test_entropy_keeps_an_even_distribution_and_clips_rare_values(spec: QuantSpec) -> None:
    even = np.linspace(-1, 1, 400_000)
    assert entropy(histogram(even), spec) == min_max(histogram(even), spec)
    assert ends(entropy(histogram(TAILED), spec))[1] < 20


@BOTH
def test_entropy_of_one_value(spec: QuantSpec) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 12
    constant = Histogram(2.5, 2.5, counts, np.full(3, 2.5), np.full(3, 2.5))
    assert entropy(constant, spec) == min_max(constant, spec)


def swish(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-values))


@BOTH
def test_before_a_swish_very_negative_values_are_clipped(spec: QuantSpec) -> None:
    values = np.concatenate([4 * NORMAL - 4, [-30.0, 9.0]])
    plain, after = (observe(histogram(values), spec) for observe in (mse, mse_after(swish)))
    limits = np.iinfo(spec.dtype)

    def error_after_swish(params: QuantParams) -> float:
        integers = np.clip(np.rint(values / params.scale) + params.zero_point, limits.min, limits.max)
        return float(((swish((integers - params.zero_point) * params.scale) - swish(values)) ** 2).mean())

    assert error_after_swish(after) < 0.6 * error_after_swish(plain)
    assert ends(after)[0] > ends(plain)[0]
    assert ends(after)[1] > 0.9 * values.max()


@BOTH
@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("value", [0.0, 3.0, -0.5, 1e-8, -1e-37, 1e-42])
def test_a_tensor_that_is_constant_has_a_scale(spec: QuantSpec, name: str, value: float) -> None:
    """Its values are within half a scale; a scale is a normal number with a finite reciprocal."""
    values = np.full(4000, value, dtype=np.float32)
    counts = np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)  # as `histograms._count` counts
    lows = values[:20].astype(np.float64)
    params = OBSERVERS[name](Histogram(float(lows[0]), float(lows[0]), counts, lows, lows), spec)
    assert params.scale >= 1e-30
    assert np.isfinite(np.float32(1) / np.float32(params.scale))
    assert error(params, values.astype(np.float64)) <= (0.5001 * params.scale) ** 2


@BOTH
def test_wider_ranges_hold_more_with_the_same_zero(spec: QuantSpec) -> None:
    plain, wide = (observe(histogram(TAILED), spec) for observe in (min_max, widened(min_max, 1.2)))
    assert wide.zero_point == plain.zero_point
    assert wide.scale == np.float32(wide.scale)
    np.testing.assert_allclose(ends(wide), 1.2 * np.array(ends(plain)), rtol=1e-6)
