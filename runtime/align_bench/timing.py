"""Warm-up until times have settled, then samples until there are enough of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from align_bench.interleaved import Clock
from align_runtime.errors import ConfigurationError

WINDOW = 5  # runs whose median is compared with that of the runs before them
STABLE_WITHIN = 0.05
MAX_WARMUP_RUNS = 40


@dataclass(frozen=True)
class Effort:
    """How long one stage of one case is measured.

    Attributes:
        samples: runs wanted.
        seconds: time after which no further run begins, once there are `least`.
        least: runs that are made however long they take.
    """

    samples: int = 30
    seconds: float = 10
    least: int = 7

    def __post_init__(self) -> None:
        if self.samples < self.least:
            raise ConfigurationError(f"expected at least {self.least} samples, got {self.samples}")
        if not 0 < self.seconds < float("inf"):
            raise ConfigurationError(f"expected a positive number of seconds, got {self.seconds:g}")

    def runs_of(self, seconds: float) -> float:
        """How many samples are taken of a run of `seconds`."""
        return min(max(self.seconds / max(seconds, 1e-9), self.least), self.samples)

    def expected_seconds(self, seconds: float) -> float:
        """Time for warm-up and samples of a run of `seconds`."""
        warmup = min(max(self.seconds, seconds), 2 * WINDOW * seconds)
        return warmup + self.runs_of(seconds) * seconds


@dataclass(frozen=True)
class Warmup:
    """`runs` before the samples; `stable` says whether their times had settled."""

    runs: int
    stable: bool


def warm_up(work: Callable[[], object], seconds: float, clock: Clock = time.perf_counter) -> Warmup:
    """Runs `work` until the medians of two consecutive windows of runs agree, or until `seconds` are over."""
    times: list[float] = []
    end = clock() + seconds
    while len(times) < MAX_WARMUP_RUNS:
        times.append(timed(work, clock))
        if len(times) >= 2 * WINDOW:
            earlier, later = median(times[-2 * WINDOW : -WINDOW]), median(times[-WINDOW:])
            if abs(later - earlier) <= STABLE_WITHIN * earlier:
                return Warmup(len(times), True)
        if clock() >= end:
            break
    return Warmup(len(times), False)


def sample(work: Callable[[], object], effort: Effort, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of single runs of `work`."""
    times: list[float] = []
    end = clock() + effort.seconds
    while len(times) < effort.samples and (len(times) < effort.least or clock() < end):
        times.append(timed(work, clock))
    return times


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one run of `work`, which must have its result on the host when it returns."""
    start = clock()
    work()
    return clock() - start
