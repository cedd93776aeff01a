"""What each observer makes of a histogram."""

from __future__ import annotations

import numpy as np
import pytest

from align_calibration.histograms import BINS, Histogram
from align_calibration.observers import OBSERVERS, Observer, least_error, min_max, percentile
from align_calibration.scales import INT8, UINT8, Grid, Scale


def histogram(values: np.ndarray, samples: int = 20) -> Histogram:
    """Of `values`, which are those of so many samples."""
    counts, _ = np.histogram(values, BINS)
    parts = np.array_split(values, samples)
    lows, highs = (np.array([function(part) for part in parts]) for function in (np.min, np.max))
    return Histogram(float(values.min()), float(values.max()), counts, lows, highs)


GRIDS = [UINT8, INT8]
BOTH = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.dtype)


def ends(scale: Scale) -> tuple[float, float]:
    """The values of the lowest and the highest number."""
    numbers = np.iinfo(scale.dtype)
    return (numbers.min - scale.zero_point) * scale.step, (numbers.max - scale.zero_point) * scale.step


def error(scale: Scale, values: np.ndarray) -> float:
    limits = np.iinfo(scale.dtype)
    numbers = np.clip(np.rint(values / scale.step) + scale.zero_point, limits.min, limits.max)
    return float((((numbers - scale.zero_point) * scale.step - values) ** 2).mean())


NORMAL = np.random.default_rng(0).standard_normal(100_000)
TAILED = np.concatenate([NORMAL, [60.0]])


def test_the_range_is_spread_over_all_numbers() -> None:
    scale = UINT8.scale(-1.0, 3.0)
    low, high = ends(scale)
    assert (low, high) == pytest.approx((-1.0, 3.0), abs=scale.step)
    assert scale.step == np.float32(4 / 255)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 1.0), (0.0, 3.0)])
def test_a_symmetric_range_is_as_wide_as_its_farther_end(low: float, high: float) -> None:
    scale = INT8.scale(low, high)
    assert scale == Scale(float(np.float32(3 / 127)), 0, "int8")


@pytest.mark.parametrize(("low", "high", "zero_point"), [(0.5, 2.0, 0), (-2.0, -0.5, 255), (0.0, 0.0, 0)])
def test_zero_is_always_a_number(low: float, high: float, zero_point: int) -> None:
    scale = UINT8.scale(low, high)
    assert scale.zero_point == zero_point
    assert scale.step > 0


@BOTH
def test_min_max_clips_nothing(grid: Grid) -> None:
    low, high = ends(min_max(histogram(TAILED), grid))
    assert low <= TAILED.min() + 0.3
    assert high == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("share", [0.999, 0.99])
def test_percentile_leaves_out_the_rest(share: float) -> None:
    low, high = ends(percentile(share)(histogram(NORMAL), UINT8))
    outside = ((low > NORMAL) | (high < NORMAL)).mean()
    assert outside == pytest.approx(1 - share, rel=0.2)


@BOTH
def test_percentile_ignores_one_far_value(grid: Grid) -> None:
    assert ends(percentile(0.9999)(histogram(TAILED), grid))[1] < 5


@BOTH
@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1])
def test_least_error_is_the_least(values: np.ndarray, grid: Grid) -> None:
    found = error(least_error(histogram(values), grid), values)
    for other in OBSERVERS.values():
        assert found <= error(other(histogram(values), grid), values) * 1.02


@BOTH
def test_least_error_beats_min_max_where_values_are_rare(grid: Grid) -> None:
    values = np.concatenate([NORMAL, [9.0]])
    assert error(least_error(histogram(values), grid), values) < 0.9 * error(min_max(histogram(values), grid), values)


@BOTH
@pytest.mark.parametrize("observe", OBSERVERS.values(), ids=list(OBSERVERS))
def test_a_tensor_of_zeros_gets_a_scale(observe: Observer, grid: Grid) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 5
    scale = observe(Histogram(0.0, 0.0, counts, np.zeros(5), np.zeros(5)), grid)
    assert scale.step > 0
    assert scale.zero_point == 0
