"""Results against a baseline: what is shown, what is within noise, what is missing, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align_bench import command as bench
from align_bench import comparison
from align_bench.comparison import LATENCY, LOAD, MEMORY, START, Report, compare_records
from align_bench.record import BenchRecord, Load, Start, write_json
from align_runtime.errors import ConfigurationError
from support.bench_records import CASE, MACHINE, record


def times(seconds: float, count: int = 30) -> tuple[float, ...]:
    return tuple(seconds * (1 + 0.01 * np.random.default_rng(2).random(count)))


def loads(closed: float, rate: float = 5.0) -> tuple[Load, ...]:
    return (
        Load("vision", "fp32", "cpu", "closed", 2, None, 2.0, times(closed)),
        Load("vision", "fp32", "cpu", "open", 0, rate, 2.0, times(closed)),
    )


def starts(seconds: float, peak: int, count: int = 7) -> tuple[Start, ...]:
    return tuple(
        Start("fp32", "cpu", 0.1, value, {"vision": 0.2, "text": 0.1}, peak + index)
        for index, value in enumerate(times(seconds, count))
    )


def verdicts(report: Report, metric: str) -> list[str]:
    return [row.verdict for row in report.rows if row.metric == metric]


def test_a_clear_difference_is_shown() -> None:
    report = compare_records([("a", record(0.1)), ("b", record(0.05))])
    latency = [row for row in report.rows if row.metric == LATENCY]
    assert len(latency) == 2
    for row in latency:
        assert (row.verdict, row.slower, row.comparison.within_noise) == ("faster", False, None)
        assert row.comparison.ratio == pytest.approx(2.0)
        assert row.comparison.change == pytest.approx(-0.5)
    assert "-50.0%" in comparison.as_text(report)


def test_a_change_within_noise_is_not_quoted() -> None:
    report = compare_records([("a", record(0.1, noise=0.5)), ("b", record(0.098, noise=0.5))])
    assert verdicts(report, LATENCY) == ["within noise"] * 2
    lines = [line for line in comparison.as_text(report).splitlines() if line.startswith(LATENCY)]
    assert len(lines) == 2
    assert all("within noise" in line and "+" not in line and "-2.0%" not in line for line in lines)


def test_load_start_and_memory_are_compared() -> None:
    base = record(loads=loads(0.1), starts=starts(0.5, 2**28))
    worse = record(loads=loads(0.2), starts=starts(1.0, 2**29))
    report = compare_records([("a", base), ("b", worse)])
    assert verdicts(report, LOAD) == ["slower", "slower"]
    assert verdicts(report, START) == ["within noise", "slower", "within noise", "within noise"]  # import, load, first…
    assert verdicts(report, MEMORY) == ["more"]
    assert verdicts(compare_records([("b", worse), ("a", base)]), MEMORY) == ["less"]


def test_few_fresh_processes_show_nothing() -> None:
    base, worse = record(starts=starts(0.5, 2**28, 2)), record(starts=starts(5.0, 2**30, 2))
    report = compare_records([("a", base), ("b", worse)])
    assert set(verdicts(report, START) + verdicts(report, MEMORY)) == {"within noise"}


def test_open_loops_of_other_rates_are_not_compared() -> None:
    report = compare_records([("a", record(loads=loads(0.1, 5.0))), ("b", record(loads=loads(0.1, 8.0)))])
    assert len(verdicts(report, LOAD)) == 1  # the closed loop
    (line,) = report.incomparable
    assert "5.0/s against 8.0/s" in line
    assert line in comparison.as_text(report)
    assert not report.fails(0)


def test_cases_of_one_side_are_listed_and_fail() -> None:
    whole = record()
    part = replace(whole, timings=whole.timings[:1], loads=())
    report = compare_records([("a", whole), ("b", part)])
    assert {(row.metric, row.side) for row in report.missing} == {(LATENCY, "candidate"), (LOAD, "candidate")}
    assert report.fails(0.5)
    assert not report.regressions(0)
    assert "missing in the candidate" in comparison.as_text(report)
    (back, *_) = compare_records([("b", part), ("a", whole)]).missing
    assert back.side == "baseline"


def test_other_threads_are_another_case() -> None:
    other = record(timings=tuple(replace(timing, case=replace(timing.case, threads=1)) for timing in record().timings))
    assert len([row for row in compare_records([("a", record()), ("b", other)]).missing if row.metric == LATENCY]) == 4


def test_other_hardware_is_refused_unless_it_is_meant() -> None:
    other = record(0.05, machine=MACHINE | {"processor": "another"})
    with pytest.raises(ConfigurationError, match="--across-machines"):
        compare_records([("a", record()), ("b", other)])
    assert compare_records([("a", record()), ("b", other)], across_machines=True).rows


def test_nothing_in_common_and_nothing_to_compare_are_errors() -> None:
    case = replace(CASE, batch=2)
    other = record(timings=(replace(record().timings[0], case=case),), starts=(), loads=())
    with pytest.raises(ConfigurationError, match="no case in common"):
        compare_records([("a", record()), ("b", other)])
    with pytest.raises(ConfigurationError, match="at least one candidate"):
        compare_records([("a", record())])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Results: a baseline, one 3 % slower, one 20 % slower, one faster, one noisy, and one without its texts."""
    whole = record(0.1)
    made: dict[str, BenchRecord] = {
        "base": whole,
        "slower3": record(0.103),
        "slower20": record(0.12),
        "faster": record(0.05),
        "noisy": record(0.083, noise=0.5),
        "part": replace(whole, timings=whole.timings[:1]),
    }
    for name, value in made.items():
        write_json(value.to_json(), tmp_path / f"{name}.json")
    return {name: str(tmp_path / f"{name}.json") for name in made}


@pytest.mark.parametrize(
    ("candidates", "options", "code"),
    [
        (["base"], ["--fail-if-slower", "0%"], 0),
        (["faster"], ["--fail-if-slower", "0%"], 0),
        (["noisy"], ["--fail-if-slower", "0%"], 0),
        (["slower20"], [], 0),
        (["slower3"], ["--fail-if-slower", "5%"], 0),
        (["slower3"], ["--fail-if-slower", "2.5%"], 1),
        (["slower20"], ["--fail-if-slower", "5"], 1),
        (["faster", "slower20"], ["--fail-if-slower", "5%"], 1),
        (["part"], [], 0),
        (["part"], ["--fail-if-slower", "5%"], 1),
        (["missing"], [], 2),
        (["slower20"], ["--fail-if-slower", "much"], 2),
        (["slower20"], ["--fail-if-slower", "-5%"], 2),
        ([], [], 2),
    ],
)
def test_the_exit_code_is_1_for_a_regression_that_is_shown(
    files: dict[str, str], tmp_path: Path, candidates: Iterable[str], options: list[str], code: int
) -> None:
    paths = [files.get(name, str(tmp_path / "missing.json")) for name in candidates]
    assert bench.main(["compare", files["base"], *paths, *options]) == code


def test_the_text_says_what_is_slower_without_a_gate_and_with_one(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["compare", files["base"], files["slower20"]]) == 0
    printed = capsys.readouterr().out
    assert "+20.0%" in printed
    assert "2 slower" in printed
    assert "FAILED" not in printed
    assert bench.main(["compare", files["base"], files["slower20"], "--fail-if-slower", "5%"]) == 1
    assert "FAILED: 2 beyond 5.0%" in capsys.readouterr().out


def test_json_has_every_row_with_its_verdict(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["compare", files["base"], files["slower20"], "--json", "--fail-if-slower", "5%"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["failed"], found["tolerance"], found["missing"]) == (True, 0.05, [])
    slower = [row for row in found["rows"] if row["verdict"] == "slower"]
    assert [row["metric"] for row in slower] == ["latency", "latency"]
    assert slower[0]["change"] == pytest.approx(0.2)
    assert slower[0]["comparison"]["within_noise"] is None
