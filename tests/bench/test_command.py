"""`align-bench` on align-tiny, with as little work as it accepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from align_bench import command as bench
from align_bench import scaling
from align_bench.fresh_process import measure_start
from align_bench.measure import time_case
from align_bench.plan import Plan
from align_bench.record import BenchRecord, Case
from align_bench.scaling import FLAT_WITHIN, MemoryUse, measure_scaling
from align_bench.subject import opened
from align_bench.timing import Effort
from align_bench.workload import TextMaker, make_images
from align_runtime import Bundle, BundleError, ConfigurationError
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.console import Progress
from align_runtime.errors import BackendUnavailableError
from align_runtime.images import decode

LITTLE = ["--samples", "7", "--seconds", "0.01", "--load-seconds", "0.1", "--clients", "2", "--rates", "0.5"]


def test_a_bench_writes_tables_samples_and_a_page(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, html = tmp_path / "a.json", tmp_path / "a.html"
    files = ["-o", str(data), "--html", str(html)]
    sizes = ["--batch", "1", "3", "--length", "8", "--image-size", "80x60", "--starts", "1", "--streams", "2"]
    assert bench.main([str(tiny_bundle), *LITTLE, *files, *sizes, "--against", "openvino", "--rounds", "7"]) == 0
    printed = capsys.readouterr()
    assert "vision fp32 cpu, batch 3 of 80x60" in printed.out
    assert "openvino" in printed.out
    assert "under load" in printed.err
    found = BenchRecord.read(data)
    assert [str(timing.case) for timing in found.timings] == [
        "vision fp32 cpu, batch 1 of 80x60",
        "vision fp32 cpu, batch 3 of 80x60",
        "text fp32 cpu, batch 1 of 8 tokens",
        "text fp32 cpu, batch 3 of 8 tokens",
    ]
    assert list(found.timings[0].stages) == ["decode", "preprocess", "compute", "end to end"]
    assert list(found.timings[2].stages) == ["tokenise", "compute", "end to end"]
    assert [len(timing.end_to_end) for timing in found.timings] == [7] * 4
    assert [(load.tower, load.kind) for load in found.loads] == [
        ("vision", "closed"),
        ("vision", "open"),
        ("text", "closed"),
        ("text", "open"),
    ]
    assert found.starts[0].peak_bytes > 2**24
    assert found.machine["versions"]["onnxruntime"]
    assert len(found.contests) == 4
    assert "Against others" in html.read_text()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--precision", "int4"], "precision 'int4' is not in the bundle"),
        (["--device", "tpu"], "tpu"),
        (["--batch", "0"], "batches holds 0; positive numbers"),
        (["--length", "9999"], "a text of 9999 tokens was asked for"),
        (["--image-size", "640"], "the image size is '640'; width x height"),
        (["--samples", "3"], "3 samples are too few"),
        (["--against", "tflite"], "there is no peer 'tflite'"),
        (["--streams", "0"], "streams is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], match: str
) -> None:
    little = [option for option in LITTLE if options[0] != "--samples" or option not in ("--samples", "7")]
    assert bench.main([str(tiny_bundle), *little, "--starts", "0", "--tower", "text", "--quiet", *options]) == 2
    assert match in capsys.readouterr().err


def test_a_device_that_copies_has_stages_of_copying(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"host to device": 0.5, "compute": 2.0, "device to host": 0.25}
    monkeypatch.setattr(
        OnnxRuntimeRunner, "run_staged", lambda runner, inputs: (runner.run(inputs), times), raising=False
    )
    case = Case("text", "fp32", "cpu", 1, "8", None, 1)
    with opened(Bundle.open(tiny_bundle), "fp32", "cpu", streams=1) as subject:
        timing = time_case(subject, case, Effort(7, 0.01))
    assert list(timing.stages) == ["tokenise", *times, "end to end"]
    assert timing.stages["host to device"] == (0.5,) * 7


def test_inputs_are_what_was_asked_for_and_the_same_every_time(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with opened(bundle, "fp32", "cpu") as subject:
        for tokens in (2, 3, 12):
            texts = TextMaker(bundle).make(4, tokens)
            assert texts == TextMaker(bundle).make(4, tokens)
            assert {len(row) for row in subject.parts.texts.tokenizer.encode(texts)} == {tokens}
    images = make_images(2, 70, 50)
    assert images == make_images(2, 70, 50)
    assert {decode(image).size for image in images} == {(70, 50)}
    assert images[0] != images[1]
    photograph_like = len(make_images(1, 640, 480)[0]) / (640 * 480)
    assert 0.1 < photograph_like < 0.6  # bytes per pixel


def test_a_fresh_process_that_fails_says_why(bundle_copy: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="could not load and run the bundle: .*'int4' is not in"):
        measure_start(bundle_copy, "int4", "cpu", None, None)


def test_a_bundle_without_words_is_refused(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="no word of small letters"):
        TextMaker(bundle)


def test_every_axis_of_scaling_is_measured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "LENGTHS", (4, 8))
    monkeypatch.setattr(scaling, "IMAGE_SIZES", ("40x30", "80x60"))
    monkeypatch.setattr(scaling, "NUMBERS", {"vision": (1, 4), "text": (1, 40)})
    points = measure_scaling(Bundle.open(tiny_bundle), "fp32", "cpu", Effort(7, 0.01), Progress(quiet=True))
    axes = {(point.tower, point.axis) for point in points}
    assert axes == {
        ("vision", "image size"),
        ("text", "length"),
        *(
            (tower, axis)
            for tower in ("vision", "text")
            for axis in ("batch of the graph", "number of inputs", "threads")
        ),
    }
    assert all(point.milliseconds > 0 for point in points)


def test_memory_that_grows_is_not_flat() -> None:
    steps = np.arange(20)
    assert MemoryUse(10**6, tuple((10**8 + 10**5 * (steps % 3)).tolist()), 1.0).flat
    assert not MemoryUse(10**6, tuple((10**8 + steps * FLAT_WITHIN // 8).tolist()), 1.0).flat


def test_streamed_texts_are_watched(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["scaling", str(tiny_bundle), "--texts", "400", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert (found["texts"], len(found["resident_bytes"])) == (400, 20)
    assert (found["machine"]["device"], found["precision"]) == ("cpu", "fp32")
    assert len(found["bundle"]["manifest_sha256"]) == 64


def test_auto_is_resolved_before_anything_is_measured(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = ["--starts", "0", "--clients", "--tower", "text", "--batch", "1", "--samples", "7", "--seconds", "0.01"]
    assert bench.main([str(tiny_bundle), *few, "--device", "auto", "-o", str(tmp_path / "a.json"), "--quiet"]) == 0
    found = BenchRecord.read(tmp_path / "a.json")
    assert {timing.case.device for timing in found.timings} == {"cpu"}
    assert all(int(timing.case.size) in (12, 64) for timing in found.timings)  # the usual lengths that the model takes
    assert "device 'auto' is cpu here" in caplog.text


def test_plans_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="there is no tower 'sound'"):
        Plan(towers=("sound",))
    with pytest.raises(ConfigurationError, match="must not be negative"):
        Plan(starts=-1)
