"""Runs something until its time is stable, then often enough to know it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from align_runtime.errors import ConfigurationError

WINDOW = 5  # runs whose median is compared with that of the runs before them
STABLE_WITHIN = 0.05
MAX_WARMUP_RUNS = 40
Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How long one figure is measured.

    Attributes:
        samples: runs wanted.
        seconds: after which no further run is begun, once there are `least`.
        least: runs that are made whatever they take.
    """

    samples: int = 30
    seconds: float = 10
    least: int = 7

    def __post_init__(self) -> None:
        if self.samples < self.least:
            raise ConfigurationError(f"{self.samples} samples are too few; {self.least} or more are needed")
        if not self.seconds > 0:
            raise ConfigurationError(f"the time for one figure is {self.seconds:g} s; it must be positive")


@dataclass(frozen=True)
class Warmup:
    """`runs` before anything counted; `stable` says whether they had stopped getting faster or slower."""

    runs: int
    stable: bool


def warm_up(work: Callable[[], object], seconds: float, clock: Clock = time.perf_counter) -> Warmup:
    """Runs `work` until the medians of two windows of runs, one after the other, agree, or until `seconds` are over."""
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
