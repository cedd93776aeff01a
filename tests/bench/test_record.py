"""Result files: they come back as they were written, and damaged ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_bench import metrics
from align_bench.record import BenchRecord, read_result, write_json
from align_runtime.errors import ConfigurationError
from support.bench_records import record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(metrics.to_json(record(), None), tmp_path / "a.json")
    assert BenchRecord.read(tmp_path / "a.json") == record()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values.update(schema=1), "schema 2.*got 1"),
        (lambda values: values.update(schema=True), "schema"),
        (lambda values: values.update(kind="scaling"), "kind run.*'scaling'"),
        (lambda values: values.pop("timings"), "'timings'"),
        (lambda values: values["machine"].pop("cores"), "'cores'"),
        (lambda values: values["bundle"].update(name=1), "name"),
        (lambda values: values["timings"][0]["stages"].pop("end to end"), "end to end"),
        (lambda values: values["timings"][0]["stages"].update(decode=[]), "'decode'"),
        (lambda values: values["timings"][0]["stages"].update(decode=[0.1, -1.0]), "'decode'"),
        (lambda values: values["timings"][0]["case"].update(batch=0), "batch"),
        (lambda values: values["timings"][0]["case"].update(batch="8"), "batch"),
        (lambda values: values.update(load_average=[1.0]), "load_average"),
        (lambda values: values["loads"][0].update(latencies=["x"]), "latencies"),
        (lambda values: values["loads"][0].update(kind="half open"), "loads"),
        (lambda values: values["loads"][1].update(rate=None), "loads"),
        (lambda values: values["loads"][1].update(rate=0.0), "rate"),
        (lambda values: values["loads"][0].update(seconds=0.0), "duration"),
        (lambda values: values["peer_comparisons"][0]["seconds"].update(other=[1.0]), "rounds"),
        (lambda values: values["peer_comparisons"][0].update(seconds={}), "rounds"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, change: Callable[[Any], object], match: str) -> None:
    values = json.loads(json.dumps(record().to_json()))
    change(values)
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=match) as caught:
        BenchRecord.read(tmp_path / "a.json")
    assert "a.json" in str(caught.value)


def test_derived_values_are_computed_anew(tmp_path: Path) -> None:
    values = metrics.to_json(record(), None)
    values["summary"] = "anything"
    write_json(values, tmp_path / "a.json")
    assert BenchRecord.read(tmp_path / "a.json") == record()


def test_committed_results_are_of_this_schema() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    found = BenchRecord.read(results / "align_bench.json")
    assert json.loads((results / "align_bench.json").read_text())["summary"] == metrics.summarize(found, None)
    assert {read_result(results / f"{kind}.json")["kind"] for kind in ("scaling", "memory")} == {"scaling", "memory"}
