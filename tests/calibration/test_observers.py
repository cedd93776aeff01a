"""What each observer makes of a histogram."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from align_calibration.histograms import BINS, Histogram
from align_calibration.observers import LEVELS, OBSERVERS, Scale, least_error, min_max, percentile, scale_of


def histogram(values: np.ndarray) -> Histogram:
    counts, _ = np.histogram(values, BINS)
    return Histogram(float(values.min()), float(values.max()), counts)


def ends(scale: Scale) -> tuple[float, float]:
    """The values of the numbers 0 and 255."""
    return -scale.zero_point * scale.step, (LEVELS - scale.zero_point) * scale.step


def error(scale: Scale, values: np.ndarray) -> float:
    numbers = np.clip(np.rint(values / scale.step) + scale.zero_point, 0, LEVELS)
    return float((((numbers - scale.zero_point) * scale.step - values) ** 2).mean())


NORMAL = np.random.default_rng(0).standard_normal(100_000)
TAILED = np.concatenate([NORMAL, [60.0]])


def test_the_range_is_spread_over_all_numbers() -> None:
    scale = scale_of(-1.0, 3.0)
    low, high = ends(scale)
    assert (low, high) == pytest.approx((-1.0, 3.0), abs=scale.step)
    assert scale.step == np.float32(4 / 255)


@pytest.mark.parametrize(("low", "high", "zero_point"), [(0.5, 2.0, 0), (-2.0, -0.5, 255), (0.0, 0.0, 0)])
def test_zero_is_always_a_number(low: float, high: float, zero_point: int) -> None:
    scale = scale_of(low, high)
    assert scale.zero_point == zero_point
    assert scale.step > 0


def test_min_max_clips_nothing() -> None:
    low, high = ends(min_max(histogram(TAILED)))
    assert low == pytest.approx(TAILED.min(), abs=0.3)
    assert high == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("share", [0.999, 0.99])
def test_percentile_leaves_out_the_rest(share: float) -> None:
    low, high = ends(percentile(share)(histogram(NORMAL)))
    outside = ((low > NORMAL) | (high < NORMAL)).mean()
    assert outside == pytest.approx(1 - share, rel=0.2)


def test_percentile_ignores_one_far_value() -> None:
    assert ends(percentile(0.9999)(histogram(TAILED)))[1] < 5


@pytest.mark.parametrize("values", [NORMAL, TAILED, np.abs(NORMAL), -np.abs(NORMAL) - 1])
def test_least_error_is_the_least(values: np.ndarray) -> None:
    found = error(least_error(histogram(values)), values)
    for other in OBSERVERS.values():
        assert found <= error(other(histogram(values)), values) * 1.02


def test_least_error_beats_min_max_where_values_are_rare() -> None:
    values = np.concatenate([NORMAL, [9.0]])
    assert error(least_error(histogram(values)), values) < 0.9 * error(min_max(histogram(values)), values)


@pytest.mark.parametrize("observe", OBSERVERS.values(), ids=list(OBSERVERS))
def test_a_tensor_of_zeros_gets_a_scale(observe: Callable[[Histogram], Scale]) -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 5
    scale = observe(Histogram(0.0, 0.0, counts))
    assert scale.step > 0
    assert scale.zero_point == 0
