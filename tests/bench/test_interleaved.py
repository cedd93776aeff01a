"""Interleaved timing: order of the runs, which of them count, and the speedup from pairs of rounds."""

from __future__ import annotations

import pytest

from align_bench.interleaved import speedup, time_interleaved
from align_runtime.errors import ConfigurationError


class Machine:
    """A clock that the candidates move; a candidate is slow (9 s) in its first run after another one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[str] = []

    def run(self, name: str, seconds: float) -> None:
        self.now += 9.0 if self.runs[-1:] != [name] else seconds
        self.runs.append(name)


def test_order_is_reversed_in_every_second_round_and_the_second_run_counts() -> None:
    machine = Machine()
    candidates = {"a": lambda: machine.run("a", 1.0), "b": lambda: machine.run("b", 2.0)}
    seconds = time_interleaved(candidates, 8, lambda: machine.now)
    assert "".join(machine.runs) == "ab" + "aabbbbaa" * 4
    assert seconds == {"a": (1.0,) * 8, "b": (2.0,) * 8}


def test_three_candidates_keep_their_order_in_the_result() -> None:
    runs: list[str] = []
    candidates = {name: (lambda name=name: runs.append(name)) for name in "cab"}
    seconds = time_interleaved(candidates, 3, warmup=0)
    assert "".join(runs) == "ccaabb" + "bbaacc" + "ccaabb"
    assert list(seconds) == ["c", "a", "b"]


def test_warmup_runs_every_candidate_as_often_as_asked() -> None:
    runs: list[str] = []
    time_interleaved({"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}, 1, warmup=2)
    assert "".join(runs) == "aabb" + "aabb"


def test_a_failing_candidate_raises_its_error() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        time_interleaved({"a": fail}, 2)


@pytest.mark.parametrize(("candidates", "rounds"), [({}, 2), ({"a": lambda: None}, 0)])
def test_nothing_to_time_is_an_error(candidates: dict[str, object], rounds: int) -> None:
    with pytest.raises(ConfigurationError):
        time_interleaved(candidates, rounds)  # type: ignore[arg-type]


def test_speedup_is_fair_to_the_order_within_a_round() -> None:
    """Whoever runs second pays one second: the pair of rounds cancels it, a single round does not."""
    assert speedup([2.0, 3.0], [2.0, 1.0]) == pytest.approx(5 / 3)


def test_one_slow_round_does_not_change_the_speedup() -> None:
    candidate = [1.0, 1.0, 1.0, 100.0, 1.0, 1.0]
    assert speedup([2.0] * 6, candidate) == 2.0


def test_the_last_of_an_odd_number_of_rounds_is_left_out() -> None:
    assert speedup([2.0, 2.0, 50.0], [1.0, 1.0, 1.0]) == 2.0


@pytest.mark.parametrize(("baseline", "candidate"), [([1.0], [1.0]), ([], []), ([1.0, 1.0], [1.0, 1.0, 1.0])])
def test_speedup_needs_two_rounds_of_both_sides(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(ConfigurationError):
        speedup(baseline, candidate)
