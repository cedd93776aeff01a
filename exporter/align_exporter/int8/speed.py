"""Whether an INT8 graph is faster than the float graphs of its tower on this machine: slower INT8 helps nobody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends import Runner, open_runner
from align_runtime.errors import BuildError
from align_runtime.golden import Golden

ROUNDS = 8  # even, for in every second round the contestants run in the opposite order
INT8 = "int8"
TEXT_BATCH = 32
IMAGE_BATCHES = (1, 8)
Inputs = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class SpeedComparison:
    """Contestants that took turns on the same inputs.

    Attributes:
        case: what they ran, e.g. ``"batch 8"``.
        seconds: of every round by variant; each contestant's second run at its turn.
    """

    case: str
    seconds: Mapping[str, tuple[float, ...]]

    @property
    def rival(self) -> str:
        """The fastest float variant, by the median."""
        return min((name for name in self.seconds if name != INT8), key=lambda name: median(self.seconds[name]))

    @property
    def speedup(self) -> float:
        """How many times as fast as its rival INT8 is: the median over pairs of rounds, each fair to both."""
        before, after = self.seconds[self.rival], self.seconds[INT8]
        return median(sum(before[start : start + 2]) / sum(after[start : start + 2]) for start in range(0, ROUNDS, 2))


def race(files: Mapping[str, Path], cases: Mapping[str, Inputs]) -> tuple[SpeedComparison, ...]:
    """Runs the graphs in `files`, by variant, one of them `INT8`, on all `cases`, with all cores."""
    with ExitStack() as stack:
        runners = {name: stack.enter_context(closing(open_runner(file, "cpu", None))) for name, file in files.items()}
        races = []
        for case, inputs in cases.items():
            seconds: dict[str, list[float]] = {name: [] for name in files}
            for turn in range(ROUNDS):
                for name in list(files)[:: -1 if turn % 2 else 1]:
                    # The first run waits for the threads of the session before, which spin on and take up to three
                    # times as long of it on two cores; the second one counts.
                    _run(runners[name], inputs)
                    start = time.perf_counter()
                    _run(runners[name], inputs)
                    seconds[name].append(time.perf_counter() - start)
            races.append(SpeedComparison(case, {name: tuple(values) for name, values in seconds.items()}))
    return tuple(races)


def _run(runner: Runner, inputs: Inputs) -> None:
    for batch in inputs:
        runner.run(batch)


def check_faster(subject: str, races: Iterable[SpeedComparison]) -> None:
    """Raises BuildError unless INT8 won every race."""
    lost = [race for race in races if not race.speedup > 1]
    if lost:
        cases = ", ".join(f"{race.speedup:.2f} times as fast as {race.rival} ({race.case})" for race in lost)
        raise BuildError(
            f"{subject} is {cases} on this machine; leave --int8 out, or keep the graph all the same with --keep-slower"
        )


def text_cases(answers: Golden) -> dict[str, Inputs]:
    """The sample captions as `align_runtime.Model` batches them: sorted by length."""
    lengths = answers.attention_mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), TEXT_BATCH):
        rows = order[start : start + TEXT_BATCH]
        longest = int(lengths[rows].max())
        batches.append(
            {
                "input_ids": np.ascontiguousarray(answers.input_ids[rows, :longest]),
                "attention_mask": np.ascontiguousarray(answers.attention_mask[rows, :longest]),
            }
        )
    return {"captions": batches}


def image_cases(images: Mapping[str, NDArray[Any]]) -> dict[str, Inputs]:
    """One image and eight, from `images`, the inputs of a graph with at least one row, which are repeated."""
    (name, rows), *_ = images.items()
    return {f"batch {count}": [{name: rows[np.arange(count) % len(rows)]}] for count in IMAGE_BATCHES}
