"""The record of interleaved candidates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.timing import run_batches, time_case

ROWS = np.eye(2, dtype=np.float32)


def test_record_of_a_case() -> None:
    clock = itertools.count(0.0, 0.5)  # every call of a candidate takes half a second
    candidates = {"plain": lambda: ROWS, "graph": lambda: ROWS + np.float32(0.25)}
    record = time_case("a case", candidates, 2, lambda: next(clock))
    assert record == {
        "name": "a case",
        "seconds": {"plain": [0.5, 0.5], "graph": [0.5, 0.5]},
        "max_abs_from_baseline": {"plain": 0.0, "graph": 0.25},
    }


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS * np.float32("nan")], ids=["another shape", "not finite"])
def test_candidates_must_compute_the_same(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="graph"):
        time_case("a case", {"plain": lambda: ROWS, "graph": lambda: rows}, 2)


def test_batches_are_concatenated() -> None:
    class Doubling:
        def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
            return 2 * inputs["x"]

    np.testing.assert_array_equal(run_batches(Doubling(), [{"x": ROWS}, {"x": ROWS[:1]}])(), 2 * ROWS[[0, 1, 0]])
