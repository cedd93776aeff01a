"""Percentiles, confidence intervals, and ratios of timings with the rule that says when a ratio is within noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

LEVEL = 0.95  # confidence of every interval
MIN_PAIRS = 7  # rounds or samples that a ratio needs; below six there is no interval of that level
RESAMPLES = 2000  # of the bootstrap


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `share` of all do not exceed. Always a sample."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """The interval that holds the median of the population with a confidence of at least `LEVEL`.

    From order statistics, for independent samples of any distribution: the number of samples below the median is
    binomial (Hahn and Meeker, *Statistical Intervals*, section 5.2). With fewer than six samples it is unbounded.
    """
    ordered, count = sorted(samples), len(samples)
    tail, rank = 0.0, 0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 1 - LEVEL:
            break
        rank += 1
    if rank == 0:
        return -math.inf, math.inf
    return ordered[rank - 1], ordered[count - rank]


def spread(samples: Sequence[float]) -> float:
    """The interquartile range as a share of the median: (p75 - p25) / p50."""
    return (percentile(samples, 0.75) - percentile(samples, 0.25)) / median(samples)


@dataclass(frozen=True)
class Comparison:
    """The ratio of a baseline to a candidate, and whether it may be quoted.

    Attributes:
        ratio: baseline over candidate; above 1 the candidate is faster.
        low, high: interval of `ratio` at `LEVEL`.
        spread: of the noisier side, or of the paired ratios.
        within_noise: why `ratio` must not be quoted; None where it may.
    """

    ratio: float
    low: float
    high: float
    spread: float
    within_noise: str | None

    @property
    def change(self) -> float:
        """How much longer the candidate takes, as a share of the baseline: 0.05 is 5 % slower."""
        return 1 / self.ratio - 1


def compare_paired(baseline: Sequence[float], candidate: Sequence[float]) -> Comparison:
    """Compares seconds of the same interleaved rounds: the median of the ratios of the rounds.

    What slows the machine down for a while slows both sides of a round.
    """
    ratios = [one / other for one, other in zip(baseline, candidate, strict=True)]
    return _judged(median(ratios), *median_interval(ratios), spread(ratios), len(ratios))


def compare_separate(baseline: Sequence[float], candidate: Sequence[float]) -> Comparison:
    """Compares samples of separate runs: the ratio of the medians.

    The interval is the percentile interval of the bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*,
    chapter 13). The resamples are seeded, so the result is the same every time.
    """
    random = np.random.default_rng(0)
    medians = [
        np.median(random.choice(np.asarray(side), (RESAMPLES, len(side))), axis=1) for side in (baseline, candidate)
    ]
    low, high = np.quantile(medians[0] / medians[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    ratio, noise = median(baseline) / median(candidate), max(spread(baseline), spread(candidate))
    return _judged(ratio, float(low), float(high), noise, min(len(baseline), len(candidate)))


def compare_ranges(baseline: Sequence[float], candidate: Sequence[float], minimum: int) -> Comparison:
    """Compares a few samples that hardly vary, such as peak memory: within noise where their ranges overlap.

    `low` and `high` are the smallest and the largest ratio of any two samples. Fewer than `minimum` samples on a side
    are within noise, too.
    """
    low, high = min(baseline) / max(candidate), max(baseline) / min(candidate)
    reason = None
    if (count := min(len(baseline), len(candidate))) < minimum:
        reason = _too_few(count, minimum)
    elif low <= 1 <= high:
        reason = "the ranges overlap"
    noise = max((max(side) - min(side)) / median(side) for side in (baseline, candidate))
    return Comparison(median(baseline) / median(candidate), low, high, noise, reason)


def _judged(ratio: float, low: float, high: float, noise: float, count: int) -> Comparison:
    reason = None
    if count < MIN_PAIRS:
        reason = _too_few(count, MIN_PAIRS)
    elif noise > abs(ratio - 1):
        reason = f"the spread, {noise:.1%}, exceeds the difference"
    elif low <= 1 <= high:
        reason = "the interval holds no difference"
    return Comparison(ratio, low, high, noise, reason)


def _too_few(count: int, minimum: int) -> str:
    return f"expected at least {minimum} samples, got {count}"
