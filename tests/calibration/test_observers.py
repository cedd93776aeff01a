"""What each observer makes of a histogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.ao.quantization import MovingAverageMinMaxObserver

from align_calibration.divergence import SMOOTHING, divergences
from align_calibration.histograms import BINS, Histogram
from align_calibration.observers import (
    CUTS,
    OBSERVERS,
    Observer,
    entropy,
    least_error,
    least_error_behind_swish,
    min_max,
    moving_average,
    percentile,
)
from align_calibration.quant_params import INT8, UINT8, QuantParams, QuantSpec


def histogram(values: np.ndarray, samples: int = 20) -> Histogram:
    """Of `values`, which are those of so many samples."""
    counts, _ = np.histogram(values, BINS)
    parts = np.array_split(values, samples)
    lows, highs = (np.array([function(part) for part in parts]) for function in (np.min, np.max))
    return Histogram(float(values.min()), float(values.max()), counts, lows, highs)


GRIDS = [UINT8, INT8]
BOTH = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.dtype)


def ends(scale: QuantParams) -> tuple[float, float]:
    """The values of the lowest and the highest number."""
    numbers = np.iinfo(scale.dtype)
    return (numbers.min - scale.zero_point) * scale.scale, (numbers.max - scale.zero_point) * scale.scale


def error(scale: QuantParams, values: np.ndarray) -> float:
    limits = np.iinfo(scale.dtype)
    numbers = np.clip(np.rint(values / scale.scale) + scale.zero_point, limits.min, limits.max)
    return float((((numbers - scale.zero_point) * scale.scale - values) ** 2).mean())


NORMAL = np.random.default_rng(0).standard_normal(100_000)
TAILED = np.concatenate([NORMAL, [60.0]])


def test_the_range_is_spread_over_all_numbers() -> None:
    scale = UINT8.scale(-1.0, 3.0)
    low, high = ends(scale)
    assert (low, high) == pytest.approx((-1.0, 3.0), abs=scale.scale)
    assert scale.scale == np.float32(4 / 255)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 1.0), (0.0, 3.0)])
def test_a_symmetric_range_is_as_wide_as_its_farther_end(low: float, high: float) -> None:
    scale = INT8.scale(low, high)
    assert scale == QuantParams(float(np.float32(3 / 127)), 0, "int8")


@pytest.mark.parametrize(("low", "high", "zero_point"), [(0.5, 2.0, 0), (-2.0, -0.5, 255), (0.0, 0.0, 0)])
def test_zero_is_always_a_number(low: float, high: float, zero_point: int) -> None:
    scale = UINT8.scale(low, high)
    assert scale.zero_point == zero_point
    assert scale.scale > 0


@BOTH
def test_min_max_clips_nothing(grid: QuantSpec) -> None:
    low, high = ends(min_max(histogram(TAILED), grid))
    assert low <= TAILED.min() + 0.3
    assert high == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("share", [0.999, 0.99])
def test_percentile_leaves_out_the_rest(share: float) -> None:
    low, high = ends(percentile(share)(histogram(NORMAL), UINT8))
    outside = ((low > NORMAL) | (high < NORMAL)).mean()
    assert outside == pytest.approx(1 - share, rel=0.2)


@BOTH
def test_percentile_ignores_one_far_value(grid: QuantSpec) -> None:
    assert ends(percentile(0.9999)(histogram(TAILED), grid))[1] < 5


@BOTH
@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1])
def test_least_error_is_the_least(values: np.ndarray, grid: QuantSpec) -> None:
    found = error(least_error(histogram(values), grid), values)
    for other in OBSERVERS.values():
        assert found <= error(other(histogram(values), grid), values) * 1.02


@BOTH
def test_least_error_beats_min_max_where_values_are_rare(grid: QuantSpec) -> None:
    values = np.concatenate([NORMAL, [9.0]])
    assert error(least_error(histogram(values), grid), values) < 0.9 * error(min_max(histogram(values), grid), values)


@BOTH
@pytest.mark.parametrize("observe", OBSERVERS.values(), ids=list(OBSERVERS))
def test_a_tensor_of_zeros_gets_a_scale(observe: Observer, grid: QuantSpec) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 5
    scale = observe(Histogram(0.0, 0.0, counts, np.zeros(5), np.zeros(5)), grid)
    assert scale.scale > 0
    assert scale.zero_point == 0


@BOTH
def test_a_moving_average_is_that_of_torch(grid: QuantSpec) -> None:
    parts = [part * (1 + index % 3) for index, part in enumerate(np.array_split(NORMAL, 50))]
    oracle = MovingAverageMinMaxObserver()
    for part in parts:
        oracle(torch.from_numpy(part))
    scale = moving_average(histogram(np.concatenate(parts), 50), grid)
    assert scale.scale == pytest.approx(grid.scale(float(oracle.min_val), float(oracle.max_val)).scale, rel=1e-5)


@BOTH
def test_a_moving_average_follows_the_order_of_samples_and_ends_at_the_range(grid: QuantSpec) -> None:
    counts, zeros = np.ones(BINS, dtype=np.int64), np.zeros(3)
    rising, falling = (
        moving_average(Histogram(0.0, 100.0, counts, zeros, np.array(highs)), grid)
        for highs in ([1.0, 1.0, 2.0], [2.0, 1.0, 1.0])
    )
    assert ends(rising)[1] == pytest.approx(1.01, abs=rising.scale)
    assert ends(falling)[1] == pytest.approx(1 + 0.99**2, abs=falling.scale)
    runaway = Histogram(0.0, 4.0, counts, zeros, np.array([4.0, 4.0, 1e6]))
    assert ends(moving_average(runaway, grid))[1] == pytest.approx(4.0, abs=0.1)


def naive_divergence(found: Histogram, scale: QuantParams, grid: QuantSpec) -> float:
    """KL(P‖Q), bin by bin, as the sources of align_calibration.divergence write it down."""
    numbers = np.round(found.centres / scale.scale) + scale.zero_point
    inside = np.flatnonzero((numbers >= grid.lowest) & (numbers <= grid.highest))
    p = np.zeros(BINS)
    p[inside] = found.counts[inside]
    p[inside[0]] += found.counts[: inside[0]].sum()
    p[inside[-1]] += found.counts[inside[-1] + 1 :].sum()
    q = np.zeros(BINS)
    for number in np.unique(numbers[inside]):
        bins = inside[numbers[inside] == number]
        bins = bins[p[bins] > 0]
        q[bins] = max(found.counts[bins].sum(), SMOOTHING) / max(len(bins), 1)
    p, q = p[p > 0] / p.sum(), q[p > 0] / q.sum()
    return float((p * np.log(p / q)).sum())


@BOTH
@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1, NORMAL + 40])
def test_divergences_are_those_of_the_definition(values: np.ndarray, grid: QuantSpec) -> None:
    found = histogram(values)
    low, high = min(found.lowest, 0.0), max(found.highest, 0.0)
    scales = [grid.scale(low * keep, high * other) for keep in (1.0, 0.8, 0.3) for other in (1.0, 0.99, 0.6, 0.25)]
    scales = [scale for scale in dict.fromkeys(scales) if ends(scale)[1] - 2 * scale.scale > found.lowest]
    assert len(scales) >= 2
    expected = [naive_divergence(found, scale, grid) for scale in scales]
    np.testing.assert_allclose(divergences(found, scales, grid), expected, rtol=1e-6, atol=1e-12)
    assert min(expected) >= 0


@BOTH
def test_a_range_without_values_tells_nothing(grid: QuantSpec) -> None:
    outside, around = grid.scale(0.0, 1.0), grid.scale(0.0, 50.0)
    found = divergences(histogram(NORMAL + 40), [outside, around], grid)
    assert np.isinf(found[0])
    assert np.isfinite(found[1])


@BOTH
def test_entropy_is_the_least_divergence_that_a_cut_can_have(grid: QuantSpec) -> None:
    found = histogram(TAILED)
    scales = [grid.scale(found.lowest * (1 - low), found.highest * (1 - high)) for low in CUTS for high in CUTS]
    assert divergences(found, [entropy(found, grid)], grid)[0] == divergences(found, scales, grid).min()


@BOTH
def test_entropy_keeps_what_is_spread_evenly_and_cuts_rare_values_off(grid: QuantSpec) -> None:
    even = np.linspace(-1, 1, 400_000)
    assert entropy(histogram(even), grid) == min_max(histogram(even), grid)
    assert ends(entropy(histogram(TAILED), grid))[1] < 20


@BOTH
def test_entropy_of_one_value(grid: QuantSpec) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 12
    constant = Histogram(2.5, 2.5, counts, np.full(3, 2.5), np.full(3, 2.5))
    assert entropy(constant, grid) == min_max(constant, grid)


def swish(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-values))


@BOTH
def test_behind_a_swish_the_far_negative_side_is_given_up(grid: QuantSpec) -> None:
    values = np.concatenate([4 * NORMAL - 4, [-30.0, 9.0]])
    plain, behind = (observe(histogram(values), grid) for observe in (least_error, least_error_behind_swish))
    limits = np.iinfo(grid.dtype)

    def error_behind(scale: QuantParams) -> float:
        numbers = np.clip(np.rint(values / scale.scale) + scale.zero_point, limits.min, limits.max)
        return float(((swish((numbers - scale.zero_point) * scale.scale) - swish(values)) ** 2).mean())

    assert error_behind(behind) < 0.6 * error_behind(plain)
    assert ends(behind)[0] > ends(plain)[0]
    assert ends(behind)[1] > 0.9 * values.max()
