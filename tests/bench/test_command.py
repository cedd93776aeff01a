"""`align-bench` on align-tiny, with as little work as it accepts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench import command as bench
from align_bench import measure, metrics, scaling
from align_bench.plan import Plan
from align_bench.record import BenchRecord, write_json
from align_runtime import Bundle
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, GPU_TARGET
from support.bench_records import record

LITTLE = ["--samples", "7", "--seconds", "0.01", "--load-seconds", "0.1"]
LOADS = ["--clients", "2", "--rates", "0.5"]
NONE = ["--clients", "--starts", "0"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A result file."""
    write_json(metrics.to_json(record(), None), tmp_path / "stored.json")
    return tmp_path / "stored.json"


def test_a_run_writes_samples_tables_and_a_page(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, html, rows = tmp_path / "a.json", tmp_path / "a.html", tmp_path / "a.csv"
    files = ["-o", str(data), "--html", str(html), "--csv", str(rows)]
    sizes = ["--batch", "1", "3", "--length", "8", "--image-size", "80x60", "--starts", "1", "--streams", "2"]
    peers = ["--against", "openvino", "--rounds", "7"]
    assert bench.main(["run", str(tiny_bundle), *LITTLE, *LOADS, *files, *sizes, *peers, "--max-latency", "1e6"]) == 0
    printed = capsys.readouterr()
    assert "vision fp32 cpu, batch 3 of 80x60" in printed.out
    assert "openvino" in printed.out
    assert printed.out.splitlines()[-1].startswith("text 8 tokens: best throughput within 1e+06 ms: ")
    assert len(printed.out.splitlines()) <= 40
    assert "cases: 4, load loops: 4, fresh starts: 1" in printed.err
    assert "under load" in printed.err
    found = BenchRecord.read(data)
    assert [str(timing.case) for timing in found.timings] == [
        "vision fp32 cpu, batch 1 of 80x60",
        "vision fp32 cpu, batch 3 of 80x60",
        "text fp32 cpu, batch 1 of 8 tokens",
        "text fp32 cpu, batch 3 of 8 tokens",
    ]
    assert list(found.timings[0].stages) == ["decode", "preprocess", "compute", "end to end"]
    assert list(found.timings[2].stages) == ["tokenize", "compute", "end to end"]
    assert [len(timing.end_to_end) for timing in found.timings] == [7] * 4
    assert [(load.tower, load.kind) for load in found.loads] == [
        ("vision", "closed"),
        ("vision", "open"),
        ("text", "closed"),
        ("text", "open"),
    ]
    assert found.starts[0].peak_bytes > 2**24
    assert found.machine["versions"]["onnxruntime"]
    assert len(found.peer_comparisons) == 4
    assert ">Peers</h2>" in html.read_text()
    with rows.open() as file:
        assert len(list(csv.DictReader(file))) == 14 + 4 + 5  # stages, loads, a start with its memory


def test_a_quick_run_has_few_cases_one_start_and_no_load(tiny_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "a.json"
    assert bench.main(["run", str(tiny_bundle), "--quick", "--seconds", "0.01", "-o", str(data), "--quiet"]) == 0
    found = BenchRecord.read(data)
    assert [(timing.case.tower, timing.case.size, timing.case.batch) for timing in found.timings] == [
        ("vision", "640x480", 1),
        ("vision", "640x480", 8),
        ("text", "12", 1),
        ("text", "12", 8),
    ]
    assert [len(timing.end_to_end) for timing in found.timings] == [7] * 4
    assert (len(found.starts), found.loads) == (1, ())
    assert found.settings["effort"] == {"samples": 7, "seconds": 0.01, "least": 7}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--precision", "int4"], "'int4'"),
        (["--device", "tpu"], "'tpu'"),
        (["--batch", "0"], "--batch"),
        (["--length", "9999"], "9999"),
        (["--length", "1"], "got 1"),
        (["--image-size", "640"], "'640'"),
        (["--samples", "3"], "got 3"),
        (["--seconds", "nan"], "nan"),
        (["--load-seconds", "0"], "got 0"),
        (["--max-latency", "-1"], "got -1"),
        (["--rates", "-0.5", "--clients", "1"], "got -0.5"),
        (["--against", "tflite"], "'tflite'"),
        (["--against", "fp32", "--rounds", "3"], "got 3"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--streams", "0"], "--streams"),
        (["--starts", "-1"], "got -1"),
        (["-o", "/"], "--output"),
        (["--html", "nowhere/a.html"], "nowhere"),
        (["--csv", "/proc/a.csv"], "/proc"),
        (["--csv", "same", "--html", "same"], "different files"),
        (["--precison", "fp32"], "--precison"),
    ],
)
def test_a_wrong_argument_ends_before_anything_is_measured(
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    match: str,
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(bench, "measure", measured)
    monkeypatch.setattr(bench, "estimate_seconds", measured)
    real_access = bench.os.access
    monkeypatch.setattr(bench.os, "access", lambda path, mode: str(path) != "/proc" and real_access(path, mode))
    assert bench.main(["run", str(tiny_bundle), *options]) == 2
    printed = capsys.readouterr()
    assert match in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert len(printed.err) <= 520
    assert printed.out == ""


def test_without_a_command_the_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bundle_called_like_a_command_can_be_measured(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle_copy.rename(bundle_copy.with_name("scaling"))
    monkeypatch.chdir(bundle_copy.parent)
    assert bench.main(["run", "scaling", *LITTLE, *NONE, "--tower", "text", "--batch", "1", "--length", "8"]) == 0
    assert "text 8 tokens" in capsys.readouterr().out


def test_json_is_one_object_with_samples_and_percentiles(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = [*LITTLE, *NONE, "--tower", "text", "--batch", "1", "--length", "8"]
    assert bench.main(["run", str(tiny_bundle), *little, "--json", "--max-latency", "1e6"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["schema"], found["kind"], len(found["timings"])) == (2, "run", 1)
    assert found["summary"]["verdicts"][0]["max_latency_ms"] == 1e6
    assert found["summary"]["timings"][0]["p50_ms"] > 0
    assert printed.err == ""


def test_an_error_is_json_too(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["run", str(tiny_bundle), "--json", "--length", "9999"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ConfigurationError"


def test_variants_for_gpus_are_measured_on_gpus(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    portable = [graph for graph in bundle.manifest.graphs if graph.target == ANY_TARGET]
    made_for_gpus = [replace(graph, variant="int8", target=GPU_TARGET) for graph in portable]
    made_for_cpus = [replace(graph, variant="int4", target=CPU_TARGET) for graph in portable]
    manifest = replace(bundle.manifest, graphs=(*portable, *made_for_gpus, *made_for_cpus))
    bundle = replace(bundle, manifest=manifest)
    assert {device: Plan().variants(bundle, device) for device in ("cpu", "cuda", "tensorrt")} == {
        "cpu": ("fp32", "int4"),
        "cuda": ("fp32", "int8"),
        "tensorrt": ("fp32", "int8"),
    }


def test_the_estimate_grows_with_the_plan(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    short = Plan(clients=(), rates=(), starts=0, lengths=(8,), image_sizes=("80x60",), towers=("text",))
    loaded = Plan(clients=(1,), rates=(0.5,), load_seconds=50, starts=0, lengths=(8,), towers=("text",))
    quick, long = measure.estimate_seconds(bundle, short), measure.estimate_seconds(bundle, loaded)
    assert 0 < quick < 60
    assert quick + 90 < long < quick + 150


def test_auto_is_resolved_before_anything_is_measured(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = [*NONE, "--tower", "text", "--batch", "1", "--samples", "7", "--seconds", "0.01"]
    command = ["run", str(tiny_bundle), *few, "--device", "auto", "-o", str(tmp_path / "a.json"), "--quiet"]
    assert bench.main(command) == 0
    found = BenchRecord.read(tmp_path / "a.json")
    assert {timing.case.device for timing in found.timings} == {"cpu"}
    # Without --length, the default lengths that the model takes.
    assert all(int(timing.case.size) in (12, 64) for timing in found.timings)
    assert "cpu" in caplog.text


def test_show_renders_a_stored_result_again(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html, rows = tmp_path / "a.html", tmp_path / "a.csv"
    assert bench.main(["show", str(stored), "--html", str(html), "--csv", str(rows), "--max-latency", "1"]) == 0
    assert "nothing has its p95 within 1 ms" in capsys.readouterr().out
    assert "nothing has its p95 within 1 ms" in html.read_text()
    assert rows.read_text() == metrics.to_csv(record())
    assert bench.main(["show", str(stored), "--full"]) == 0
    assert "under load" in capsys.readouterr().out
    assert bench.main(["show", str(stored), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(stored.read_text())


@pytest.mark.parametrize("options", [["--html", "."], ["--csv", "nowhere/a"], ["--max-latency", "0"]])
def test_show_checks_its_arguments(stored: Path, options: list[str]) -> None:
    assert bench.main(["show", str(stored), *options]) == 2


def test_scaling_writes_what_show_prints(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [scaling.Point("text", "length", "8", 0.5)]
    monkeypatch.setattr(bench, "measure_scaling", lambda *_: points)
    assert bench.main(["scaling", str(tiny_bundle), "-o", str(tmp_path / "s.json")]) == 0
    printed = capsys.readouterr().out
    assert bench.main(["show", str(tmp_path / "s.json")]) == 0
    assert capsys.readouterr().out == printed
    assert "0.500" in printed
    assert bench.main(["show", str(tmp_path / "s.json"), "--html", str(tmp_path / "s.html")]) == 2


def test_streamed_texts_are_recorded(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.json"
    assert bench.main(["scaling", str(tiny_bundle), "--texts", "400", "--json", "-o", str(file)]) in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == json.loads(file.read_text())
    assert (found["kind"], found["texts"], len(found["resident_bytes"])) == ("memory", 400, 20)
    assert (found["machine"]["device"], found["precision"]) == ("cpu", "fp32")
    assert len(found["bundle"]["manifest_sha256"]) == 64
    assert bench.main(["show", str(file)]) == 0
    assert "400 texts" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--precision", "int4"], ["--device", "tpu"], ["--texts", "0"], ["-o", "/"]])
def test_scaling_checks_its_arguments(tiny_bundle: Path, options: list[str]) -> None:
    assert bench.main(["scaling", str(tiny_bundle), *options]) == 2
