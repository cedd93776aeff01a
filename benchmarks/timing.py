"""Interleaved timing of candidates that compute the same embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from align_bench.interleaved import speedup, time_interleaved

Candidate = Callable[[], NDArray[np.float32]]


class Runner(Protocol):
    """What runs a graph: a backend of the runtime, or OpenVINO."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The embeddings of `inputs`, float32 (batch, dim)."""


def run_batches(runner: Runner, batches: Sequence[Mapping[str, NDArray[Any]]]) -> Candidate:
    """A candidate that runs all `batches`, one after the other."""
    return lambda: np.concatenate([runner.run(batch) for batch in batches])


def time_case(
    name: str,
    candidates: Mapping[str, Candidate],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The record of one case: seconds of each round and candidate. The first candidate is the baseline.

    The record also has the largest difference of an embedding's component from the baseline's. Every candidate's
    speedup over the baseline is printed. See `align_bench.interleaved.time_interleaved` for `rounds` and `clock`.

    Raises:
        ValueError: a candidate returns another shape than the baseline, or values that are not finite.
    """
    embeds = {candidate: run() for candidate, run in candidates.items()}
    baseline = next(iter(embeds))
    for candidate, rows in embeds.items():
        if rows.shape != embeds[baseline].shape or not np.isfinite(rows).all():
            raise ValueError(
                f"{name}: expected finite embeddings of shape {embeds[baseline].shape}, "
                f"{candidate} returned {rows.shape}, finite: {bool(np.isfinite(rows).all())}"
            )
    seconds = time_interleaved(candidates, rounds, clock)
    for candidate, values in seconds.items():
        ratio = speedup(seconds[baseline], values)
        print(f"{name:>12}  {candidate:<24} {1000 * median(values):8.1f} ms  × {ratio:.3f}", flush=True)
    return {
        "name": name,
        "seconds": {candidate: [round(value, 6) for value in values] for candidate, values in seconds.items()},
        "max_abs_from_baseline": {
            candidate: float(np.abs(rows - embeds[baseline]).max()) for candidate, rows in embeds.items()
        },
    }
