"""What samples of time say, and when they say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

LEVEL = 0.95  # of every interval
MIN_PAIRS = 7  # rounds that a ratio needs; below six there is no interval of that level
RESAMPLES = 2000


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `share` of all do not exceed. Always a sample."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Between which values the median of the population lies, with a confidence of at least `LEVEL`.

    From the order statistics, without any assumption on the distribution but that samples are independent: the number
    of samples below the median is binomial (Hahn and Meeker, *Statistical Intervals*, section 5.2). Fewer than six
    samples cannot give it: then the interval is unbounded.
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
    """The middle half of the samples as a share of their median: (p75 - p25) / p50."""
    return (percentile(samples, 0.75) - percentile(samples, 0.25)) / median(samples)


@dataclass(frozen=True)
class Comparison:
    """How many times as fast one thing is as another, or why that cannot be told.

    Attributes:
        ratio: seconds of the other over seconds of the one.
        low, high: the interval of `ratio` at `LEVEL`.
        spread: of the noisier side, or of the paired ratios.
        refusal: why `ratio` must not be quoted; None where it may.
    """

    ratio: float
    low: float
    high: float
    spread: float
    refusal: str | None


def compare_paired(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """`after` against `before`, seconds of the same rounds: the median of the rounds' ratios.

    What slows the machine down for a while slows both sides of a round.
    """
    ratios = [one / other for one, other in zip(before, after, strict=True)]
    return _judged(median(ratios), *median_interval(ratios), spread(ratios), len(ratios))


def compare_apart(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """`after` against `before`, measured apart: the ratio of the medians.

    The interval is the bootstrap's percentile interval (Efron and Tibshirani, *An Introduction to the Bootstrap*,
    chapter 13) from resamples that are the same every time.
    """
    random = np.random.default_rng(0)
    medians = [np.median(random.choice(np.asarray(side), (RESAMPLES, len(side))), axis=1) for side in (before, after)]
    low, high = np.quantile(medians[0] / medians[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    ratio, noise = median(before) / median(after), max(spread(before), spread(after))
    return _judged(ratio, float(low), float(high), noise, min(len(before), len(after)))


def _judged(ratio: float, low: float, high: float, noise: float, count: int) -> Comparison:
    difference, refusal = abs(ratio - 1), None
    if count < MIN_PAIRS:
        refusal = f"{count} samples; {MIN_PAIRS} are needed"
    elif noise > difference:
        refusal = f"the spread, {noise:.1%}, is larger than the difference, {difference:.1%}"
    elif low <= 1 <= high:
        refusal = f"the interval, {low:.3f} to {high:.3f}, holds 1"
    return Comparison(ratio, low, high, noise, refusal)
