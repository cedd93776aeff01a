"""What is derived from a record: percentiles, verdicts and doubts, as text, HTML, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from align_bench import metrics, summary
from align_bench.html_report import page
from align_bench.record import BenchRecord, Timing
from support.bench_records import CASE, record


def timing(batch: int, seconds: float, precision: str = "fp32", tower: str = "vision", size: str = "640x480") -> Timing:
    case = replace(CASE, batch=batch, precision=precision, tower=tower, size=size)
    return Timing(case, {"compute": (seconds / 2,) * 20, "end to end": (seconds,) * 19 + (2 * seconds,)}, 10, True)


def measured() -> BenchRecord:
    texts = (timing(1, 0.004, "int8", "text", "12"), timing(1, 0.02, "int8", "text", "64"))
    return record(timings=(timing(1, 0.1), timing(8, 0.5), timing(1, 0.05, "int8"), timing(8, 0.3, "int8"), *texts))


def test_the_verdict_is_the_best_throughput_and_the_fastest_single_input() -> None:
    vision, short, long = metrics.verdicts(measured(), None)
    assert vision.best is not None
    assert (vision.best.how, vision.best.p95_ms) == ("int8 cpu, batch 8", pytest.approx(300))
    assert vision.best.items_per_second == pytest.approx(8 / 0.3)
    assert vision.fastest is not None
    assert (vision.fastest.how, vision.fastest.p50_ms) == ("int8 cpu, batch 1", pytest.approx(50))
    assert [(found.tower, found.size) for found in (short, long)] == [
        ("text", "12 tokens"),
        ("text", "64 tokens"),
    ]


def test_a_latency_bound_excludes_the_batches_that_miss_it() -> None:
    vision, *_ = metrics.verdicts(measured(), 200)
    assert vision.best is not None
    assert vision.best.how == "int8 cpu, batch 1"
    vision, *_ = metrics.verdicts(measured(), 20)
    assert vision.best is None
    assert vision.fastest is not None  # the bound is on the throughput
    assert "nothing has its p95 within 20 ms" in summary.verdict_line(vision)


def test_a_verdict_without_single_inputs_names_the_throughput_only() -> None:
    (verdict,) = metrics.verdicts(record(timings=(timing(8, 0.5),)), None)
    assert verdict.fastest is None
    assert summary.verdict_line(verdict) == (
        "vision 640x480: best throughput: 16.0 images/s (fp32 cpu, batch 8, p95 500 ms)"
    )


def test_the_short_text_ends_in_the_verdict_within_40_lines() -> None:
    lines = summary.as_text(measured()).splitlines()
    assert lines[-3] == (
        "vision 640x480: best throughput: 26.7 images/s (int8 cpu, batch 8, p95 300 ms); fastest single image: "
        "p50 50.0 ms (int8 cpu)"
    )
    assert lines[-1].startswith("text 64 tokens: ")
    assert len(lines) <= 40


@pytest.mark.parametrize(("cases", "sizes"), [(100, 1), (100, 100)])
def test_many_cases_do_not_make_the_short_text_longer(cases: int, sizes: int) -> None:
    timings = tuple(timing(1 + index, 0.1, size=f"{1 + index % sizes}x9") for index in range(cases))
    many = record(timings=timings, starts=record().starts * 3, peer_comparisons=record().peer_comparisons * 30)
    lines = summary.as_text(many).splitlines()
    assert len(lines) <= 40
    assert any("more lines: --full" in line for line in lines)
    assert len(summary.as_text(many, full=True).splitlines()) > 2 * cases


def test_the_full_text_has_every_table() -> None:
    text = summary.as_text(record(), full=True)
    titles = (summary.LATENCY_TITLE, summary.STAGE_TITLE, summary.START_TITLE, summary.LOAD_TITLE, summary.PEER_TITLE)
    assert all(title in text for title in titles)
    assert "under load" not in summary.as_text(record(loads=()), full=True)


def test_a_stored_latency_bound_is_used_again() -> None:
    bounded = replace(measured(), settings={"max_latency_ms": 200})
    assert "within 200 ms" in summary.as_text(bounded)
    assert "within 20 ms" in summary.as_text(bounded, max_latency_ms=20)


def test_a_speedup_within_noise_is_not_quoted() -> None:
    comparison = record().peer_comparisons[0]
    noisy = replace(comparison, seconds=comparison.seconds | {"other": comparison.seconds["align-onnx"][::-1]})
    (row,) = summary.peer_rows(record(peer_comparisons=(noisy,)))
    assert row[2] == "within noise"
    (row,) = summary.peer_rows(record())
    assert row[2] == "2.000"


def test_doubts_are_listed() -> None:
    busy, *_ = metrics.warnings(record(load_average=(3.0, 1.0)))
    assert "3.0" in busy
    found = metrics.warnings(record())
    assert any("1 of 2 cases" in warning for warning in found)
    assert any("fewer than 100" in warning for warning in found)


def test_json_has_percentiles_beside_the_samples() -> None:
    values = json.loads(json.dumps(metrics.to_json(measured(), 200), allow_nan=False))
    first = values["summary"]["timings"][0]
    assert (first["p50_ms"], first["max_ms"], first["samples"]) == (pytest.approx(100), pytest.approx(200), 20)
    assert first["stages_p50_ms"]["compute"] == pytest.approx(50)
    assert values["summary"]["verdicts"][0]["max_latency_ms"] == 200
    assert len(values["timings"][0]["stages"]["end to end"]) == 20


def test_too_few_samples_have_no_interval_in_json() -> None:
    few = Timing(CASE, {"end to end": (0.1,) * 5}, 1, False)
    (found,) = metrics.summarize(record(timings=(few,)), None)["timings"]
    assert (found["p50_low_ms"], found["p50_high_ms"]) == (None, None)


def test_csv_has_a_row_per_stage_load_and_step_of_a_start() -> None:
    rows = list(csv.DictReader(io.StringIO(metrics.to_csv(record()))))
    assert [(row["measurement"], row["tower"], row["what"]) for row in rows] == [
        ("latency", "vision", "decode"),
        ("latency", "vision", "compute"),
        ("latency", "vision", "end to end"),
        ("latency", "text", "end to end"),
        ("closed loop", "vision", "2 clients"),
        ("open loop", "vision", "5.0/s arrive"),
        ("open loop", "vision", "9.0/s arrive"),
        ("start", "", "import"),
        ("start", "", "load"),
        ("start", "", "first image"),
        ("start", "", "first text"),
        ("start", "", "peak memory"),
    ]
    assert float(rows[4]["p50_ms"]) == 100
    assert rows[-1]["peak_bytes"] == str(2**28)
    assert (rows[0]["items_per_second"], rows[0]["batch"]) == ("", "8")
    assert float(rows[2]["items_per_second"]) > 70


def test_the_page_has_every_section_and_escapes_what_it_is_given() -> None:
    text = page(record())
    for title in ("Latency", "Stages", "Under load", "Start and memory", "Peers", "Machine and settings"):
        assert f">{title}</h2>" in text
    assert "a processor &lt;with a name&gt;" in text
    assert "<script" not in text
    assert "NaN" not in text
    assert "inf%" not in text
    assert text.count("<svg") >= 4


def test_text_and_page_show_the_same_cells() -> None:
    text, html = summary.as_text(measured(), full=True), page(measured())
    rows = [summary.timing_rows, summary.stage_rows, summary.start_rows, summary.load_rows, summary.peer_rows]
    for row in (row for make in rows for row in make(measured())):
        for cell in row:
            assert cell in text
            assert f">{cell}<" in html
    assert all(line in html for line in summary.verdict_lines(measured(), None))


def test_the_page_of_nothing_is_a_page() -> None:
    empty = record(timings=(), starts=(), loads=(), peer_comparisons=(), load_average=(None, None))
    assert "Machine and settings" in page(empty)
    assert summary.as_text(empty)


def test_throughput_is_drawn_over_batches() -> None:
    assert 'id="throughput"' not in page(record())  # one batch per size is no line
    timings = tuple(replace(record().timings[0], case=replace(CASE, batch=batch)) for batch in (8, 1, 2))
    text = page(record(timings=timings))
    assert 'id="throughput"' in text
    assert ">8</text>" in text  # a measured batch is a tick
