"""What `align-bench tune` prints and writes, from made-up outcomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from align_bench.statistics import Comparison
from align_bench.tune.report import TunedResult, TuneReport, entry_of
from align_bench.tune.search import BELOW, CHOSEN, DEFAULT, NO_TIME, UNAVAILABLE, Outcome
from align_runtime.machine_key import MachineKey
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import add_entry, read_tuning

FP32 = Outcome(TowerSettings(), DEFAULT, 0.012, 1.0, None, 0.9999999, 8)
INT8 = Outcome(TowerSettings("int8", streams=2, batch_size=8), CHOSEN, 0.006, 2.0, None, 0.9951, 8)
OTHERS = [
    Outcome(TowerSettings("bf16", "openvino"), BELOW, cosine=0.9712),
    Outcome(TowerSettings("fp16", "cuda"), UNAVAILABLE, note="no CUDA here"),
    Outcome(TowerSettings("fp32", "cuda"), UNAVAILABLE, note="no CUDA here"),
    Outcome(TowerSettings("fp32", streams=1), NO_TIME),
]


def report(chosen: Outcome, *outcomes: Outcome, load: float = 0.1) -> TuneReport:
    towers = {"vision": TunedResult(chosen, outcomes, 0.99, "golden", 12.0)}
    machine = MachineKey("A processor (avx2)", 2, None, {"onnxruntime": "1.32.0"})
    entry = entry_of(machine, "throughput", "align-base", "0" * 64, towers, "2026-11-27T12:00:00+00:00")
    return TuneReport(entry, towers, (load, None), Path("tuning.json"))


def test_the_table_begins_with_what_was_chosen_and_names_what_was_not() -> None:
    lines = report(INT8, FP32, *OTHERS, INT8).lines()
    rows = [line.split() for line in lines if line.startswith(("int8", "bf16", "fp32"))]
    assert rows == [
        ["int8", "on", "cpu,", "2", "streams,", "batch", "8", "6", "2.00", "0.99510", "chosen"],
        ["fp32", "on", "cpu", "12", "1.00", "1.00000", "default"],
        ["bf16", "on", "openvino", "—", "—", "0.97120", "below", "the", "floor"],
        ["fp32", "on", "cpu,", "1", "stream", "—", "—", "—", "no", "time"],
    ]
    assert "unavailable: fp16 on cuda, fp32 on cuda: no CUDA here" in lines
    assert lines[-2:] == [
        "vision: int8 on cpu, 2 streams, batch 8, 2.00 × the default fp32 on cpu; no time for 1 settings: more with "
        "--seconds-budget",
        "written to tuning.json; load with tuned='throughput'",
    ]
    assert not any("busy" in line for line in lines)


def test_a_default_that_stays_and_a_busy_machine_are_told() -> None:
    lines = report(FP32, FP32, load=4.0).lines()
    assert "vision: fp32 on cpu, the default: nothing was shown to be faster" in lines
    assert "load average 4.0: the machine was busy, measure again when it is idle" in lines


@pytest.mark.parametrize("high", [2.2, float("inf")])
def test_what_is_written_can_be_read_and_is_json(tmp_path: Path, high: float) -> None:
    compared = replace(INT8, comparison=Comparison(2.0, 1.8, high, 0.1, None))
    made = report(compared, FP32, *OTHERS, compared)
    add_entry(tmp_path / "a.json", made.entry)
    (entry,) = read_tuning(tmp_path / "a.json")
    assert entry == made.entry
    tower = entry.towers["vision"]
    assert (tower.settings, tower.milliseconds, tower.speedup, tower.low) == (INT8.settings, 6.0, 2.0, 1.8)
    values = json.loads(json.dumps(made.to_json(), allow_nan=False))
    *_, last = values["towers"]["vision"]["candidates"]
    assert (last["verdict"], last["speedup"], last["high"]) == (CHOSEN, 2.0, high if high < 9 else None)
