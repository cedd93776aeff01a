"""The README's table of speed, from results that are made up."""

from __future__ import annotations

from typing import Any

from benchmarks.bench_table import AIMS, START_AIMS, bench_lines, rows_of


def result(noise: float = 0.0) -> dict[str, Any]:
    """Every contestant takes a second in every round, ours half of it; with `noise`, rounds differ by that much."""
    cases: dict[str, dict[str, list[float]]] = {}
    for name, ours, other, _, _ in AIMS:
        seconds = cases.setdefault(name, {})
        seconds[ours] = [0.5 * (1 + noise * (turn % 3)) for turn in range(8)]
        seconds[other] = [1.0 * (1 + noise * (turn % 2)) for turn in range(8)]
    return {
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "date": "2026-11-25T12:00:00",
            "versions": {"onnxruntime": "1.32", "openvino": "2026.4"},
        },
        "load": {"before": [0.1], "after": [0.2]},
        "threads": 2,
        "starts": [{"import_seconds": 0.2, "load_seconds": 1.0}] * 8,
        "cases": [{"name": name, "seconds": seconds} for name, seconds in cases.items()],
    }


def test_every_aim_has_a_row() -> None:
    rows = rows_of(result())
    assert len(rows) == len(AIMS) + len(START_AIMS)
    assert {row[2] for row in rows[: len(AIMS)]} == {"2.000"}
    assert rows[-1][2] == "1.00 s"


def test_noise_is_told() -> None:
    rows = rows_of(result(noise=3.0))
    assert all(row[2].endswith("(within the noise)") for row in rows[: len(AIMS)])


def test_its_title_says_what_was_measured_on() -> None:
    title, headings, rows = bench_lines(result())
    assert title.startswith("The runtime on a processor, 2 cores, ONNX Runtime 1.32")
    assert {len(row) for row in rows} == {len(headings)}
