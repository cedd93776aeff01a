"""Records and what may be said of two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_bench import command as bench
from align_bench import comparison, summary
from align_bench.html_report import page
from align_bench.record import BenchRecord, Case, Contest, Load, Start, Timing
from align_runtime.errors import ConfigurationError

CASE = Case("vision", "fp32", "cpu", 8, "640x480", None, 2)
MACHINE = {
    "date": "2026-11-25T12:00:00+00:00",
    "processor": "a processor <with a name>",
    "cores": 2,
    "gpu": None,
    "versions": {"numpy": "2.4"},
}


def record(seconds: float = 0.1, noise: float = 0.01, **changes: Any) -> BenchRecord:
    """Thirty runs of about `seconds`."""
    samples = tuple(seconds * (1 + noise * np.random.default_rng(1).random(30)))
    stages = {"decode": samples, "compute": samples, "end to end": samples}
    text = replace(CASE, tower="text", size="12", batch=1)
    made = BenchRecord(
        machine=MACHINE,
        load_average=(0.1, None),
        bundle={"name": "align-tiny", "manifest_sha256": "0123456789abcdef"},
        settings={"threads": None},
        timings=(Timing(CASE, stages, 12, True), Timing(text, {"end to end": samples}, 40, False)),
        starts=(Start("fp32", "cpu", 0.1, 0.5, {"vision": 0.2, "text": 0.1}, 2**28),),
        loads=(
            Load("vision", "fp32", "cpu", "closed", 2, None, 2.0, (0.1, 0.2)),
            Load("vision", "fp32", "cpu", "open", 0, 5.0, 2.0, (0.1, 0.2)),
            Load("vision", "fp32", "cpu", "open", 0, 9.0, 2.0, (0.1, 0.4)),
        ),
        contests=(
            Contest(CASE, {"align-onnx": samples, "other": tuple(2 * value for value in samples)}, {"other": 0.0}),
        ),
    )
    return replace(made, **changes)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record().write(tmp_path / "a.json")
    assert BenchRecord.read(tmp_path / "a.json") == record()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values.update(schema=2), "has schema 2; 1, of align-bench, was expected"),
        (lambda values: values.pop("timings"), "'timings' is missing"),
        (lambda values: values["timings"][0]["stages"].pop("end to end"), "lacks the stage 'end to end'"),
        (lambda values: values["timings"][0]["stages"].update(decode=[]), "'decode' has no samples"),
        (lambda values: values["timings"][0]["stages"].update(decode=[0.1, -1.0]), "times that are not positive"),
        (lambda values: values["timings"][0]["case"].update(batch=0), "a batch of 0"),
        (lambda values: values["timings"][0]["case"].update(batch="8"), "expected int"),
        (lambda values: values.update(load_average=[1.0]), "load_average has 1 values"),
        (lambda values: values["loads"][0].update(latencies=["x"]), "expected float"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, change: Any, match: str) -> None:
    values = json.loads(json.dumps(record().to_json()))
    change(values)
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=match):
        BenchRecord.read(tmp_path / "a.json")


def test_a_clear_difference_is_a_ratio() -> None:
    first, second = comparison.compare_records([("a", record(0.1)), ("b", record(0.05))])
    for row in (first, second):
        assert row.comparison.refusal is None
        assert row.comparison.ratio == pytest.approx(2.0)
    assert comparison.cells(first)[:3] == ["b: vision fp32 cpu, batch 8 of 640x480", "a", "2.000"]


def test_noise_hides_the_ratio() -> None:
    first, _ = comparison.compare_records([("a", record(0.1, noise=0.5)), ("b", record(0.098, noise=0.5))])
    assert first.comparison.refusal is not None
    _, _, ratio, reason, _ = comparison.cells(first)
    assert ratio == "—"
    assert "larger than the difference" in reason


def test_other_hardware_is_refused_unless_it_is_meant() -> None:
    other = record(0.05, machine=MACHINE | {"processor": "another"})
    with pytest.raises(ConfigurationError, match=r"has processor 'a processor.*', b has 'another'; .*across-machines"):
        comparison.compare_records([("a", record()), ("b", other)])
    assert len(comparison.compare_records([("a", record()), ("b", other)], across_machines=True)) == 2


def test_nothing_in_common_and_nothing_to_compare_are_errors() -> None:
    case = replace(CASE, batch=2)
    other = record(timings=(replace(record().timings[0], case=case),))
    with pytest.raises(ConfigurationError, match="no case in common"):
        comparison.compare_records([("a", record()), ("b", other)])
    with pytest.raises(ConfigurationError, match="two records or more"):
        comparison.compare_records([("a", record())])


def test_the_command_ends_with_1_where_a_ratio_was_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, made in {"a": record(), "b": record(0.05), "noisy": record(0.098, 0.5)}.items():
        made.write(tmp_path / f"{name}.json")
    a, b, noisy = (str(tmp_path / f"{name}.json") for name in ("a", "b", "noisy"))
    assert bench.main(["compare", a, b]) == 0
    assert "2.000" in capsys.readouterr().out
    assert bench.main(["compare", a, b, noisy]) == 1
    assert bench.main(["compare", a, b, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]["comparison"]["refusal"] is None
    assert bench.main(["compare", a, str(tmp_path / "missing.json")]) == 2


def test_contestants_are_compared_by_their_rounds() -> None:
    (row,) = comparison.contest_rows(record().contests)
    assert (row.other, row.comparison.ratio) == ("other", pytest.approx(2.0))


def test_doubts_are_told() -> None:
    assert summary.warnings(record(load_average=(3.0, 1.0)))[0].startswith("the load average was 3.0 before")
    assert any("not steady after 40 warm-up runs" in warning for warning in summary.warnings(record()))
    assert any("fewer than 100" in warning for warning in summary.warnings(record()))


def test_the_page_shows_every_part_and_escapes_what_it_is_given() -> None:
    text = page(record())
    for title in ("Latency", "Stages", "Throughput", "Under load", "Start and memory", "Against others", "Measured on"):
        assert title in text or title == "Throughput"  # one batch per size: no line to draw
    assert "a processor &lt;with a name&gt;" in text
    assert "<script" not in text
    assert "NaN" not in text
    assert "inf%" not in text
    assert text.count("<svg") >= 4


def test_the_page_of_nothing_is_a_page() -> None:
    empty = record(timings=(), starts=(), loads=(), contests=(), load_average=(None, None))
    assert "Measured on" in page(empty)


def test_throughput_is_drawn_over_batches() -> None:
    timings = tuple(replace(record().timings[0], case=replace(CASE, batch=batch)) for batch in (8, 1, 2))
    text = page(record(timings=timings))
    assert 'id="throughput"' in text
    assert ">8</text>" in text  # a batch that was measured is a tick
