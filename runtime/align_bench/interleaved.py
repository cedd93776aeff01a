"""Interleaved A/B timing: candidates run in turn, round by round, so that drift of the machine hits all of them alike.

Every comparison of this project uses it: `align-bench run --against`, the INT8 speed check of the exporter and the
scripts in ``benchmarks/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from align_runtime.errors import ConfigurationError

Clock = Callable[[], float]


def time_interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Clock = time.perf_counter,
    warmup: int = 1,
) -> dict[str, tuple[float, ...]]:
    """Seconds per round of each candidate, by its name and in the order of `candidates`.

    Two things keep one candidate from paying for another:

    - The order of the candidates is reversed in every second round. Use an even number of `rounds`, and `speedup`,
      which pairs them.
    - A candidate runs twice when its turn comes, and only the second run is timed. The first run waits for the threads
      of the candidate before it: ONNX Runtime's spin for a while after their last task, and on two cores the next
      session, whichever it is, took up to three times as long.

    Args:
        candidates: calls that have their result on the host when they return.
        rounds: timed runs of each candidate.
        clock: `time.process_time` where every candidate is single-threaded; it leaves out the waiting on a busy
            machine.
        warmup: runs of each candidate before the first round.

    Raises:
        ConfigurationError: no candidates, or no rounds.
    """
    if not candidates or rounds < 1:
        raise ConfigurationError(f"expected at least one candidate and one round, got {len(candidates)} and {rounds}")
    for run in candidates.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(rounds):
        for name in reversed(seconds) if index % 2 else seconds:
            candidates[name]()
            start = clock()
            candidates[name]()
            seconds[name].append(clock() - start)
    return {name: tuple(values) for name, values in seconds.items()}


def speedup(baseline_seconds: Sequence[float], candidate_seconds: Sequence[float]) -> float:
    """How many times as fast as the baseline the candidate is: the median over pairs of rounds.

    Consecutive rounds have opposite orders, so that a pair is fair to both sides. The last of an odd number of rounds
    is left out.

    Args:
        baseline_seconds, candidate_seconds: of the same rounds, as `time_interleaved` returns them.

    Raises:
        ConfigurationError: different numbers of rounds, or fewer than two.
    """
    count = len(baseline_seconds)
    if count != len(candidate_seconds) or count < 2:
        raise ConfigurationError(
            f"expected two rounds or more, the same for both sides, got {count} and {len(candidate_seconds)}"
        )
    return median(
        sum(baseline_seconds[start : start + 2]) / sum(candidate_seconds[start : start + 2])
        for start in range(0, count - 1, 2)
    )
