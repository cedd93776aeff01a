"""Warm-up and sampling with a clock that the test moves, and load generators with work that takes no time."""

from __future__ import annotations

import itertools
import threading

import pytest

from align_bench import load_generator
from align_bench.timing import MAX_WARMUP_RUNS, Effort, sample, warm_up
from align_runtime.errors import ConfigurationError


class Clock:
    """A clock that the timed work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_warm_up_ends_when_times_have_settled() -> None:
    clock, runs = Clock(), itertools.count()

    def work() -> None:
        clock.now += max(10 - next(runs), 1)

    found = warm_up(work, 1e6, clock)
    assert found.stable
    assert 10 < found.runs <= 20


def test_warm_up_reports_times_that_never_settle() -> None:
    clock, runs = Clock(), itertools.count(1)

    def work() -> None:
        clock.now += next(runs)

    found = warm_up(work, 1e6, clock)
    assert (found.runs, found.stable) == (MAX_WARMUP_RUNS, False)
    short = warm_up(work, 0.5, clock)
    assert (short.runs, short.stable) == (1, False)


def test_samples_stop_at_the_time_limit_but_not_before_seven() -> None:
    clock = Clock()

    def work() -> None:
        clock.now += 2.0

    assert sample(work, Effort(30, 20.0), clock) == [2.0] * 10
    assert sample(work, Effort(30, 1.0), clock) == [2.0] * 7
    assert sample(work, Effort(8, 1e6), clock) == [2.0] * 8


@pytest.mark.parametrize(
    ("samples", "seconds", "match"),
    [(6, 1.0, "samples"), (7, 0.0, "seconds"), (7, float("inf"), "seconds"), (7, float("nan"), "seconds")],
)
def test_effort_is_checked(samples: int, seconds: float, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Effort(samples, seconds)


def test_the_expected_duration_follows_from_one_call() -> None:
    effort = Effort(samples=30, seconds=10, least=7)
    assert effort.expected_seconds(0.1) == pytest.approx(10 * 0.1 + 30 * 0.1)  # settles in two windows; all samples
    assert effort.expected_seconds(1.0) == pytest.approx(10 + 10)  # the limit ends both
    assert effort.expected_seconds(20.0) == pytest.approx(20 + 7 * 20)  # one warm-up run, and the least samples


def test_a_closed_loop_has_one_concurrent_call_per_client() -> None:
    meeting = threading.Barrier(3)  # breaks, and the loop with it, unless three are there at once
    latencies, seconds = load_generator.closed_loop(lambda: meeting.wait(10), 3, 0.0)
    assert len(latencies) >= 3
    assert seconds > 0


def test_a_closed_loop_raises_the_error_of_a_call() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        load_generator.closed_loop(work, 2, 0.01)


def test_an_open_loop_does_not_wait_for_earlier_calls() -> None:
    """Every call waits until all have arrived, so a loop that waited for the first call would never end."""
    due = load_generator.poisson_arrivals(200.0, 0.1, seed=0)
    all_here = threading.Barrier(len(due))
    latencies, _ = load_generator.open_loop(lambda: all_here.wait(10), 200.0, 0.1)
    assert len(latencies) == len(due) > 5
    assert min(latencies) >= 0
    # Latency counts from when a call was due: the first one waits for the last.
    assert latencies[0] >= due[-1] - due[0]


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    arrivals = load_generator.poisson_arrivals(100.0, 50.0, seed=1)
    assert arrivals == sorted(arrivals)
    assert 4700 < len(arrivals) < 5300
    assert arrivals[-1] < 50
    assert len(load_generator.poisson_arrivals(0.001, 1.0, seed=1)) == 1
