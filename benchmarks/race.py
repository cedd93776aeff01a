"""Contestants that take turns, so that their ratio stands even where the machine's speed drifts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends import Runner
from benchmarks.ratios import speedup

Contestants = Mapping[str, Callable[[], NDArray[np.float32]]]


def run_all(runner: Runner, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> Callable[[], NDArray[np.float32]]:
    """A contestant: `runner` on all of `inputs`, one after the other."""
    return lambda: np.concatenate([runner.run(batch) for batch in inputs])


def race(
    name: str, contestants: Contestants, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Seconds of every contestant in every round, and its largest difference from the first one, the baseline.

    At its turn a contestant runs twice and the second run counts. The first one waits for the threads of the contestant
    before it: ONNX Runtime's spin for a while after their last task, and on two cores the next session, whichever it
    is, took up to three times as long. The order is reversed from round to round. `clock` may be `time.process_time`
    where contestants have one thread: processor time does not count the waiting on a busy machine.
    """
    embeds = {contestant: run() for contestant, run in contestants.items()}  # the warm-up
    baseline = next(iter(contestants))
    seconds: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for index in range(rounds):
        for contestant in list(contestants)[:: 1 if index % 2 else -1]:
            contestants[contestant]()
            start = clock()
            contestants[contestant]()
            seconds[contestant].append(clock() - start)
    for contestant, values in seconds.items():
        ratio = speedup(seconds[baseline], values)
        print(f"{name:>12}  {contestant:<24} {1000 * median(values):8.1f} ms  × {ratio:.3f}", flush=True)
    return {
        "name": name,
        "seconds": {key: [round(value, 6) for value in values] for key, values in seconds.items()},
        "max_abs_from_plain": {key: float(np.abs(rows - embeds[baseline]).max()) for key, rows in embeds.items()},
    }
