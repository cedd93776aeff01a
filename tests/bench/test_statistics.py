"""Percentiles, intervals, and the rule that says when a ratio is within noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from align_bench.statistics import (
    compare_paired,
    compare_ranges,
    compare_separate,
    median_interval,
    percentile,
    spread,
)


def test_percentiles_are_samples() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(samples, share) for share in (0.0, 0.2, 0.21, 0.5, 0.9, 0.99, 1.0)] == [1, 1, 2, 3, 5, 5, 5]
    assert percentile(range(1, 101), 0.99) == 99


@pytest.mark.parametrize(("count", "ranks"), [(6, (1, 6)), (7, (1, 7)), (9, (2, 8)), (20, (6, 15)), (100, (40, 61))])
def test_the_interval_of_a_median_has_the_ranks_of_the_tables(count: int, ranks: tuple[int, int]) -> None:
    """Ranks for 95 %, distribution-free, as tabulated in e.g. Hahn and Meeker, table A.16."""
    samples = list(np.random.default_rng(count).permutation(np.arange(1.0, count + 1)))
    assert median_interval(samples) == ranks


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_samples_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) == (-math.inf, math.inf)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        low, high = median_interval(random.exponential(size=15).tolist())
        held += low <= math.log(2) <= high
    assert held / 2000 >= 0.95


def test_spread_is_that_of_the_middle_half() -> None:
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 7.0, 100.0]) == pytest.approx((12 - 8) / 10.5)


def test_a_clear_ratio_is_quoted() -> None:
    random = np.random.default_rng(4)
    drift = 1 + random.random(9)  # the machine is up to twice as slow; both sides of a round alike
    found = compare_paired(list(1.5 * drift), list(drift * (1 + 0.01 * random.random(9))))
    assert found.within_noise is None
    assert found.low <= found.ratio <= found.high
    assert 1.47 < found.ratio < 1.51


@pytest.mark.parametrize("compare", [compare_paired, compare_separate])
def test_a_difference_smaller_than_the_spread_is_within_noise(compare: object) -> None:
    assert callable(compare)
    random = np.random.default_rng(5)
    before, after = (list(base * (1 + random.random(30))) for base in (1.03, 1.0))
    found = compare(before, after)
    assert found.within_noise is not None
    assert "spread" in found.within_noise


def test_an_interval_that_holds_one_is_within_noise() -> None:
    """A small spread in the middle, and outliers enough for the interval."""
    before, after = [1.1, 1.1, 1.1, 1.1, 1.1, 0.5, 0.5], [1.0] * 7
    found = compare_paired(before, after)
    assert found.within_noise is not None
    assert "interval" in found.within_noise or "spread" in found.within_noise
    assert compare_paired([1.1] * 7, after).within_noise is None


def test_few_rounds_are_within_noise() -> None:
    found = compare_paired([2.0] * 6, [1.0] * 6)
    assert found.within_noise == "expected at least 7 samples, got 6"
    assert compare_paired([2.0] * 7, [1.0] * 7).within_noise is None


def test_the_bootstrap_is_the_same_every_time() -> None:
    random = np.random.default_rng(6)
    before, after = list(2 + 0.1 * random.random(20)), list(1 + 0.1 * random.random(20))
    found = compare_separate(before, after)
    assert found == compare_separate(before, after)
    assert found.within_noise is None
    assert found.low < found.ratio < found.high


def test_change_is_the_share_by_which_the_candidate_takes_longer() -> None:
    assert compare_paired([1.0] * 7, [1.25] * 7).change == pytest.approx(0.25)
    assert compare_paired([2.0] * 7, [1.0] * 7).change == pytest.approx(-0.5)


def test_ranges_that_overlap_or_hold_too_few_samples_are_within_noise() -> None:
    found = compare_ranges([10.0, 11.0, 12.0], [20.0, 21.0, 22.0], 3)
    assert found.within_noise is None
    assert (found.ratio, found.low, found.high) == (11 / 21, 10 / 22, 12 / 20)
    overlap = compare_ranges([10.0, 11.0, 12.0], [12.0, 13.0, 14.0], 3)
    assert overlap.within_noise is not None
    assert "overlap" in overlap.within_noise
    assert compare_ranges([10.0], [20.0, 21.0, 22.0], 3).within_noise == "expected at least 3 samples, got 1"
